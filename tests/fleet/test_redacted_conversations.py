"""Conversations of accounts whose personal data are hidden: what an agent has understood is redacted as every
recognizer's transcript is, before anything is stored that others read.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from agents.conversations import recording, storing
from agents.runtime.failpoints import CONVERSATION_POINTS
from agents.stages import fetch, persist, reconcile
from schemas.accounts.settings import AccountSettings
from schemas.blob_names import is_restricted
from tests.fleet.conftest import FakeRecognizer, ProbeHere
from tests.fleet.conversations import ACCOUNT, CONVERSATION, JOB, calls, mp3
from tests.servers.elevenlabs import Scripted, elevenlabs_server
from tests.servers.smtp import smtp_server

CARD, MAIL = "4539 1488 0343 6467", "zoe.smith@example.org"

TURNS = (
    ("agent", "Thank you for calling. How can I help you?", 0),
    ("agent", "Are you still there?", 4),
    ("user", f"Yes, my card is {CARD} and it expires soon.", 6),
    ("agent", f"And your mail address is {MAIL}, right?", 12),
    ("user", "Right.", None),
)
REDACTED = """\
AI: Thank you for calling. How can I help you?
AI: Are you still there?
User: Yes, my card is [CARD] and it expires soon.
AI: And your mail address is [EMAIL], right?
User: Right.
"""
HEARD = " ".join(spoken for _, spoken, _ in TURNS)

#: What must not be found where others read: parts of what is planted.
PLANTED = (b"4539", b"1488", b"0343", b"6467", b"zoe.smith", b"example.org")


@pytest.fixture
async def fleet(make_scenario, monkeypatch):
    scenario = make_scenario(FakeRecognizer("a", HEARD), FakeRecognizer("b", HEARD))
    async with elevenlabs_server() as elevenlabs, smtp_server() as smtp:
        elevenlabs.conversations[CONVERSATION] = Scripted(TURNS, audio=mp3())
        async with calls(scenario, elevenlabs, smtp, ProbeHere(processes=0), monkeypatch) as it:
            yield it


async def begun(fleet, redact="keep", **request):
    """The state of a conversation's processing whose account has personal data hidden."""
    fleet.settings = AccountSettings(redact_pii=True, redact=redact)
    await fleet.start()
    return await done(fleet, **request)


async def done(fleet, **request):
    fleet.request(**request)
    await fleet.fleet.run()
    return await fleet.processing()


async def found(fleet, where=lambda name: True):
    """The names of the blobs in which something planted is, of these names; a recording has all of it."""
    names = [fleet.store.name(uri) async for uri in fleet.store.list(f"{ACCOUNT}/")]
    blobs = {name: await fleet.blob(name) for name in names if where(name)}
    return sorted(name for name, blob in blobs.items() if blob == mp3() or any(part in blob for part in PLANTED))


def published(fleet):
    """What is on all topics, and in the mails."""
    records = [record.value for log in fleet.fleet.log.values() for record in log if record.value]
    return [
        content for content in (*records, *fleet.smtp.taken) if any(part in str(content).encode() for part in PLANTED)
    ]


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("redact", ["keep", "forget"])
async def test_a_conversation_is_redacted_before_anybody_reads_it(fleet, redact, verify):
    state = await begun(fleet, redact, options={"verify": verify})
    job, report = await fleet.job(), fleet.renderer.reports[CONVERSATION]

    assert state.status == "completed"
    assert (await fleet.blob(f"{ACCOUNT}/transcripts/{CONVERSATION}.txt")).decode() == REDACTED
    assert await found(fleet, lambda name: not is_restricted(name)) == []
    assert published(fleet) == []
    assert "[CARD]" in str(report.turns)
    assert any("The recording" in note for note in report.notes)
    kept = [f"{ACCOUNT}/{JOB}/restricted/{name}" for name in ("hypotheses/elevenlabs-agent.json", "original.mp3")]
    assert set(kept) <= set(await found(fleet)) if redact == "keep" else await found(fleet) == []
    assert (job.original_uri is not None) == (redact == "keep")
    assert len(fleet.smtp.taken) == 1
    assert {file.kind for file in fleet.fleet.database.files.values()} >= {"conversation", "report"}


@pytest.mark.parametrize("redact", ["keep", "forget"])
async def test_a_redacted_conversation_goes_on_from_what_is_left(fleet, redact):
    fleet.smtp.trouble["RCPT"] = ["550 5.1.1 no such user"]
    assert (await begun(fleet, redact)).code == "mail_refused"

    assert (await done(fleet, email_id="ann@new.example")).status == "completed"
    assert ((await fleet.job()).run, fleet.elevenlabs.count("get"), len(fleet.smtp.taken)) == (2, 1, 1)
    assert (await fleet.blob(f"{ACCOUNT}/transcripts/{CONVERSATION}.txt")).decode() == REDACTED
    assert await found(fleet, lambda name: not is_restricted(name)) == []


async def test_what_an_account_has_set_since_holds(fleet):
    await fleet.start()
    fleet.elevenlabs.conversations[CONVERSATION].before = ["in-progress"] * 9
    fleet.request()
    await fleet.fleet.run(until=timedelta(seconds=3))
    await fleet.fleet.database.save_account_settings(ACCOUNT, AccountSettings(redact_pii=True), 0, "x")
    await fleet.fleet.run()

    assert (await fleet.processing()).status == "completed"
    assert await found(fleet, lambda name: not is_restricted(name)) == []


async def test_what_was_stored_for_every_reader_is_not_when_it_goes_on(fleet):
    await fleet.start()
    fleet.smtp.trouble["RCPT"] = ["550 5.1.1 no such user"]
    assert (await done(fleet)).code == "mail_refused"
    await fleet.fleet.database.save_account_settings(ACCOUNT, AccountSettings(redact_pii=True), 0, "x")

    assert (await done(fleet)).status == "completed"
    assert (await fleet.blob(f"{ACCOUNT}/transcripts/{CONVERSATION}.txt")).decode() == REDACTED
    assert not [name for name in await found(fleet) if name.endswith(".mp3") and not is_restricted(name)]


async def test_a_language_in_which_nothing_is_found_is_refused_before_anything_is_stored(fleet):
    fleet.elevenlabs.conversations[CONVERSATION].fields = {"metadata": {"main_language": "nl"}}
    state = await begun(fleet)

    assert (state.status, state.current_step, state.code) == ("failed", "fetch", "unsupported_option")
    assert "redact_pii" in state.error
    assert "language nl" in state.error
    assert [uri async for uri in fleet.store.list(f"{ACCOUNT}/")] == []


async def test_without_a_recording_nothing_is_said_of_one(fleet):
    fleet.elevenlabs.conversations[CONVERSATION].audio = None
    assert (await begun(fleet)).status == "completed"

    notes = fleet.renderer.reports[CONVERSATION].notes
    assert not any(note.startswith("The recording") for note in notes)


class Killed(BaseException):
    """Ends a process at a failpoint: nothing behind it is done."""


@pytest.mark.parametrize("redact", ["keep", "forget"])
@pytest.mark.parametrize(
    "point", [*CONVERSATION_POINTS[:3], "reconcile.judged", "reconcile.stored", "persist.half-stored", "persist.stored"]
)
async def test_a_kill_anywhere_leaves_nothing_readable_and_loses_nothing(fleet, monkeypatch, point, redact):
    armed = [point]

    def passing(name):
        if name in armed:
            armed.clear()
            raise Killed

    for module in (fetch, recording, storing, reconcile, persist):
        monkeypatch.setattr(module, "passing", passing)
    with pytest.raises(Killed):
        await begun(fleet, redact)
    assert await found(fleet, lambda name: not is_restricted(name)) == []
    await fleet.fleet.run()

    assert ((await fleet.processing()).status, len(fleet.smtp.taken)) == ("completed", 1)
    assert (await fleet.blob(f"{ACCOUNT}/transcripts/{CONVERSATION}.txt")).decode() == REDACTED
    assert await found(fleet, lambda name: redact == "forget" or not is_restricted(name)) == []
    assert fleet.elevenlabs.count("get") == 1
