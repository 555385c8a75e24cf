"""Voices in a fleet: recognised in later recordings with the tenant's consent, never across tenants, and forgotten."""

from __future__ import annotations

import io
import wave
from uuid import UUID

import numpy as np
import pytest

from agents.commands.demo_recordings import PEOPLE
from agents.corrections import editor
from agents.embedded.weights import has_voices, voices_path
from agents.media.decoding.decoder import decode
from agents.stages import reconcile
from agents.stages.speaking import NOT_COMPARED
from agents.text.speakers.prints import SAME_PERSON
from agents.upkeep.deleting import Deleter
from agents.voices.listening import Listener
from agents.voices.scripted import ScriptedListener
from schemas.accounts.settings import AccountSettings
from schemas.corrections.changes import TranscriptPatch
from schemas.errors import ProviderError, Transient
from schemas.events.job import JobReprocess
from schemas.words import Hypothesis, Word
from sinks.fair_slots import FairSlots
from sinks.memory.reader import MemoryReader
from tests.fleet.conftest import FakeRecognizer
from tests.fleet.test_deletion import Vendors
from tests.recordings import RATE

DIARIZED = {"diarize": True}
TEXT = "how can i help my order is late"
CALLER_MS = 1600
#: The agent's and the caller's voice, by the letters that they get.
PEOPLE_OF_THE_CALL = {"A": 1, "B": 2}


def job(number: int) -> str:
    return str(UUID(int=number))


def scripted(trouble=(), **people):
    return ScriptedListener((CALLER_MS,), list(trouble), people=people or PEOPLE_OF_THE_CALL, least_s=0.0)


@pytest.fixture
def fleet_of(make_scenario):
    """A fleet with this listener, in which these tenants allow voice prints."""

    async def make(listener, *tenants):
        scenario = make_scenario(FakeRecognizer("a", TEXT), voices=listener)
        scenario.reader = MemoryReader(scenario.fleet.database)
        scenario.editor = editor.Editor(scenario.reader, scenario.store, scenario.fleet.database, FairSlots(4, 2))
        for tenant in tenants:
            await allow(scenario, tenant)
        return scenario

    return make


async def allow(scenario, tenant="t", *, allowed=True):
    database = scenario.fleet.database
    version = (await database.account_settings(tenant)).version
    await database.save_account_settings(tenant, AccountSettings(voice_prints=allowed), version, "key_1")


async def recorded(scenario, number, tenant="t", **upload):
    """Have a call heard."""
    await scenario.upload(job(number), tenant, **{"options": DIARIZED} | upload)
    await scenario.fleet.run()
    assert scenario.fleet.status(tenant, job(number)).status == "completed"


async def rename(scenario, number, speaker, to, tenant="t"):
    patch = TranscriptPatch.model_validate({"changes": [{"op": "rename", "speaker": speaker, "to": to}]})
    await scenario.editor.patch(await scenario.reader.transcript(tenant, job(number)), patch, "key_1")


async def suggested(scenario, number, tenant="t", run=1):
    found = await scenario.reader.voice_suggestions(tenant, job(number), run)
    return {one.speaker: one.name for one in found}


async def names(scenario, tenant="t"):
    return {one.name: one.recordings for one in await scenario.fleet.database.voices(tenant)}


async def blobs(scenario, number, tenant="t"):
    folder = f"{tenant}/{job(number)}/"
    return sorted([scenario.store.name(uri).removeprefix(folder) async for uri in scenario.store.list(folder)])


def kept(scenario):
    """The rows of voices, of whomever."""
    return scenario.fleet.database.speaker_voices


async def test_a_voice_that_was_named_is_suggested_in_the_next_recording(fleet_of):
    scenario = await fleet_of(scripted(), "t")
    await recorded(scenario, 1)
    first = await suggested(scenario, 1)
    await rename(scenario, 1, "A", "Ann")
    await recorded(scenario, 2)

    assert first == {}
    assert await suggested(scenario, 2) == {"A": "Ann"}
    transcript = await scenario.reader.transcript("t", job(2))
    assert transcript.speakers == ["A", "B"]
    assert "Ann" not in transcript.text + str(transcript.segments) + str(transcript.reconciliation_notes)
    await rename(scenario, 2, "A", "Ann")
    assert await suggested(scenario, 2) == {}
    assert await names(scenario) == {"Ann": 2}
    assert (await scenario.reader.transcript("t", job(2))).speakers == ["Ann", "B"]


async def test_without_consent_nothing_of_a_voice_is_computed_or_kept(fleet_of):
    listener = scripted()
    scenario = await fleet_of(listener)
    await recorded(scenario, 1)
    without = await blobs(scenario, 1)
    await rename(scenario, 1, "A", "Ann")
    await allow(scenario)
    await recorded(scenario, 2)

    assert listener.printed == [("A", "B")]  # of the second recording only
    assert {key[1] for key in kept(scenario)} == {job(2)}
    assert await suggested(scenario, 2) == {}
    # Nor does the store get anything of a voice, with consent or without.
    assert await blobs(scenario, 2) == without


async def test_two_tenants_with_the_same_voice_learn_nothing_of_each_other(fleet_of):
    scenario = await fleet_of(scripted(), "t", "u")
    for tenant in ("t", "u"):
        await recorded(scenario, 1, tenant)
    await rename(scenario, 1, "A", "Ann", "t")
    for tenant in ("t", "u"):
        await recorded(scenario, 2, tenant)

    assert await suggested(scenario, 2, "t") == {"A": "Ann"}
    assert await suggested(scenario, 2, "u") == {}
    assert (await names(scenario, "t"), await names(scenario, "u")) == ({"Ann": 1}, {})
    await rename(scenario, 1, "A", "Zoë", "u")
    await recorded(scenario, 3, "u")
    await recorded(scenario, 3, "t")
    assert (await suggested(scenario, 3, "t"), await suggested(scenario, 3, "u")) == ({"A": "Ann"}, {"A": "Zoë"})


async def test_a_job_whose_personal_data_are_hidden_has_no_voices_and_no_suggestions(fleet_of):
    listener = scripted()
    scenario = await fleet_of(listener, "t")
    await recorded(scenario, 1)
    await rename(scenario, 1, "A", "Ann")
    for number, how in ((2, "keep"), (3, "forget")):
        await recorded(scenario, number, options=DIARIZED | {"redact_pii": True, "redact": how})
        await rename(scenario, number, "B", "Bob")

    assert len(listener.printed) == 1
    assert {key[1] for key in kept(scenario)} == {job(1)}
    assert [await suggested(scenario, number) for number in (2, 3)] == [{}, {}]
    assert await names(scenario) == {"Ann": 1}


async def test_a_consent_that_ends_while_a_recording_is_heard_leaves_nothing(fleet_of, monkeypatch):
    listener = scripted()
    scenario = await fleet_of(listener, "t")
    heard = listener.prints

    async def withdrawn(*arguments):
        await allow(scenario, allowed=False)
        return await heard(*arguments)

    monkeypatch.setattr(listener, "prints", withdrawn)
    await recorded(scenario, 1)

    assert listener.printed == [("A", "B")]
    assert kept(scenario) == {}


async def test_what_is_withdrawn_deleted_or_of_a_deleted_job_is_not_recognised(fleet_of):
    scenario = await fleet_of(scripted(), "t")
    await recorded(scenario, 1)
    await rename(scenario, 1, "A", "Ann")
    await rename(scenario, 1, "B", "Bob")
    await recorded(scenario, 2)
    await rename(scenario, 2, "B", "Bob")
    everybody = await names(scenario)
    await scenario.fleet.database.begin_deletion(("t", job(1)), "key_1")
    await recorded(scenario, 3)
    after_deletion = await suggested(scenario, 3)
    await scenario.fleet.database.delete_voices("t", "Bob", "key_1")
    await recorded(scenario, 4)
    after_bob = await suggested(scenario, 4)
    await rename(scenario, 4, "A", "Ann")
    await allow(scenario, allowed=False)
    await allow(scenario)
    await recorded(scenario, 5)

    assert everybody == {"Ann": 1, "Bob": 2}
    assert (after_deletion, after_bob, await suggested(scenario, 5)) == ({"B": "Bob"}, {}, {})


async def test_a_deletion_counts_the_voices_in_its_receipt(fleet_of):
    scenario = await fleet_of(scripted(), "t")
    await recorded(scenario, 1)
    await rename(scenario, 1, "A", "Ann")

    async def retention():
        return {}

    await scenario.fleet.database.begin_deletion(("t", job(1)), "key_1")
    await Deleter(scenario.fleet.database, scenario.store, Vendors(), retention).round()
    receipt = (await scenario.fleet.database.deletion("t", job(1))).receipt
    assert receipt["rows"]["voice_prints"] == 2
    assert not kept(scenario)
    assert [what["what"] for what in receipt["kept"] if "voice" in what["what"]] == []


class Killed(BaseException):
    """Ends a process at a failpoint: nothing after it is done."""


def killing(monkeypatch, module, point):
    armed = [point]

    def passing(name):
        if name in armed:
            armed.clear()
            raise Killed

    monkeypatch.setattr(module, "passing", passing)
    return armed


@pytest.mark.parametrize("point", ["reconcile.judged", "reconcile.stored"])
async def test_a_kill_while_voices_are_heard_keeps_them_once(fleet_of, monkeypatch, point):
    scenario = await fleet_of(scripted(), "t")
    await recorded(scenario, 1)
    await rename(scenario, 1, "A", "Ann")
    armed = killing(monkeypatch, reconcile, point)
    await scenario.upload(job(2), options=DIARIZED)
    with pytest.raises(Killed):
        await scenario.fleet.run()
    before = [key for key in kept(scenario) if key[1] == job(2)]
    await scenario.fleet.run()

    assert (armed, before) == ([], [])
    assert sorted(key[3] for key in kept(scenario) if key[1] == job(2)) == ["A", "B"]
    assert await suggested(scenario, 2) == {"A": "Ann"}


@pytest.mark.parametrize(
    ("point", "is_named"),
    [("edit.intended", False), ("edit.stored", False), ("edit.before-commit", False), ("edit.after-commit", True)],
)
async def test_a_kill_while_a_speaker_is_named_names_transcript_and_voice_or_neither(
    fleet_of, monkeypatch, point, is_named
):
    scenario = await fleet_of(scripted(), "t")
    await recorded(scenario, 1)
    armed = killing(monkeypatch, editor, point)
    with pytest.raises(Killed):
        await rename(scenario, 1, "A", "Ann")

    assert armed == []
    speakers = (await scenario.reader.transcript("t", job(1))).speakers
    assert (await names(scenario), "Ann" in speakers) == (({"Ann": 1}, True) if is_named else ({}, False))


@pytest.mark.parametrize("trouble", [Transient("its process died"), ProviderError("the model is damaged")])
async def test_no_job_fails_because_its_voices_cannot_be_compared(fleet_of, trouble):
    listener = scripted()
    scenario = await fleet_of(listener, "t")
    listener.trouble = [None, trouble]  # the listening that tells the speakers apart succeeds
    await recorded(scenario, 1)

    notes = (await scenario.reader.transcript("t", job(1))).reconciliation_notes
    assert [note for note in notes if note.startswith(NOT_COMPARED)] == [f"{NOT_COMPARED} {trouble}"]
    assert kept(scenario) == {}


async def test_a_job_that_is_run_again_is_told_whom_it_had(fleet_of):
    scenario = await fleet_of(scripted(), "t")
    await recorded(scenario, 1)
    await rename(scenario, 1, "B", "Bob")
    again = JobReprocess(tenant_id="t", job_id=job(1), run=2)
    scenario.fleet.publish("intake.due", again, headers=(("ce_type", b"job.reprocess"),))
    await scenario.fleet.run()

    assert await suggested(scenario, 1, run=2) == {"B": "Bob"}
    assert await names(scenario) == {"Bob": 1}
    assert sorted(key[2:] for key in kept(scenario)) == [(1, "B"), (2, "A"), (2, "B")]


class Hears(FakeRecognizer):
    """Hears a word in every 400 ms for so long."""

    seconds = 0

    async def poll(self, provider_id):
        words = tuple(Word(f"word{n}", 400 * n, 400 * n + 350, 0.9) for n in range(int(self.seconds / 0.4)))
        return Hypothesis(self.name, words, "en", int(self.seconds * 1000), 0.9)


def wav(samples) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return content.getvalue()


@pytest.mark.skipif(not has_voices(), reason="the extra `local` is not installed")
async def test_people_are_recognised_in_another_recording_and_strangers_are_not(make_scenario):
    """Two people read; in the second recording they say other words, and in the other order."""
    one, other = (
        np.concatenate(list(decode(PEOPLE / f"{name}.flac", RATE))) for name in ("sense-and-sensibility", "two-cities")
    )
    half = 9 * RATE
    first, second = slice(0, half), slice(half, 2 * half)
    recordings = [np.concatenate([one[first], other[first]]), np.concatenate([other[second], one[second]])]
    recognizer, listener = Hears("a"), Listener(voices_path)
    recognizer.seconds = 18
    scenario = make_scenario(recognizer, voices=listener)
    scenario.reader = MemoryReader(scenario.fleet.database)
    scenario.editor = editor.Editor(scenario.reader, scenario.store, scenario.fleet.database, FairSlots(4, 2))
    await allow(scenario)
    try:
        options = DIARIZED | {"speakers": 2}
        await recorded(scenario, 1, content=wav(recordings[0]), options=options)
        await rename(scenario, 1, "A", "Reader of Austen")
        await recorded(scenario, 2, content=wav(recordings[1]), options=options)
    finally:
        await listener.close()

    found = await scenario.reader.voice_suggestions("t", job(2), 1)
    assert [(one.speaker, one.name) for one in found] == [("B", "Reader of Austen")]
    assert SAME_PERSON <= found[0].similarity <= 1
