"""A stage is a value: a name, its topics, and `async handle(envelope) -> Outcome`. Here every failure becomes an
outcome, too.

Nothing is swallowed anywhere else: what a handler raises is retried at a time, fails the job or is dead-lettered, by
its class (`schemas.errors`). Only `Unavailable` leaves this file: without our own servers no outcome could be kept, so
the driver waits.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from schemas import ids
from schemas.errors import InvalidInput, MalformedEvent, ProviderError, Transient, Unavailable
from schemas.events import StepState
from schemas.jobs import OfRun, Outcome, Progress, Step, end_of_failed
from schemas.messages import Envelope, Record, again, dead_letter, decode, identity
from schemas.topics import Topic

log = logging.getLogger(__name__)

#: How often a transient error is tried again before the stage gives up.
RETRIES = 3


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the pipeline, free of Kafka."""

    name: str
    #: What others send it.
    inputs: tuple[Topic, ...]
    #: What comes back to it later: retries, polls, deadlines.
    due: Topic
    #: Does the outside work and says what it came to. May be called twice for one event; must then do no harm.
    handle: Callable[[Envelope], Awaitable[Outcome]]
    #: What it means that this event will not be handled: (envelope, reason, attempts) -> outcome.
    give_up: Callable[[Envelope, str, int], Outcome]
    #: Longest time, in seconds, that one event may be held.
    limit_s: float = 20.0
    #: Events handled at once by one worker.
    concurrency: int = 48
    #: Where its events stand in a busy process, see `agents.admission`; None if they have a time of their own.
    rank: int | None = None

    @property
    def topics(self) -> dict[str, Topic]:
        """Everything it reads, by topic name."""
        return {topic.name: topic for topic in (*self.inputs, self.due)}


def backoff_s(attempt: int, retry_after: float | None = None) -> float:
    """Seconds before try `attempt` + 1: `min(1000 * 2^n, 60000)` ms, less up to a quarter as jitter, never less than
    asked for.
    """
    delay = min(1000 * 2.0**attempt, 60_000) / 1000
    return max(delay * random.uniform(0.75, 1.0), retry_after or 0.0)  # noqa: S311 - jitter, not a secret


async def step(stage: Stage, record: Record) -> Step:
    """Handle one record to the end that it can have now. Raises nothing but `Unavailable` and cancellation."""
    started = time.perf_counter()
    try:
        envelope = decode(record, stage.topics)
    except MalformedEvent as exc:
        return _refused(stage, record, str(exc))
    try:
        async with asyncio.timeout(stage.limit_s):
            outcome = await stage.handle(envelope)
    except Unavailable:
        raise
    except (InvalidInput, ProviderError) as exc:
        outcome = _given_up(stage, envelope, str(exc))
    except Transient as exc:
        outcome = _retried(stage, envelope, str(exc), exc.retry_after)
    except TimeoutError:
        outcome = _retried(stage, envelope, f"not done within {stage.limit_s:.0f} s", None)
    except Exception as exc:  # a bug of ours: logged whole, and the event is not lost
        log.exception("%s failed on %s", stage.name, envelope.id)
        outcome = _retried(stage, envelope, f"internal error: {type(exc).__name__}", None)
    return Step(stage.name, envelope.id, outcome, envelope, time.perf_counter() - started)


def undeliverable(stage: str, record: Record, reason: str) -> Step:
    """A step that does no more than keep the record in the dead letters."""
    id = identity(record)
    letter = dead_letter(record, id=ids.event_id(id, stage, "dlq"), stage=stage, reason=reason, attempts=1)
    return Step(stage, id, Outcome(raw=((letter, 0.0),), error=reason, audit="refused"))


def _refused(stage: Stage, record: Record, reason: str) -> Step:
    log.warning("%s: dead letter from %s/%d/%d: %s", stage.name, record.topic, record.partition, record.offset, reason)
    return undeliverable(stage.name, record, reason)


def _given_up(stage: Stage, envelope: Envelope, reason: str) -> Outcome:
    attempts = envelope.attempt + 1
    outcome = stage.give_up(envelope, reason, attempts)
    id = ids.event_id(envelope.id, stage.name, "dlq")
    letter = dead_letter(envelope.record, id=id, stage=stage.name, reason=reason, attempts=attempts)
    return replace(outcome, raw=(*outcome.raw, (letter, 0.0)), audit="failed", error=reason)


def _retried(stage: Stage, envelope: Envelope, reason: str, retry_after: float | None) -> Outcome:
    if envelope.attempt >= RETRIES:
        return _given_up(stage, envelope, reason)
    attempt = envelope.attempt + 1
    log.info("%s: try %d of %s failed: %s", stage.name, attempt, envelope.id, reason)
    message = again(envelope, stage.due.name, id=ids.event_id(envelope.id, stage.name, "again"), attempt=attempt)
    progress = Progress(
        run=getattr(envelope.data, "run", 1),
        stage=stage.name,
        step=StepState(state="retrying", attempts=attempt, error=reason),
    )
    whose = belonging(envelope)
    return Outcome(
        **whose,
        progress=progress if whose["job_id"] else None,
        raw=((message, backoff_s(envelope.attempt, retry_after)),),
        audit="retried",
        error=reason,
    )


def belonging(envelope: Envelope) -> dict[str, Any]:
    """Whose job an event is about, as the outcome's arguments."""
    return {"tenant_id": getattr(envelope.data, "tenant_id", None), "job_id": getattr(envelope.data, "job_id", None)}


def failed_job(stage: str, envelope: Envelope, reason: str, attempts: int) -> Outcome:
    """The run ends here, without a transcript."""
    return Outcome(
        **belonging(envelope),
        progress=Progress(
            run=getattr(envelope.data, "run", 1),
            status="failed",
            stage=stage,
            step=StepState(state="failed", attempts=attempts, error=reason),
            reason=reason,
        ),
        later=end_of_failed(cast("OfRun", envelope.data), stage, reason, attempts),
    )
