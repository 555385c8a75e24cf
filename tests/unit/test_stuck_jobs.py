"""Stuck jobs and orphan blobs: how such a job is continued or ended, and when."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.errors import KafkaConnectionError

from agents.upkeep import sweeper
from agents.upkeep.stuck_jobs import TRIES, revived
from agents.upkeep.sweeper import Sweeper
from schemas import topics
from schemas.errors import Unavailable
from schemas.events.job import StepState
from schemas.jobs.outcome import Outcome, Step
from schemas.jobs.rows import OPEN, STAGE_OF, Job
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from sinks.ports.upkeep.stuck_jobs import StuckJob

NOW = datetime(2026, 1, 2, tzinfo=UTC)
WHOSE = {"tenant_id": "t", "job_id": "j"}
JOB = Job(**WHOSE, filename="a.wav", audio_uri="https://example.com/a.wav", original_uri="s3://b/t/j/original.wav")

# -- the step that moves a stuck job on, or ends it --

#: By status of the job, recognizers that are silent, and whether its deadline is missing: what is published to put it
#: on its way again, as topic/type; and what happens after `TRIES` times: "failed", or "goes on" with the answers that
#: are there.
REVIVED = [
    ("uploaded", (), False, ["intake.due/audio.fetch"], "failed"),
    ("transcribing", ("a",), False, ["asr.requests.a/asr.request"], "goes on"),
    ("transcribing", ("a", "b"), False, ["asr.requests.a/asr.request", "asr.requests.b/asr.request"], "goes on"),
    ("transcribing", ("a",), True, ["asr.requests.a/asr.request", "reconcile.due/asr.deadline"], "goes on"),
    ("transcribing", (), True, ["reconcile.due/asr.deadline"], "failed"),
    ("reconciling", (), False, ["asr.results/None"], "failed"),
    ("persisting", (), False, ["asr.results/None"], "failed"),
]


def test_every_open_status_is_swept():
    assert {status for status, *_ in REVIVED} == set(STAGE_OF) == set(OPEN)


@pytest.mark.parametrize("times", range(TRIES))
@pytest.mark.parametrize(("status", "silent", "without_deadline", "events", "_end"), REVIVED)
def test_a_stuck_job_is_put_on_its_way_again(status, silent, without_deadline, events, _end, times):
    outcome = revived(StuckJob(replace(JOB, status=status), silent, without_deadline, times), 600.0).outcome

    assert [f"{later.topic}/{later.kind}" for later in outcome.later] == events
    assert all((later.data.tenant_id, later.data.job_id, later.data.run) == ("t", "j", 1) for later in outcome.later)
    assert (outcome.key, outcome.run, outcome.audit) == (("t", "j"), 1, "retried")
    assert (outcome.progress, outcome.give_up) == (None, None)
    assert status in outcome.error


@pytest.mark.parametrize("times", [TRIES, TRIES + 1])
@pytest.mark.parametrize(("status", "silent", "without_deadline", "_events", "end"), REVIVED)
def test_a_job_that_was_put_on_its_way_in_vain_ends(status, silent, without_deadline, _events, end, times):
    outcome = revived(StuckJob(replace(JOB, status=status), silent, without_deadline, times), 600.0).outcome

    assert (outcome.key, outcome.run, outcome.audit) == (("t", "j"), 1, "failed")
    if end == "goes on":
        assert (outcome.give_up, outcome.progress, outcome.later) == (outcome.error, None, ())
    else:
        assert (outcome.progress.status, outcome.progress.stage) == ("failed", STAGE_OF[status])
        assert outcome.progress.columns == {"code": "stuck"}
        assert [later.topic for later in outcome.later] == [topics.FAILED.name, topics.PERSIST_DUE.name]


def test_a_revival_has_an_id_of_its_own_job_run_version_and_time_and_no_other():
    stuck = StuckJob(replace(JOB, status="reconciling"))
    others = [
        replace(stuck, times=1),
        replace(stuck, job=replace(stuck.job, version=2)),
        replace(stuck, job=replace(stuck.job, run=2)),
        replace(stuck, job=replace(stuck.job, job_id="k")),
        replace(stuck, job=replace(stuck.job, tenant_id="u")),
    ]

    assert revived(stuck, 600.0).event_id == revived(stuck, 600.0).event_id
    assert len({revived(one, 600.0).event_id for one in (stuck, *others)}) == len(others) + 1


def test_a_recognizer_is_asked_as_it_was_asked_first():
    notes = {"intake": StepState(state="done", notes=("two channels",))}
    job = replace(JOB, status="transcribing", language="de", content_type="audio/wav", duration_ms=5, steps=notes)
    stuck = StuckJob(job, ("a",), without_deadline=True)
    request, deadline = (later.data for later in revived(stuck, 600.0).outcome.later)

    assert request.audio_uri == "s3://b/t/j/original.wav"
    assert (request.language, request.content_type, request.duration_ms) == ("de", "audio/wav", 5)
    assert request.transcode, "its recording has something that other decoders mishear"
    assert not revived(StuckJob(replace(job, steps={}), ("a",)), 600.0).outcome.later[0].data.transcode
    assert (deadline.seconds, deadline.extended) == (600.0, 1)
    assert revived(stuck, 600.0).outcome.later[1].seconds == 600.0


# -- the looks of the sweeper --


@dataclass
class Positions:
    """Kafka's: at each look topics end one record later. `behind` are topics that their groups have not read so far."""

    end: int = 0
    behind: set[str] = field(default_factory=set)
    asked: list[Mapping[Any, int]] = field(default_factory=list)
    fault: Exception | None = None

    async def ends(self, topics: Collection[str]) -> dict[Any, int]:
        if self.fault is not None:
            raise self.fault
        self.end += 1
        return dict.fromkeys(topics, self.end)

    async def passed(self, groups: Mapping[str, Collection[str]], ends: Mapping[Any, int]) -> bool:
        self.asked.append(ends)
        return not self.behind & {topic for group in groups.values() for topic in group}


@dataclass
class Commits:
    """Commits at once, unless there is a fault."""

    database: MemoryDatabase
    steps: list[Step] = field(default_factory=list)
    fault: Exception | None = None

    async def commit(self, step: Step) -> None:
        self.steps.append(step)
        await self.database.commit([step])
        if self.fault is not None:
            raise self.fault


class Bench:
    """A sweeper over doubles, with one job that is stuck in `reconciling`."""

    def __init__(self) -> None:
        self.now = NOW
        self.database = MemoryDatabase(clock=lambda: self.now)
        self.store, self.commits, self.positions = MemoryStore(), Commits(self.database), Positions()
        self.sweeper = Sweeper(
            self.database, self.database, self.commits, self.store, self.positions, ("a", "b"), 600.0, holder="here"
        )

    async def stuck(self, status: str = "reconciling") -> None:
        created = Outcome(**WHOSE, create=replace(JOB, status=status))
        await self.database.commit([Step("intake", uuid4(), created)])

    async def looks(self, times: int = 1) -> None:
        """So many looks, a minute apart."""
        for _ in range(times):
            self.now += timedelta(seconds=61)
            await self.sweeper.look()


@pytest.fixture
def bench():
    return Bench()


#: Groups that must have read everything before a job of a status counts as stuck.
GROUPS = {
    "uploaded": {"concord.intake": ["intake.due"], "concord.fetch": ["fetch.due"]},
    "transcribing": {
        "concord.transcribe.a": ["asr.requests.a"],
        "concord.transcribe.b": ["asr.requests.b"],
        "concord.reconcile": ("asr.results", "reconcile.due"),
    },
    "reconciling": {"concord.reconcile": ("asr.results", "reconcile.due")},
    "persisting": {
        "concord.reconcile": ("asr.results", "reconcile.due"),
        "concord.persist": ["reconciled", "persist.due"],
    },
}


@pytest.mark.parametrize("status", STAGE_OF)
def test_the_groups_that_jobs_of_a_status_wait_for(bench, status):
    assert bench.sweeper.groups(status) == GROUPS[status]


def test_the_topics_that_enrichments_wait_for(bench):
    bench.sweeper.enrichments = ("index",)
    *_, revival = bench.sweeper.revivals()

    assert revival.groups == {"concord.index": ["persisted", "transcript.edited", "index.due"]}


async def test_a_first_look_only_notes_where_topics_end_and_a_later_one_compares_with_that(bench):
    await bench.stuck()
    await bench.looks(1)
    noted = bench.positions.end
    assert (bench.positions.asked, bench.commits.steps) == ([], [])

    await bench.looks(1)

    assert all(end <= noted for ends in bench.positions.asked for end in ends.values())
    assert [step.outcome.audit for step in bench.commits.steps] == ["retried"]


async def test_while_a_group_is_behind_the_first_notes_are_kept_and_nothing_is_revived(bench):
    await bench.stuck()
    bench.positions.behind = {topics.RESULTS.name}
    await bench.looks(4)

    asked = [ends for ends in bench.positions.asked if set(ends) == {"asr.results", "reconcile.due"}]
    assert len(asked) == 3
    assert asked == asked[:1] * 3, "compared with the ends of the first look, which stand still"
    assert bench.commits.steps == []
    bench.positions.behind = set()
    await bench.looks(1)
    assert len(bench.commits.steps) == 1


async def test_a_job_that_changed_shortly_before_the_notes_were_taken_is_not_stuck(bench):
    bench.now += timedelta(seconds=61)
    await bench.stuck()
    bench.now += timedelta(seconds=30)
    await bench.sweeper.look()
    await bench.looks(1)
    assert bench.commits.steps == []

    await bench.looks(2)
    assert len(bench.commits.steps) == 1


async def test_a_job_that_nothing_moves_is_revived_three_times_and_then_ends(bench):
    await bench.stuck()
    for _ in range(20):
        bench.database.outbox.clear()  # whatever is published is lost
        await bench.looks(1)

    assert [step.outcome.audit for step in bench.commits.steps] == ["retried"] * TRIES + ["failed"]
    assert (await bench.database.job("t", "j")).code == "stuck"


async def test_a_revival_that_was_committed_and_not_counted_is_not_published_twice(bench):
    await bench.stuck()
    bench.commits.fault = Unavailable("the connection broke after the commit")
    await bench.looks(1)
    with pytest.raises(Unavailable):
        await bench.looks(1)
    bench.commits.fault = None
    bench.database.outbox.clear()
    await bench.looks(2)

    first, second = bench.commits.steps
    assert first.event_id == second.event_id
    assert bench.database.outbox == []


@pytest.mark.parametrize("fault", [Unavailable("PostgreSQL"), KafkaConnectionError("Kafka"), OSError(), TimeoutError()])
async def test_a_look_that_finds_a_server_away_is_only_missed(bench, monkeypatch, fault):
    monkeypatch.setattr(sweeper, "LOOK_S", 0.0)
    await bench.stuck()
    bench.positions.fault = fault
    running = asyncio.create_task(bench.sweeper.run())
    await asyncio.sleep(0.005)
    assert not running.done()
    bench.positions.fault = None
    while not bench.commits.steps:
        bench.now += timedelta(seconds=61)
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])


async def test_while_another_worker_has_the_lease_this_one_does_not_look(bench, monkeypatch):
    monkeypatch.setattr(sweeper, "LOOK_S", 0.0)
    await bench.database.lease("sweeper", "elsewhere", 90)
    running = asyncio.create_task(bench.sweeper.run())
    await asyncio.sleep(0.005)
    assert bench.positions.end == 0

    bench.now += timedelta(seconds=91)
    while not bench.positions.end:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])


# -- orphan blobs --


async def orphans(bench, *names: str) -> list[str]:
    uris = [(await bench.store.put(name, b"x", "audio/wav")).uri for name in names]
    for uri in uris:
        await bench.database.intend_blob(("t", "j"), uri)
    bench.now += timedelta(seconds=sweeper.OLD_S + 1)
    return uris


async def test_an_orphan_of_a_store_that_is_not_configured_any_more_does_not_keep_the_others(bench, caplog):
    uris = await orphans(bench, "t/j/one.wav", "t/j/two.wav")
    await bench.database.intend_blob(("t", "j"), "s3://another/t/j/original.wav")
    bench.now += timedelta(seconds=sweeper.OLD_S + 1)
    with caplog.at_level(logging.WARNING):
        await bench.sweeper.sweep_blobs()

    assert [await bench.store.stat(uri) for uri in uris] == [None, None]
    assert bench.database._intents == {}
    assert "s3://another/t/j/original.wav cannot be deleted" in caplog.text


async def test_orphans_of_a_store_that_is_away_are_kept_in_mind(bench):
    uris = await orphans(bench, "t/j/one.wav")

    async def away(_: str) -> None:
        raise Unavailable("the store is away")

    bench.store.delete = away
    with pytest.raises(Unavailable):
        await bench.sweeper.sweep_blobs()

    assert await bench.database.orphan_blobs(0, 0, 10) == uris


async def test_orphans_are_left_to_the_process_that_has_the_lease(bench):
    uris = await orphans(bench, "t/j/one.wav")
    await bench.database.lease("orphan blobs", "another process", 30)

    assert await bench.sweeper.sweep_blobs() == 0
    bench.now += timedelta(seconds=31)
    assert await bench.sweeper.sweep_blobs() == 1
    assert await bench.store.stat(uris[0]) is None
