"""Edits of transcripts over HTTP: versions, preconditions, what follows from them, and what is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest

from schemas.corrections.changes import MAX_RENAMES, MAX_WORDS
from schemas.jobs.outcome import Outcome
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from tests.web.corrections import DECIDED, CorrectingWorker
from tests.web.service import ACME, BOLT, ROOT, problem

MEYER = {"op": "replace", "word": "w3", "text": "Maier"}


@pytest.fixture
async def worker():
    async with CorrectingWorker() as worker:
        await worker.transcribed()
        yield worker


async def test_a_word_is_changed_and_the_version_before_stays_readable(worker):
    seen = await worker.get("/jobs/j/transcript")
    changed = await worker.change(MEYER, if_match=seen.headers["ETag"], reason="her name")

    made = await changed.json()
    assert (changed.status, seen.headers["ETag"], changed.headers["ETag"]) == (200, '"1-1"', '"1-2"')
    assert (made["version"], made["author"], made["reason"]) == (2, "environment:acme", "her name")
    assert (made["changed_words"], made["words"]) == (1, 7)
    now = await worker.json("/jobs/j/transcript")
    assert (now["text"], now["version"]) == ("My name is Maier uh from Acme", 2)
    assert await worker.text(version=1) == "My name is Meyer uh from Acme"
    assert await worker.text(version=2) == now["text"]
    await problem(await worker.get("/jobs/j/transcript?version=3"), 404)
    listed = (await worker.json("/jobs/j/transcript/versions"))["versions"]
    assert [(one["version"], one["author"], one["changed_words"]) for one in listed] == [
        (2, "environment:acme", 1),
        (1, None, 0),
    ]
    assert listed[0]["edited_at"] is not None


async def test_the_first_version_is_shown_as_the_run_made_it(worker):
    before = await worker.json("/jobs/j/transcript")
    await worker.change(MEYER)
    after = await worker.json("/jobs/j/transcript?version=1")

    same = set(before) - {"confidence"}
    assert {name: before[name] for name in same} == {name: after[name] for name in same}


async def test_an_edit_is_announced_with_its_blob_and_the_job_says_so(worker):
    await worker.change(MEYER, reason="her name")

    [event] = worker.events()
    assert (event["version"], event["author"], event["reason"]) == (2, "environment:acme", "her name")
    assert (event["changed_words"], event["word_count"]) == (1, 7)
    assert event["edited_at"]
    content = orjson.loads(await worker.store.get(event["agent_optimized_uri"]))
    assert content["transcript"]["text"] == "My name is Maier uh from Acme"
    assert content["metadata"]["version"] == 2
    first = orjson.loads(await worker.store.get(worker.store.uri("acme/j/agent_optimized.json")))
    assert first["transcript"]["text"] == "My name is Meyer uh from Acme"
    job = await worker.database.job("acme", "j")
    document = job.enrichment["document"]
    assert (job.status, job.transcript_version) == ("completed", 2)
    assert (document.state, document.transcript_version) == ("pending", 2)
    assert worker.database.files["acme", "j", 1, "agent_optimized.v2"].uri == event["agent_optimized_uri"]
    assert worker.database._intents == {}
    assert ("edit", "edited") in [(entry.step, entry.what) for entry, _ in worker.database.audit.values()]


async def test_of_two_who_edit_the_same_version_one_is_told_to_look_again(worker):
    seen = (await worker.get("/jobs/j/transcript")).headers["ETag"]
    first = await worker.change(MEYER, if_match=seen)
    second = await worker.change({"op": "delete", "word": "w4"}, if_match=seen)

    await problem(second, 412)
    assert (first.status, second.headers["ETag"]) == (200, '"1-2"')
    assert (await worker.change({"op": "delete", "word": "w4"}, if_match=second.headers["ETag"])).status == 200
    assert await worker.text() == "My name is Maier from Acme"


async def test_of_two_at_the_same_moment_one_is_refused_and_leaves_nothing():
    class Both(MemoryReader):
        """Lets two edits read the same version before either is written."""

        waiting = asyncio.Barrier(2)

        async def version(self, *of):
            row = await super().version(*of)
            async with asyncio.timeout(5):
                await self.waiting.wait()
            return row

    database = MemoryDatabase()
    async with CorrectingWorker(database, versions=Both(database)) as worker:
        await worker.transcribed()
        await worker.change(MEYER)
        ops = [{"op": "replace", "word": "w3", "text": text} for text in ("Mayer", "Meier")]
        answers = await asyncio.gather(*(worker.change(op, if_match='"1-2"') for op in ops))

        assert sorted(answer.status for answer in answers) == [200, 412]
        assert [event["version"] for event in worker.events()] == [2, 3]
        assert len(database.versions) == 2
        assert len(await database.orphan_blobs(120, 3600, 10)) == 1


@pytest.mark.parametrize(("if_match", "status"), [(None, 428), ('"1-2"', 412), ('W/"1-1"', 412), ('"0", "1-1"', 200)])
async def test_an_edit_must_name_the_newest_version(worker, if_match, status):
    answer = await worker.change(MEYER, if_match=if_match)

    assert answer.status == status
    assert answer.headers["ETag"] == ('"1-2"' if status == 200 else '"1-1"')


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([{"op": "delete", "word": "w4"}], "My name is Meyer from Acme"),
        ([{"op": "insert", "after": "w2", "text": "not  Ann"}], "My name is not Ann Meyer uh from Acme"),
        ([{"op": "insert", "after": None, "text": "Well,"}], "Well, My name is Meyer uh from Acme"),
        ([{"op": "choose", "word": "w3", "reading": 1}], "My name is Mayor uh from Acme"),
        ([{"op": "choose", "word": "w4", "reading": 1}], "My name is Meyer from Acme"),
        (
            [{"op": "replace", "word": "w0", "text": "My 1."}, {"op": "insert", "after": "w0", "text": "x"}],
            "My 1. x name is Meyer uh from Acme",
        ),
    ],
)
async def test_each_kind_of_change(worker, changes, text):
    answer = await worker.change(*changes)

    assert answer.status == 200, await answer.text()
    assert await worker.text() == text


async def test_a_word_that_was_removed_can_be_chosen_again(worker):
    await worker.change({"op": "delete", "word": "w4"}, {"op": "delete", "word": "w3"})
    await worker.change({"op": "choose", "word": "w4", "reading": 0}, {"op": "choose", "word": "w3", "reading": 0})

    assert await worker.text() == "My name is Meyer uh from Acme"
    assert list(await worker.words()) == [f"w{n}" for n in range(7)]


async def test_speakers_are_renamed_and_words_given_to_others(worker):
    await worker.change({"op": "rename", "speaker": "A", "to": "Ann"}, {"op": "assign", "words": ["w4"], "to": "B"})

    now = await worker.json("/jobs/j/transcript")
    assert now["speakers"] == ["Ann", "B"]
    assert [segment["text"] for segment in now["segments"]] == ["My name is Meyer", "uh from Acme"]
    assert [word["disputed"] for word in await worker.full_words()] == [False, False, False, True, True, False, True]
    assert (await worker.json("/jobs/j/transcript/versions"))["versions"][0]["changed_words"] == 5


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"op": "replace", "word": "w9", "text": "x"}, "#/changes/0/word"),
        ({"op": "replace", "word": "w3", "text": " \x00 "}, "#/changes/0/replace/text"),
        ({"op": "delete", "word": "e2.1"}, "#/changes/0/word"),
        ({"op": "insert", "after": "w77", "text": "x"}, "#/changes/0/after"),
        ({"op": "choose", "word": "w3", "reading": 2}, "#/changes/0/reading"),
        ({"op": "choose", "word": "x", "reading": 0}, "#/changes/0/word"),
        ({"op": "rename", "speaker": "C", "to": "D"}, "#/changes/0/speaker"),
        ({"op": "assign", "words": ["w0", "no"], "to": "B"}, "#/changes/0/words/1"),
        ({"op": "shout", "word": "w0"}, "#/changes/0"),
        ({"op": "delete", "word": "w0", "why": "x"}, "#/changes/0/delete/why"),
    ],
)
async def test_a_change_that_does_not_fit_is_named_and_nothing_is_changed(worker, change, pointer):
    refused = await problem(await worker.change(change), 400)

    assert refused["errors"][0]["pointer"] == pointer
    assert worker.events() == []
    assert (await worker.json("/jobs/j/transcript"))["version"] == 1


async def test_a_whole_text_keeps_the_times_of_words_that_stay(worker):
    before = {word["id"]: word for word in await worker.full_words()}
    answer = await worker.write({"text": "My full name is Maier, from Acme. Bye", "reason": "typed"})

    assert answer.status == 200
    after = await worker.full_words()
    assert [word["text"] for word in after] == ["My", "full", "name", "is", "Maier,", "from", "Acme.", "Bye"]
    assert [word["id"] for word in after] == ["w0", "e2.1", "w1", "w2", "w3", "w5", "w6", "e2.2"]
    kept = [word for word in after if word["id"] in before]
    assert all((w["start_ms"], w["end_ms"]) == (before[w["id"]]["start_ms"], before[w["id"]]["end_ms"]) for w in kept)
    times = [word["start_ms"] for word in after]
    assert times == sorted(times)
    assert None not in times
    assert [word["speaker"] for word in after] == ["A"] * 5 + ["B"] * 3
    assert (await answer.json())["changed_words"] == 5


async def test_a_whole_transcript_may_come_in_segments_with_speakers(worker):
    segments = [{"speaker": "Ann", "text": "My name is"}, {"speaker": None, "text": "Meyer"}, {"text": "from Acme"}]
    await worker.write({"segments": segments})

    assert [(word["speaker"], word["text"]) for word in await worker.full_words()] == [
        ("Ann", "My"),
        ("Ann", "name"),
        ("Ann", "is"),
        (None, "Meyer"),
        ("B", "from"),
        ("B", "Acme"),
    ]


async def test_all_words_can_be_removed_and_written_again(worker):
    await worker.write({"text": ""})
    assert (await worker.json("/jobs/j/transcript"))["segments"] == []
    await worker.write({"text": "Hello there"})

    assert await worker.text() == "Hello there"
    assert list(await worker.words()) == ["e3.1", "e3.2"]


@pytest.mark.parametrize(
    "body", [{}, {"text": "x", "segments": []}, {"segments": [{"text": "x", "confidence": 1}]}, {"text": 7}]
)
async def test_a_whole_transcript_is_one_text_or_segments(worker, body):
    await problem(await worker.write(body), 400)


async def test_a_transcript_that_would_be_too_long_is_refused(worker):
    many = "x " * (MAX_WORDS // 100)
    renames = [{"op": "rename", "speaker": "A", "to": "A"}] * (MAX_RENAMES + 1)

    too_many = [{"op": "insert", "after": None, "text": many}] * 101
    assert (await problem(await worker.change(*too_many), 400))["errors"][0]["pointer"] == "#"
    assert (await problem(await worker.write({"text": many * 101}), 400))["errors"][0]["pointer"] == "#/text"
    await problem(await worker.change(*renames), 400)
    assert worker.events() == []


async def test_another_tenant_and_a_reader_cannot_edit(worker):
    unknown = await problem(await worker.change(MEYER, headers=BOLT, job="nothing"), 404)

    assert await problem(await worker.change(MEYER, headers=BOLT), 404) == unknown
    assert (await worker.change(MEYER, headers={})).status == 401
    assert (await worker.change(MEYER, headers=ROOT)).status == 200


async def test_a_job_without_a_completed_run_cannot_be_edited(worker):
    await worker.created("new")
    await problem(await worker.change(MEYER, job="new"), 404)
    job = await worker.database.job("acme", "j")
    await worker.commit("intake", Outcome(tenant_id="acme", job_id="j", begin=replace(job, run=2, status="uploaded")))

    assert "run 2" in (await problem(await worker.change(MEYER), 409))["detail"]
    assert await worker.text(run=1) == DECIDED.text


async def test_edits_of_an_earlier_run_stay_readable_and_its_tag_edits_nothing(worker):
    await worker.change(MEYER)
    job = await worker.database.job("acme", "j")
    await worker.commit("intake", Outcome(tenant_id="acme", job_id="j", begin=replace(job, run=2, status="uploaded")))
    await worker.transcribed()

    assert (await worker.database.job("acme", "j")).transcript_version == 1
    await problem(await worker.change(MEYER, if_match='"1-2"'), 412)
    assert await worker.text() == DECIDED.text
    assert await worker.text(run=1) == "My name is Maier uh from Acme"
    assert await worker.text(run=1, version=1) == DECIDED.text
    versions = await worker.json("/jobs/j/transcript/versions?run=1")
    assert [one["etag"] for one in versions["versions"]] == ['"1-2"', '"1-1"']


async def test_an_edit_whose_words_are_gone_from_the_store_is_answered_and_changes_nothing(worker):
    await worker.store.delete(worker.store.uri("acme/j/raw_transcript.json"))

    await problem(await worker.change(MEYER), 404)
    assert worker.events() == []


async def test_words_are_listed_with_their_version(worker):
    response = await worker.get("/jobs/j/transcript/words")

    assert response.headers["ETag"] == '"1-1"'
    assert (await response.json())["words"][3] == {
        "id": "w3",
        "text": "Meyer",
        "start_ms": 900,
        "end_ms": 1200,
        "speaker": "A",
        "confidence": 0.5,
        "disputed": True,
    }
    await problem(await worker.get("/jobs/j/transcript/words?version=2"), 404)
    assert (await worker.get("/jobs/j/transcript/words", headers=ACME)).status == 200
