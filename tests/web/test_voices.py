"""Voice prints over HTTP and on the command line: suggestions in transcripts, the list, and every way to delete."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import pytest
from yarl import URL

from agents.__main__ import completed, parser_of
from schemas.accounts.settings import AccountSettings
from schemas.corrections.voices import SpeakerVoice
from schemas.jobs.outcome import Outcome, Progress
from sinks.accounts import Accounts
from sinks.memory.database import MemoryDatabase
from tests.web.corrections import CorrectingWorker
from tests.web.service import ACME, BOLT, problem
from tests.web.walk import accounts_resources

PATH = "/tenants/acme/voices"
SETTINGS = "/tenants/acme/settings"


@pytest.fixture
async def service():
    database = MemoryDatabase()
    resources = accounts_resources(database, Accounts(database, AccountSettings()))
    async with CorrectingWorker(database, resources=resources) as service:
        await consent(service, allowed=True)
        yield service


async def consent(service, *, allowed):
    sent = ACME | {"If-Match": "*"}
    answer = await service.client.patch(SETTINGS, json={"voice_prints": allowed}, headers=sent)
    assert answer.status == 200, await answer.text()


async def transcribed(service, job_id="j", **likeness):
    """A completed job with the speakers A and B, of whom A is like somebody."""
    await service.created(job_id, "acme")
    of = {"tenant_id": "acme", "job_id": job_id}
    voices = tuple(
        SpeakerVoice(**of, run=1, speaker=name, label=name, model="m", vector=name.encode(), seconds=9.0, **more)
        for name, more in (("A", likeness), ("B", {}))
    )
    await service.commit("reconcile", Outcome(**of, progress=Progress(run=1, status="persisting"), voices=voices))
    await service.transcribed(job_id)


def rename(speaker, to):
    return {"op": "rename", "speaker": speaker, "to": to}


async def listed(service):
    return [(voice["name"], voice["recordings"]) for voice in (await service.json(PATH))["voices"]]


async def suggestions(service, job_id="j", **query):
    return (await service.json(f"/jobs/{job_id}/transcript", params=query))["suggestions"]


async def test_a_name_that_is_given_is_suggested_in_a_later_transcript_and_taken_by_the_same_edit(service):
    await transcribed(service)
    assert await suggestions(service) == []
    await service.change(rename("A", "Ann"))
    await transcribed(service, "k", suggested="Ann", similarity=0.91)

    found = await suggestions(service, "k")
    shown = await service.json("/jobs/k/transcript")
    accepted = await service.change(rename("A", "Ann"), job="k")
    assert found == [{"speaker": "A", "name": "Ann", "similarity": 0.91}]
    assert shown["speakers"] == ["A", "B"]
    assert accepted.status == 200
    assert await suggestions(service, "k") == await suggestions(service, "k", version=1) == []
    assert (await service.json("/jobs/k/transcript"))["speakers"] == ["Ann", "B"]
    assert await listed(service) == [("Ann", 2)]


async def test_a_speaker_who_has_no_words_any_more_has_no_suggestion(service):
    await transcribed(service)
    await service.change(rename("A", "Ann"))
    await transcribed(service, "k", suggested="Ann", similarity=0.91)
    everything = [id for id, word in (await service.words("k")).items() if word]
    await service.change({"op": "assign", "words": everything, "to": "B"}, job="k")

    assert await suggestions(service, "k") == []


async def test_a_letter_is_no_name(service):
    await transcribed(service)
    await service.change(rename("A", "speaker 2"), rename("B", "A"))

    assert await listed(service) == []


async def test_the_list_says_who_did_what_and_shows_no_voice(service):
    await transcribed(service)
    await service.change(rename("A", "Ann"))
    answer = await service.json(PATH)

    [voice] = answer["voices"]
    assert (voice["name"], voice["recordings"], voice["seconds"], voice["recognised_at"]) == ("Ann", 1, 9.0, None)
    assert "vector" not in json.dumps(answer)
    [allowed] = answer["history"]
    stored = await service.database.account_settings("acme")
    assert (allowed["what"], allowed["author"]) == ("allowed", stored.updated_by)


async def test_one_voice_is_deleted_by_its_name_whatever_that_is(service):
    name = "Zoë / 100 % 1?"
    await transcribed(service)
    await service.change(rename("A", name), rename("B", "Bob"))
    url = f"{service.url}tenants/acme/voices/{quote(name, safe='')}"
    statuses = []
    for _ in range(2):
        async with service.client.session.delete(URL(url, encoded=True), headers=ACME) as answer:
            statuses.append(answer.status)

    assert statuses == [204, 404]
    assert await listed(service) == [("Bob", 1)]
    assert name in (await service.json("/jobs/j/transcript"))["speakers"]


async def test_all_are_deleted_at_once_or_with_the_consent(service):
    await transcribed(service)
    await service.change(rename("A", "Ann"))
    deleted = await service.client.delete(PATH, headers=ACME)
    after_all = await listed(service)
    await transcribed(service, "k")
    await service.change(rename("A", "Ann"), job="k")
    before = await listed(service)
    await consent(service, allowed=False)

    assert (deleted.status, after_all, before) == (204, [], [("Ann", 1)])
    assert await listed(service) == []
    history = (await service.json(PATH))["history"]
    assert [event["what"] for event in history] == ["withdrawn", "all deleted", "allowed"]


async def test_another_tenant_sees_and_deletes_nothing(service):
    await transcribed(service)
    await service.change(rename("A", "Ann"))

    assert (await service.json("/tenants/bolt/voices", BOLT))["voices"] == []
    assert (await problem(await service.client.delete("/tenants/bolt/voices/Ann", headers=BOLT), 404))["code"]
    assert (await service.client.delete(f"{PATH}/Ann", headers=BOLT)).status == 404
    assert (await service.client.delete(PATH, headers=BOLT)).status == 404
    assert await listed(service) == [("Ann", 1)]


@pytest.fixture
def concord(service, capsys):
    async def run(*line):
        environment = {"CONCORD_URL": service.url, "CONCORD_API_KEY": "acme-key"}
        arguments = parser_of(line).parse_args([str(part) for part in line])
        status = await asyncio.to_thread(completed, lambda: arguments.remote(arguments, environment))
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


async def test_the_command_lists_and_deletes(service, concord):
    await transcribed(service)
    await service.change(rename("A", "Ann Ö/1"), rename("B", "Bob"))
    status, text = await concord("voices", "list")
    unclear, both = await concord("voices", "delete"), await concord("voices", "delete", "Bob", "--all")
    one, again = await concord("voices", "delete", "Ann Ö/1"), await concord("voices", "delete", "Ann Ö/1")
    left = json.loads((await concord("voices", "list", "--json"))[1])["voices"]
    every = await concord("voices", "delete", "--all")

    assert (status, text.splitlines()[0].split(maxsplit=1)[0]) == (0, "NAME")
    assert "Ann Ö/1" in text
    assert (unclear[0], both[0], one[0], again[0], every[0]) == (2, 2, 0, 3, 0)
    assert [voice["name"] for voice in left] == ["Bob"]
    assert await listed(service) == []
