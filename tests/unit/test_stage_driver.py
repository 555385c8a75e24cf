"""How a stage's driver treats events: one is acknowledged when its step is stored, and not before, whatever fails."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from agents.runtime import faust_binding
from agents.runtime.faust_binding import Driver
from agents.runtime.skips import Skips
from agents.runtime.stage import Stage, failed_job
from schemas import topics
from schemas.envelope import Record
from schemas.errors import ProviderError, Unavailable
from schemas.jobs.outcome import Outcome, Step
from schemas.operations import Skip


@dataclass
class Commits:
    """As much of a committer as a driver asks for: storing a step takes until `open`, or raises `fault`."""

    fault: BaseException | None = None
    open: asyncio.Event = field(default_factory=asyncio.Event)
    begun: list[Step] = field(default_factory=list)
    #: What is stored in the place of each step.
    instead: Step | None = None

    async def commit(self, step: Step) -> Step:
        self.begun.append(step)
        await self.open.wait()
        if self.fault is not None:
            raise self.fault
        return self.instead or step


@dataclass
class Gate:
    """`Backpressure` that counts: the ranks that entered, and how many have not left. Closed, it lets nobody in."""

    entered: list[int | None] = field(default_factory=list)
    inside: int = 0
    open: bool = True

    async def enter(self, rank: int | None) -> None:
        while not self.open:
            await asyncio.sleep(0)
        self.entered.append(rank)
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1


@dataclass
class SkipRows:
    """The rows of `concord skip`, and which stages have passed them over."""

    rows: list[Skip] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)

    async def skips(self) -> list[Skip]:
        return self.rows

    async def done(self, _: Skip, stage: str) -> None:
        self.passed.append(stage)


@dataclass
class Handled:
    """`Metrics` of a driver."""

    steps: list[Step] = field(default_factory=list)

    def handled(self, step: Step) -> None:
        self.steps.append(step)


@dataclass
class Bench:
    """A driver of `reconcile` among doubles. `handle` says what its handler does."""

    concurrency: int = 4
    rank: int | None = 1
    begins: bool = False
    commits: Commits = field(default_factory=Commits)
    gate: Gate = field(default_factory=Gate)
    metrics: Handled = field(default_factory=Handled)
    skipped: SkipRows = field(default_factory=SkipRows)
    #: Offsets of the events that were acknowledged.
    acked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commits.open.set()
        self.skips = Skips(self.skipped)
        self.stage = Stage(
            "reconcile",
            (topics.RESULTS,),
            topics.RECONCILE_DUE,
            self._handle,
            partial(failed_job, "reconcile"),
            concurrency=self.concurrency,
            rank=self.rank,
            begins=self.begins,
        )
        doubles: Any = (self.commits, self.metrics, self.gate)
        self.driver = Driver(self.stage, *doubles, self.skips)

    async def handle(self, offset: int) -> None:
        """Replaced by tests: the outside work for the event at this offset."""

    async def _handle(self, envelope) -> Outcome:
        await self.handle(envelope.record.offset)
        return Outcome(tenant_id="t", job_id="j")

    async def take(self, *offsets: int, topic: topics.Topic = topics.RESULTS) -> None:
        value = b'{"tenant_id":"t","job_id":"j","run":1,"provider":"a","status":"ok"}'
        for offset in offsets:
            await self.driver.take(Record(topic.name, 0, offset, b"j", value), lambda at=offset: self._ack(at))

    async def _ack(self, offset: int) -> None:
        self.acked.append(offset)

    @property
    def slots(self) -> int:
        """Events that may begin besides those in work."""
        return self.driver._slots._value


@pytest.fixture
async def bench(monkeypatch):
    monkeypatch.setattr(faust_binding, "backoff_s", lambda _: 0.0)
    built: list[Bench] = []

    def build(**more) -> Bench:
        built.append(Bench(**more))
        return built[-1]

    yield build
    for one in built:
        await asyncio.wait_for(one.driver.close(), 5)
        assert (one.slots, one.gate.inside) == (one.concurrency, 0), "every event gives its slot back, and leaves"


async def settled(turns: int = 30) -> None:
    """Let everything run that waits for nothing but its turn."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_an_event_is_acknowledged_when_its_step_is_stored_and_not_before(bench):
    it = bench()
    it.commits.open.clear()
    await it.take(7)
    await settled()
    assert (len(it.commits.begun), it.acked, it.metrics.steps) == (1, [], [])
    assert it.driver.oldest_s > 0

    it.commits.open.set()
    await settled()

    assert it.acked == [7]
    assert it.metrics.steps == it.commits.begun
    assert it.driver.oldest_s == 0


async def test_the_step_that_was_stored_instead_of_another_is_counted(bench):
    it = bench()
    it.commits.instead = Step("reconcile", it.stage.name, Outcome(audit="failed"))
    await it.take(7)
    await settled()

    assert it.acked == [7]
    assert it.metrics.steps == [it.commits.instead]


async def test_a_failed_handler_is_a_step_like_any_other(bench):
    it = bench()

    async def refuse(_: int) -> None:
        raise ProviderError("no such model")

    it.handle = refuse
    await it.take(7)
    await settled()

    assert it.acked == [7]
    assert [step.outcome.progress.status for step in it.commits.begun] == ["failed"]


async def test_an_absence_of_our_own_servers_is_waited_out_without_a_step(bench, caplog):
    it, tries = bench(), []

    async def away(offset: int) -> None:
        tries.append(offset)
        if len(tries) < 20:
            raise Unavailable("the store is away")

    it.handle = away
    with caplog.at_level(logging.WARNING):
        await it.take(7)
        await settled(200)

    assert len(tries) == 20
    assert (len(it.commits.begun), it.acked) == (1, [7])
    [line] = [record.getMessage() for record in caplog.records]
    assert "1 events wait" in line
    assert "the store is away" in line


async def test_an_event_whose_step_fails_in_the_committer_stays_and_others_go_on(bench, caplog):
    it = bench(concurrency=1)
    it.commits.fault = RuntimeError("a bug")
    await it.take(7)
    await settled()
    it.commits.fault = None
    await it.take(8)
    await settled()

    assert it.acked == [8]
    assert "an event of asr.results/0 is not acked" in caplog.text


async def test_an_event_whose_acknowledgement_fails_is_not_counted_and_others_go_on(bench, caplog):
    it = bench(concurrency=1)
    acknowledge = it._ack

    async def refused(_: int) -> None:
        raise RuntimeError("the partition was revoked")

    it._ack = refused
    await it.take(7)
    await settled()
    it._ack = acknowledge
    await it.take(8)
    await settled()

    assert (it.acked, len(it.metrics.steps)) == ([8], 1)
    assert "the partition was revoked" in caplog.text


async def test_events_wait_while_as_many_are_in_work_as_may_be(bench):
    it = bench(concurrency=2)
    it.commits.open.clear()
    taking = asyncio.create_task(it.take(1, 2, 3))
    await settled()
    assert len(it.commits.begun) == 2
    assert not taking.done()

    it.commits.open.set()
    await taking
    await settled()

    assert sorted(it.acked) == [1, 2, 3]


async def test_one_slow_event_does_not_hold_up_those_behind_it(bench):
    it, end = bench(), asyncio.Event()

    async def slow(offset: int) -> None:
        if offset == 1:
            await end.wait()

    it.handle = slow
    await it.take(1, 2, 3)
    await settled()
    assert it.acked == [2, 3]

    end.set()
    await settled()
    assert it.acked == [2, 3, 1]


@pytest.mark.parametrize(
    ("rank", "begins", "topic", "entered"),
    [
        (None, False, topics.RESULTS, []),
        (3, False, topics.RESULTS, [3]),
        (3, True, topics.RESULTS, [None]),  # new work, which takes turns with everything else
        (3, True, topics.RECONCILE_DUE, [3]),  # it has begun: it comes back
    ],
)
async def test_events_pass_backpressure_by_the_rank_of_their_stage(bench, rank, begins, topic, entered):
    it = bench(rank=rank, begins=begins)
    await it.take(7, topic=topic)
    await settled()

    assert it.gate.entered == entered
    assert it.gate.inside == 0


@pytest.mark.parametrize("during", ["handle", "commit"])
async def test_closing_in_the_middle_acknowledges_nothing_and_is_no_error(bench, caplog, during):
    it = bench()
    if during == "handle":
        it.handle = lambda _: asyncio.Event().wait()
    it.commits.open.clear()
    await it.take(1, 2)
    await settled()
    await it.driver.close()
    it.commits.open.set()
    await settled()

    assert (it.acked, it.metrics.steps) == ([], [])
    assert len(it.commits.begun) == (0 if during == "handle" else 2)
    assert caplog.records == []
    assert (it.slots, it.gate.inside) == (it.concurrency, 0)


async def test_closing_before_an_event_has_begun_releases_its_slot_and_leaves_the_queue(bench):
    it = bench()
    await it.take(1, 2)
    await it.driver.close()

    assert it.commits.begun == []
    assert (it.slots, it.gate.inside) == (it.concurrency, 0)


async def test_an_event_that_is_cancelled_under_backpressure_releases_its_slot(bench):
    it = bench()
    it.gate.open = False
    taking = asyncio.create_task(it.take(1))
    await settled()
    assert it.slots == it.concurrency - 1
    taking.cancel()
    await settled()

    assert taking.cancelled()
    assert (it.slots, it.gate.entered) == (it.concurrency, [])


async def test_a_record_that_an_operator_has_skipped_is_not_handled_but_given_up_and_reported(bench):
    it, calls = bench(), []
    it.skipped.rows = [Skip("asr.results", 0, 7, "it kills the worker")]
    await it.skips.refresh()

    async def handle(offset: int) -> None:
        calls.append(offset)

    it.handle = handle
    await it.take(7, 8)
    await settled()

    assert (calls, it.acked, it.skipped.passed) == ([8], [7, 8], ["reconcile"])
    assert it.commits.begun[0].outcome.progress.reason == "it kills the worker"


async def test_a_record_can_be_skipped_while_it_waits_for_our_own_servers(bench):
    it = bench()

    async def away(_: int) -> None:
        raise Unavailable("the store is away")

    it.handle = away
    await it.take(7)
    await settled()
    assert it.acked == []

    it.skipped.rows = [Skip("asr.results", 0, 7, "enough")]
    await it.skips.refresh()
    await settled()

    assert (it.acked, it.skipped.passed) == ([7], ["reconcile"])
