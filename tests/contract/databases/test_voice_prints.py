"""Voice prints, on PostgreSQL and on the double: kept with consent only, named by edits, and gone when they must be."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import asyncpg
import numpy as np
import pytest

from schemas.accounts.settings import AccountSettings
from schemas.corrections.voices import RenamedSpeaker, SpeakerVoice, VoiceSuggestion
from schemas.jobs.outcome import Outcome, Progress, Step
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.reader import Reader
from tests.contract.databases.cases import created, job, transcript
from tests.contract.databases.test_corrections import edit

MODEL = "m"


@pytest.fixture
def reader(under_test):
    database = under_test.database
    return MemoryReader(database) if isinstance(database, MemoryDatabase) else Reader(under_test.pool)


def vector(place: int) -> bytes:
    numbers = np.zeros(4, dtype="<f4")
    numbers[place] = 1
    return numbers.tobytes()


def voice(speaker="A", job_id="j", tenant="acme", run=1, place=0, **more) -> SpeakerVoice:
    owner = {"tenant_id": tenant, "job_id": job_id, "run": run}
    return SpeakerVoice(**owner, speaker=speaker, label=speaker, model=MODEL, vector=vector(place), seconds=9.5, **more)


async def allow(database, tenant="acme", *, allowed: bool | None = True, by="key_1"):
    version = (await database.account_settings(tenant)).version
    assert await database.save_account_settings(tenant, AccountSettings(voice_prints=allowed), version, by)


def heard(*voices: SpeakerVoice, status="persisting") -> Step:
    """What `reconcile` commits."""
    of = voices[0]
    progress = Progress(run=of.run, status=status, stage="reconcile")
    return Step(
        "reconcile", uuid4(), Outcome(tenant_id=of.tenant_id, job_id=of.job_id, progress=progress, voices=voices)
    )


async def completed(database, *voices: SpeakerVoice) -> None:
    """A job whose run has these speakers, and has ended."""
    of = voices[0]
    await database.commit([created(job(of.job_id, of.tenant_id, run=of.run, status="reconciling"))])
    await database.commit([heard(*voices)])
    ended = Progress(run=of.run, status="completed", stage="persist")
    text = transcript(of.job_id, of.tenant_id, of.run)
    outcome = Outcome(tenant_id=of.tenant_id, job_id=of.job_id, progress=ended, transcript=text)
    await database.commit([Step("persist", uuid4(), outcome)])


def named(*renamed: tuple[str, str], version=2, job_id="j", tenant="acme", run=1) -> Step:
    """An edit that renames speakers, to letters or to names."""
    step = edit(version, tenant=tenant, run=run, later=False)
    changes = step.outcome.edit
    changes = replace(
        changes,
        version=replace(changes.version, job_id=job_id),
        transcript=replace(changes.transcript, job_id=job_id),
        renamed=tuple(RenamedSpeaker(speaker, to, is_name=len(to) > 1) for speaker, to in renamed),
    )
    return replace(step, outcome=replace(step.outcome, job_id=job_id, edit=changes, files=()))


async def names(database, tenant="acme"):
    return [(one.name, one.recordings) for one in await database.voices(tenant)]


async def labels(database, tenant="acme"):
    return sorted((row.job_id, row.speaker, row.label) for row in await database.named_voices(tenant, MODEL))


async def test_without_consent_nothing_is_kept(under_test):
    database = under_test.database
    await completed(database, voice())
    await database.commit([named(("A", "Ann"))])
    await allow(database, "bolt")

    assert await labels(database) == []
    assert await names(database) == []
    await allow(database, allowed=False)
    await database.commit([created(job("k", "acme"))])
    await database.commit([heard(voice(job_id="k"))])
    assert await database.delete_voices("acme", None, "key_1") == 0


async def test_a_speaker_that_is_named_is_a_voice_print(under_test):
    database = under_test.database
    await allow(database)
    await completed(database, voice("A"), voice("B", place=1))
    before = await labels(database)
    await database.commit([named(("A", "Ann"))])

    assert before == []
    [row] = await database.named_voices("acme", MODEL)
    assert (row.label, row.speaker, row.vector, row.named_by) == ("Ann", "A", vector(0), "key_1")
    assert await database.named_voices("acme", "another model") == []
    assert await database.named_voices("bolt", MODEL) == []
    [listed] = await database.voices("acme")
    assert (listed.name, listed.recordings, listed.seconds, listed.recognised_at) == ("Ann", 1, 9.5, None)
    assert listed.created_at == listed.named_at == row.named_at
    assert [entry.what for entry in await under_test.audit() if entry.step == "voices" and entry.job_id == "j"] == [
        "named"
    ]


async def test_names_are_exchanged_changed_and_taken_back(under_test):
    database = under_test.database
    await allow(database)
    await completed(database, voice("A"), voice("B", place=1))
    await database.commit([named(("A", "Bob"), ("B", "Ann"))])
    await database.commit([named(("Bob", "x"), ("Ann", "Bob"), ("x", "Ann"), version=3)])
    exchanged = await labels(database)
    await database.commit([named(("Bob", "B"), version=4)])

    assert exchanged == [("j", "A", "Ann"), ("j", "B", "Bob")]
    assert await labels(database) == [("j", "A", "Ann")]


async def test_an_edit_that_came_too_late_names_nobody(under_test):
    database = under_test.database
    await allow(database)
    await completed(database, voice())
    [first] = await database.commit([named(("A", "Ann"))])
    [second] = await database.commit([named(("Ann", "Bob"))])

    assert (first.applied, second.applied) == (True, False)
    assert await names(database) == [("Ann", 1)]


async def test_the_same_step_again_keeps_a_voice_once_and_its_name(under_test):
    database, step = under_test.database, heard(voice())
    await allow(database)
    await database.commit([created(job("j", "acme", status="reconciling"))])
    assert [bool(written) for written in await database.commit([step, step])] == [True, False]
    assert await database.commit([step]) == [None]
    await database.delete_voices("acme", None, "key_1")

    assert await database.commit([step]) == [None]
    assert await database.delete_voices("acme", None, "key_1") == 0


async def test_several_recordings_are_one_print_that_names_speakers_of_others(under_test, reader):
    database = under_test.database
    await allow(database)
    for number, job_id in enumerate("jk"):
        await completed(database, voice(job_id=job_id, place=number))
        await database.commit([named(("A", "Ann"), job_id=job_id)])
    like = {"suggested": "Ann", "similarity": 0.91}
    await completed(database, voice("A", "l", **like), voice("B", "l", place=2))

    assert await names(database) == [("Ann", 2)]
    assert await reader.voice_suggestions("acme", "l", 1) == [VoiceSuggestion("A", "Ann", 0.91)]
    assert await reader.voice_suggestions("acme", "l", 2) == []
    assert await reader.voice_suggestions("bolt", "l", 1) == []
    [listed] = await database.voices("acme")
    assert listed.recognised_at > listed.named_at
    await database.commit([named(("A", "Zoë"), job_id="l")])
    assert await reader.voice_suggestions("acme", "l", 1) == []
    assert await names(database) == [("Ann", 2), ("Zoë", 1)]


async def test_a_speaker_who_is_called_so_already_has_no_suggestion(under_test, reader):
    database = under_test.database
    await allow(database)
    await completed(database, voice())
    await database.commit([named(("A", "Agent"))])
    like = {"suggested": "Agent", "similarity": 0.9}
    await completed(database, voice("Agent", "l", **like), voice("B", "l", **like))

    assert [one.speaker for one in await reader.voice_suggestions("acme", "l", 1)] == ["B"]


async def test_a_deleted_voice_goes_with_the_speakers_in_whom_it_was_recognised(under_test, reader):
    database = under_test.database
    await allow(database)
    await completed(database, voice("A"), voice("B", place=1))
    await database.commit([named(("A", "Ann"), ("B", "Bob"))])
    await completed(database, voice("A", "k", suggested="Ann", similarity=0.9))
    deleted = [await database.delete_voices("acme", name, "key_2") for name in ("Ann", "Ann", "nobody", "A")]
    [bolts] = [await database.delete_voices("bolt", "Bob", "key_3")]

    assert (deleted, bolts) == ([1, 0, 0, 0], 0)
    assert await names(database) == [("Bob", 1)]
    await database.commit([named(("A", "Ann"), job_id="k")])  # nothing of that voice was left to be named
    assert await names(database) == [("Bob", 1)]
    assert await reader.voice_suggestions("acme", "k", 1) == []
    assert [(one.what, one.author) for one in await database.voice_history("acme")] == [
        ("deleted", "key_2"),
        ("allowed", "key_1"),
    ]


async def test_withdrawing_the_consent_deletes_everything_of_the_tenant_at_once(under_test):
    database = under_test.database
    for tenant in ("acme", "bolt"):
        await allow(database, tenant)
        await completed(database, voice("A", tenant=tenant), voice("B", tenant=tenant))
        await database.commit([named(("A", "Ann"), tenant=tenant)])
    await allow(database, allowed=None, by="key_9")
    await database.commit([named(("B", "Bob"), version=3)])

    assert await names(database) == []
    assert await names(database, "bolt") == [("Ann", 1)]
    assert [(one.what, one.author) for one in await database.voice_history("acme")] == [
        ("withdrawn", "key_9"),
        ("allowed", "key_1"),
    ]
    await allow(database)
    assert await names(database) == []


async def test_another_setting_leaves_them(under_test):
    database = under_test.database
    await allow(database)
    await completed(database, voice())
    await database.commit([named(("A", "Ann"))])
    version = (await database.account_settings("acme")).version
    await database.save_account_settings("acme", AccountSettings(voice_prints=True, audio_days=7), version, "key_1")

    assert await names(database) == [("Ann", 1)]
    assert [one.what for one in await database.voice_history("acme")] == ["allowed"]


async def test_a_deleted_job_takes_its_share_of_a_print(under_test, reader):
    database = under_test.database
    await allow(database)
    for job_id in "jk":
        await completed(database, voice(job_id=job_id), voice("B", job_id, place=1))
        await database.commit([named(("A", "Ann"), job_id=job_id)])
    await completed(database, voice("A", "l", suggested="Ann", similarity=0.9))
    first = await database.begin_deletion(("acme", "j"), "key_1")
    after_one = await names(database), await reader.voice_suggestions("acme", "l", 1)
    await database.begin_deletion(("acme", "k"), "key_1")

    assert first.receipt["rows"]["voice_prints"] == 2
    assert after_one == ([("Ann", 1)], [VoiceSuggestion("A", "Ann", 0.9)])
    assert await names(database) == []
    assert await reader.voice_suggestions("acme", "l", 1) == []


async def test_a_name_that_is_given_anew_is_no_reason_for_a_suggestion_of_before(under_test, reader):
    database = under_test.database
    await allow(database)
    await completed(database, voice())
    await database.commit([named(("A", "Ann"))])
    await completed(database, voice("A", "l", suggested="Ann", similarity=0.9))
    await database.begin_deletion(("acme", "j"), "key_1")
    await completed(database, voice("A", "m", place=3))
    await database.commit([named(("A", "Ann"), job_id="m")])

    assert await names(database) == [("Ann", 1)]
    assert await reader.voice_suggestions("acme", "l", 1) == []


async def test_the_files_of_a_job_take_only_the_voices_without_a_name(under_test):
    database = under_test.database
    await allow(database)
    await completed(database, voice("A"), voice("B", place=1))
    await database.commit([named(("A", "Ann"))])
    deletion = await database.begin_deletion(("acme", "j"), "key_1", "files")
    await database.commit([named(("B", "Bob"), version=3)])

    assert deletion.receipt["rows"]["voice_prints"] == 1
    assert await names(database) == [("Ann", 1)]


async def test_a_step_of_a_deleted_job_keeps_no_voice(under_test):
    database = under_test.database
    await allow(database)
    await database.commit([created(job("j", "acme", status="reconciling"))])
    await database.begin_deletion(("acme", "j"), "key_1")
    [written] = await database.commit([heard(voice(suggested="Ann", similarity=0.9))])

    assert not written.applied
    assert await database.delete_voices("acme", None, "key_1") == 0
    assert [one.what for one in await database.voice_history("acme")] == ["all deleted", "allowed"]


async def test_a_later_run_takes_the_place_of_speakers_that_nobody_named(under_test, reader):
    database = under_test.database
    await allow(database)
    await completed(database, voice("A"), voice("B", place=1, suggested="Ann", similarity=0.9))
    await database.commit([named(("A", "Ann"))])
    again = replace(job("j", "acme"), run=2, status="reconciling", completed_at=None)
    await database.commit([Step("reprocess", uuid4(), Outcome(tenant_id="acme", job_id="j", begin=again))])
    await database.commit([heard(voice("A", run=2, suggested="Ann", similarity=0.99))])

    assert await labels(database) == [("j", "A", "Ann")]
    assert await reader.voice_suggestions("acme", "j", 1) == []
    assert await reader.voice_suggestions("acme", "j", 2) == [VoiceSuggestion("A", "Ann", 0.99)]


async def test_a_step_that_is_committed_while_the_consent_ends_keeps_nothing(migrated, db):
    """The consent is read under a lock: whichever of the two comes first, nothing is left."""
    pool = await connect_pool(migrated)
    database = Postgres(pool)
    try:
        await allow(database)
        for number in range(8):
            await database.commit([created(job(f"j{number}", "acme", status="reconciling"))])
        steps = [database.commit([heard(voice(job_id=f"j{number}"))]) for number in range(8)]
        await asyncio.gather(*steps[:4], allow(database.acting_as("acme"), allowed=False), *steps[4:])
    finally:
        await asyncio.wait_for(pool.close(), 5)

    assert await db.fetchval("SELECT count(*) FROM voice_prints") == 0


async def test_whoever_changes_the_settings_table_the_trigger_follows(migrated, db):
    pool = await connect_pool(migrated)
    database = Postgres(pool)
    try:
        await allow(database)
        await completed(database, voice())
    finally:
        await asyncio.wait_for(pool.close(), 5)
    before = await db.fetchval("SELECT count(*) FROM voice_prints")
    await db.execute("DELETE FROM account_settings WHERE tenant_id = 'acme'")

    assert (before, await db.fetchval("SELECT count(*) FROM voice_prints")) == (1, 0)


async def test_a_tenant_reads_and_writes_its_own_voices_only(migrated, db):
    pool = await connect_pool(migrated)
    database = Postgres(pool)
    try:
        for tenant in ("acme", "bolt"):
            await allow(database.acting_as(tenant), tenant)
            await completed(database.acting_as(tenant), voice(tenant=tenant))
            await database.acting_as(tenant).commit([named(("A", "Ann"), tenant=tenant)])
        foreign = database.acting_as("bolt")
        assert await foreign.named_voices("acme", MODEL) == []
        assert await foreign.voices("acme") == []
        assert await foreign.delete_voices("acme", "Ann", "key_1") == 0
        assert [row.tenant_id for row in await foreign.named_voices("bolt", MODEL)] == ["bolt"]
    finally:
        await asyncio.wait_for(pool.close(), 5)
    assert await db.fetchval("SELECT count(*) FROM voice_prints") == 2
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await db.execute("SET ROLE concord_tenant; DELETE FROM voice_prints")
