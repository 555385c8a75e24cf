"""Every way out of `step` and of the committer, at every stage: afterwards the job has ended with one terminal event
and nothing is pending, or the event is not acknowledged and is delivered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import pytest

from agents.runtime import group_commit as committing
from agents.runtime.stage import Stage
from agents.stages import intake
from schemas.envelope import Envelope
from schemas.errors import (
    Contended,
    InvalidInput,
    NotFound,
    ProviderError,
    RefusedMedia,
    StorageRefused,
    Transient,
    Unavailable,
)
from schemas.events.audio import AudioFetch, AudioUploaded
from schemas.jobs.outcome import Failure, Outcome, Step
from schemas.jobs.transitions import Written
from sinks.memory.database import MemoryDatabase
from tests.fleet.conftest import JOB, FakeRecognizer, Scenario

At = Callable[[Envelope], bool]

#: Where it happens: the stage, and which of its events.
POINTS: dict[str, tuple[str, Callable[[Scenario, Envelope], bool]]] = {
    "the upload": ("intake", lambda _, e: isinstance(e.data, AudioUploaded)),
    "the fetch": ("intake", lambda _, e: isinstance(e.data, AudioFetch)),
    "the submission": ("transcribe.a", lambda scenario, _: not scenario.recognizers["a"].charges),
    "the poll": ("transcribe.a", lambda scenario, _: bool(scenario.recognizers["a"].charges)),
    "the decision": ("reconcile", lambda _, e: e.type == "asr.results"),
    "the end": ("persist", lambda _, e: e.type == "reconciled"),
}

FINAL = (InvalidInput("no"), RefusedMedia("no\x00"), ProviderError("\ud83d"), StorageRefused("no"))
PASSING = (
    *(Transient("busy"), NotFound("gone"), ValueError("a bug"), MemoryError(), RecursionError()),
    *(asyncio.CancelledError(), ExceptionGroup("g", [ValueError()]), TimeoutError()),
)
OURS = (Unavailable("away"), ExceptionGroup("g", [Unavailable("away")]))


@dataclass(frozen=True)
class Way:
    """What happens at a point. `raises` by its first calls, all of them if `always`."""

    name: str
    ends: str
    raises: Sequence[BaseException] = ()
    always: BaseException | None = None
    #: What the database says to the first commits of the point's steps.
    refuses: Sequence[Exception] = ()
    give_up_fails: bool = False


def ways() -> list[Way]:
    def name(exc: BaseException) -> str:
        return type(exc).__name__

    return [
        Way("fine", "persisted"),
        *(Way(f"always {name(e)}", "job.failed", always=e) for e in (*FINAL, *PASSING)),
        *(Way(f"{name(e)}, and a give_up that fails", "job.failed", always=e, give_up_fails=True) for e in FINAL[:1]),
        *(Way(f"once {name(e)}", "persisted", raises=[e]) for e in PASSING),
        *(Way(f"thrice {name(e)}", "persisted", raises=[e] * 3) for e in OURS),
        *(Way(f"refused {n} times", "job.failed", refuses=[StorageRefused("no")] * n) for n in (1, 2, 3)),
        Way("refused by a bug", "job.failed", refuses=[KeyError("advance")]),
        Way("refused, and a give_up that fails", "job.failed", refuses=[StorageRefused("no")], give_up_fails=True),
        Way("away at commit", "persisted", refuses=[Unavailable("away")] * 3),
        Way("contended at commit", "persisted", refuses=[Contended("a lock")] * 3),
        Way("contended, then refused", "job.failed", refuses=[Contended("a lock"), StorageRefused("no")]),
    ]


def troubled(stage: Stage, at: At, way: Way, met: set[UUID]) -> Stage:
    """The stage, to which that happens at that point; `met` are the events to which it did."""
    raises = list(way.raises)

    async def handle(envelope: Envelope) -> Outcome:
        here = at(envelope)
        met.update([envelope.id] if here else [])
        exc = (raises.pop(0) if raises else way.always) if here else None
        if exc is not None:
            raise exc
        return await stage.handle(envelope)

    def give_up(envelope: Envelope, failure: Failure) -> Outcome:
        if way.give_up_fails and at(envelope):
            raise KeyError(failure.code)
        return stage.give_up(envelope, failure)

    return replace(stage, handle=handle, give_up=give_up)


def refusing(database: MemoryDatabase, met: set[UUID], refuses: Sequence[Exception]) -> None:
    """Let the database say that to the first commits of those events' steps."""
    says, commit = list(refuses), database.commit

    async def faulty(steps: Sequence[Step]) -> list[Written | None]:
        if says and any(step.event_id in met for step in steps):
            raise says.pop(0)
        return await commit(steps)

    database.commit = faulty


@pytest.fixture
def impatient(monkeypatch):
    """Waits for the database in milliseconds."""
    monkeypatch.setattr(committing, "backoff_s", lambda _: 0.001)


@pytest.mark.parametrize("point", POINTS)
async def test_whatever_happens_at_a_stage_the_job_ends_once(make_scenario, impatient, monkeypatch, point):
    name, happens = POINTS[point]
    if point == "the fetch":  # so that there is one: the upload's own event does not wait for its audio
        monkeypatch.setattr(intake, "QUICK_S", 0.0)
    for way in ways():
        scenario = make_scenario(FakeRecognizer("a"))
        fleet, at, met = scenario.fleet, partial(happens, scenario), set()
        fleet.stages = [troubled(s, at, way, met) if s.name == name else s for s in fleet.stages]
        refusing(fleet.database, met, way.refuses)
        await scenario.upload()
        await asyncio.wait_for(fleet.run(), 30)

        where = f"{way.name} at {point}"
        job = await fleet.database.job("t", JOB)
        assert scenario.terminal() == [(way.ends, JOB, 1)], where
        assert job.status == {"persisted": "completed", "job.failed": "failed"}[way.ends], where
        assert (job.code is None) == (way.ends == "persisted"), where
        assert not any(fleet._queues.values()), where
        assert fleet.database.outbox == [], where
        assert scenario.recognizers["a"].charges.total() <= 1, where
        letters = sum(len(records) for topic, records in fleet.log.items() if topic.endswith(".dlq"))
        assert letters == (way.ends == "job.failed"), where


@pytest.mark.parametrize("point", POINTS)
async def test_an_event_whose_step_is_cancelled_is_not_acked_and_comes_again(make_scenario, monkeypatch, point):
    name, happens = POINTS[point]
    if point == "the fetch":
        monkeypatch.setattr(intake, "QUICK_S", 0.0)
    scenario = make_scenario(FakeRecognizer("a"))
    stopped = []

    def stopping(stage: Stage) -> Stage:
        async def handle(envelope: Envelope) -> Outcome:
            if happens(scenario, envelope) and not stopped:
                stopped.append(envelope)
                asyncio.current_task().cancel()
            return await stage.handle(envelope)

        return replace(stage, handle=handle)

    scenario.fleet.stages = [stopping(s) if s.name == name else s for s in scenario.fleet.stages]
    await scenario.upload()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(scenario.fleet.run())
    assert scenario.terminal() == []
    assert any(scenario.fleet._queues.values())
    await scenario.fleet.run()

    assert scenario.terminal() == [("persisted", JOB, 1)]
    assert scenario.recognizers["a"].charges.total() == 1
