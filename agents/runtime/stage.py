"""A stage is a value: a name, its topics, and `async handle(envelope) -> Outcome`. Here every failure becomes an
outcome, too.

Nothing is swallowed anywhere else: what a handler raises is retried at a time, fails the job or is dead-lettered, by
its class (`schemas.errors`). Only `Unavailable` leaves this file: without our own servers no outcome could be kept, so
the driver waits.

What says no can be refused as well: by a stage's own `give_up`, or by PostgreSQL when it is committed. So every step
brings along what is committed in its place (`Step.otherwise`), each simpler than the one before: the outcome, then the
stage's `give_up`, then a failed job made of nothing but its ids, the same without a line in the audit log, and the dead
letter alone.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from schemas import ids
from schemas.envelope import UNREADABLE_NAME, UNREADABLE_URI, Envelope, Record, decode, identity, salvaged
from schemas.errors import ConcordError, InvalidInput, MalformedEvent, ProviderError, Transient, Unavailable
from schemas.events.audio import AudioUploaded
from schemas.events.job import JobStatus, StepState
from schemas.jobs.outcome import (
    EnrichmentChange,
    Failure,
    Outcome,
    Progress,
    Step,
    end_of_failed,
    failed_enrichment,
    failed_progress,
    failed_upload,
    id_of_upload,
)
from schemas.jobs.rows import Job, OfRun
from schemas.messages import Message, again, dead_letter
from schemas.texts import described
from schemas.time_limit import time_limit
from schemas.topics import Topic

log = logging.getLogger(__name__)

#: How often a transient error is tried again before the stage gives up.
RETRIES = 3

#: How often an event that its handler did not finish in time comes back. Strangers are waited for within limits of
#: their own, so this is mostly a store or a database of ours that is slow, which is no try: 60 waits take an hour. But
#: a handler that hangs must end some time.
WAITS = 60


#: What the system says when this machine has no room, no memory, no descriptors, or a disk that fails. Where strangers
#: are met, their failures become errors of ours, so an OSError that gets here is never theirs.
OUR_MACHINE = frozenset(
    {
        errno.EAGAIN,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EROFS,
    }
)


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
    #: What it means that this event will not be handled.
    give_up: Callable[[Envelope, Failure], Outcome]
    #: Longest time, in seconds, that one event may be held, without what our own database and store take of it.
    limit_s: float = 20.0
    #: Events handled at once by one worker.
    concurrency: int = 48
    #: Its events' priority in a busy process, see `agents.runtime.backpressure`; None if they have a time of their own.
    rank: int | None = None
    #: Whether what others send it is new work, which takes turns with everything that has begun.
    begins: bool = False
    #: The kind of enrichment that it makes; then what fails is that, and never the run.
    enrichment: str | None = None

    @property
    def topics(self) -> dict[str, Topic]:
        """Everything it reads, by topic name."""
        return {topic.name: topic for topic in (*self.inputs, self.due)}


@dataclass(frozen=True, slots=True)
class TableStage:
    """A stage that keeps the newest record of each key of one topic in a table, which HTTP answers from."""

    name: str
    topic: Topic
    #: The table's name.
    table: str
    #: The status in a record if it is newer than the row of its key (the argument finds rows by key), else None.
    newest: Callable[[Callable[[str], dict[str, Any] | None], Record], JobStatus | None]
    key_of: Callable[[JobStatus], str]


def backoff_s(attempt: int, retry_after: float | None = None) -> float:
    """Seconds before try `attempt` + 1: `min(1000 * 2^n, 60000)` ms, less up to a quarter as jitter, never less than
    asked for.
    """
    delay = min(1000 * 2.0 ** min(attempt, 16), 60_000) / 1000
    return max(delay * random.uniform(0.75, 1.0), retry_after or 0.0)  # noqa: S311 - jitter, not a secret


async def step(stage: Stage, record: Record) -> Step:
    """Handle one record to the end that it can have now. Raises nothing but `Unavailable` and cancellation."""
    started = time.perf_counter()
    try:
        envelope = decode(record, stage.topics)
    except Exception as exc:  # noqa: BLE001 - records come from strangers: whatever is wrong with one is its own fault
        return _refused(stage, record, exc)
    try:
        outcome = await _outcome(stage, envelope)
        done = Step(stage.name, envelope.id, outcome, envelope, otherwise=partial(_refused_outcome, stage, envelope))
    except _GivenUp as exc:
        done = _given_up(stage, envelope, exc.failure)
    return replace(done, seconds=time.perf_counter() - started)


class _GivenUp(Exception):
    def __init__(self, failure: Failure) -> None:
        self.failure = failure


async def _outcome(stage: Stage, envelope: Envelope) -> Outcome:
    """What the handler, or its failure, comes to. Raises `_GivenUp`, `Unavailable` and cancellation."""
    try:
        async with time_limit(stage.limit_s):
            return await stage.handle(envelope)
    except Unavailable:
        raise
    except (InvalidInput, ProviderError) as exc:
        raise _GivenUp(Failure(described(exc), exc.code, envelope.attempt + 1)) from exc
    except Transient as exc:
        return _retried(stage, envelope, described(exc), exc.code, exc.retry_after)
    except TimeoutError:
        return _put_off(stage, envelope)
    except asyncio.CancelledError as exc:
        if _cancelled():
            raise
        return _bug(stage, envelope, exc)  # something that the handler waited for was cancelled, not the handler
    except ExceptionGroup as group:
        if (away := group.subgroup(Unavailable)) is not None:
            raise Unavailable(described(_first(away))) from group
        return _bug(stage, envelope, group)
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno in OUR_MACHINE:
            raise Unavailable(f"this machine cannot go on now: {exc}") from exc
        return _bug(stage, envelope, exc)  # which ends this event's work and no other's


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """Any one exception out of a group, however deep."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


def _bug(stage: Stage, envelope: Envelope, exc: BaseException) -> Outcome:
    """Logged whole, and the event is not lost."""
    log.error("%s failed on %s", stage.name, envelope.id, exc_info=exc)
    code = exc.code if isinstance(exc, ConcordError) else ConcordError.code
    return _retried(stage, envelope, f"internal error: {type(exc).__name__}", code, None)


def _retried(stage: Stage, envelope: Envelope, reason: str, code: str, retry_after: float | None) -> Outcome:
    attempt = envelope.attempt + 1
    if envelope.attempt >= RETRIES:
        raise _GivenUp(Failure(reason, code, attempt))
    log.info("%s: try %d of %s failed: %s", stage.name, attempt, envelope.id, reason)
    message = _again(stage, envelope, attempt=attempt)
    return _comes_back(stage, envelope, message, backoff_s(envelope.attempt, retry_after), reason, attempt)


def _put_off(stage: Stage, envelope: Envelope) -> Outcome:
    """Not done in time, which is not counted as a try."""
    reason = f"not done within {stage.limit_s:.0f} s"
    if envelope.waits >= WAITS:
        raise _GivenUp(Failure(f"{reason}, {WAITS + 1} times", "stuck", envelope.attempt + 1))
    log.warning("%s: %s was %s; it comes back", stage.name, envelope.id, reason)
    message = _again(stage, envelope, waits=envelope.waits + 1)
    return _comes_back(stage, envelope, message, backoff_s(envelope.waits), reason, envelope.attempt + 1)


def _again(stage: Stage, envelope: Envelope, *, attempt: int | None = None, waits: int | None = None) -> Message:
    return again(
        envelope,
        stage.due.name,
        id=ids.event_id(envelope.id, stage.name, "again"),
        attempt=envelope.attempt if attempt is None else attempt,
        waits=envelope.waits if waits is None else waits,
    )


def _comes_back(
    stage: Stage, envelope: Envelope, message: Message, seconds: float, reason: str, attempts: int
) -> Outcome:
    whose = belonging(envelope)
    run = getattr(envelope.data, "run", 1)
    step = StepState(state="retrying", attempts=attempts, error=reason)
    progress = Progress(run=run, stage=stage.name, step=step)
    enrichment = None
    if stage.enrichment is not None:
        change = EnrichmentChange(run=run, kind=stage.enrichment, state="retrying", attempts=attempts, error=reason)
        enrichment = replace(change, reopens=envelope.replay > 0)
    return Outcome(
        **whose,
        progress=progress if whose["job_id"] and enrichment is None else None,
        enrichment=enrichment,
        raw=((message, seconds),),
        audit="retried",
        error=reason,
    )


def _refused(stage: Stage, record: Record, exc: Exception) -> Step:
    """A record that is no event of the stage's topics."""
    failure = Failure(described(exc), MalformedEvent.code)
    if isinstance(exc, MalformedEvent):
        failure = replace(failure, code=exc.code)
    else:
        log.error("%s cannot read a record", stage.name, exc_info=exc)
    at = record.topic, record.partition, record.offset
    log.warning("%s: dead letter from %s/%d/%d: %s", stage.name, *at, failure.reason)
    try:
        envelope = salvaged(record, stage.topics)
    except Exception:
        log.exception("%s cannot tell whose record it is", stage.name)
        envelope = None
    return _given_up(stage, envelope, failure) if envelope else undeliverable(stage.name, record, failure)


def _refused_outcome(stage: Stage, envelope: Envelope, exc: Exception) -> Step:
    """In the place of an outcome that PostgreSQL does not store."""
    code = exc.code if isinstance(exc, ConcordError) else ConcordError.code
    reason = f"the result could not be stored: {described(exc)}"
    return _given_up(stage, envelope, Failure(reason, code, envelope.attempt + 1))


def _given_up(stage: Stage, envelope: Envelope, failure: Failure) -> Step:
    """What the stage says to an event that will not be handled, with the dead letter."""
    try:
        outcome = stage.give_up(envelope, failure)
    except Exception:
        log.exception("%s cannot give up %s", stage.name, envelope.id)
        return _ended(stage, envelope, failure)
    return _with_letter(stage, envelope, failure, outcome, lambda _: _ended(stage, envelope, failure))


def _ended(stage: Stage, envelope: Envelope, failure: Failure) -> Step:
    """The job fails with nothing of the event in it but ids, which are safe: what cannot be refused for its content."""
    record = envelope.record
    try:
        outcome = _bare(stage, envelope, failure)
        unlogged = _with_letter(
            stage, envelope, failure, outcome, lambda _: undeliverable(stage.name, record, failure), audit=""
        )
    except Exception:
        log.exception("%s cannot end the job of %s", stage.name, envelope.id)
        return undeliverable(stage.name, record, failure)
    return _with_letter(stage, envelope, failure, outcome, lambda _: unlogged)


def _bare(stage: Stage, envelope: Envelope, failure: Failure) -> Outcome:
    bare = replace(failure, reason=f"{stage.name} gave up ({failure.code}); the dead letter has the reason")
    upload = envelope.data
    if stage.enrichment is not None:
        return failed_enrichment(cast("OfRun", upload), stage.enrichment, bare, reopens=envelope.replay > 0)
    if not isinstance(upload, AudioUploaded):
        return failed_job(stage.name, envelope, bare)
    job_id = id_of_upload(upload, envelope.root)
    job = Job(tenant_id=upload.tenant_id, job_id=job_id, filename=UNREADABLE_NAME, audio_uri=UNREADABLE_URI)
    return failed_upload(job, stage.name, bare)


def _with_letter(
    stage: Stage,
    envelope: Envelope,
    failure: Failure,
    outcome: Outcome,
    otherwise: Callable[[Exception], Step],
    audit: str = "failed",
) -> Step:
    letter = _letter(stage.name, envelope.record, failure, envelope.id, outcome)
    outcome = replace(outcome, raw=(*outcome.raw, (letter, 0.0)), audit=audit, error=failure.reason)
    return Step(stage.name, envelope.id, outcome, envelope, otherwise=otherwise)


def _letter(stage: str, record: Record, failure: Failure, id: Any, of: object = None) -> Message:
    id = ids.event_id(id, stage, "dlq")
    return dead_letter(record, id=id, stage=stage, reason=failure.reason, attempts=failure.attempts, of=of)


def undeliverable(stage: str, record: Record, failure: Failure) -> Step:
    """A step that does no more than keep the record in the dead letters."""
    id = identity(record)
    letter = _letter(stage, record, failure, id)
    return Step(stage, id, Outcome(raw=((letter, 0.0),), error=failure.reason, audit="refused"))


def belonging(envelope: Envelope) -> dict[str, Any]:
    """Whose job an event is about, as the outcome's arguments."""
    return {"tenant_id": getattr(envelope.data, "tenant_id", None), "job_id": getattr(envelope.data, "job_id", None)}


def failed_job(stage: str, envelope: Envelope, failure: Failure) -> Outcome:
    """The run ends here, without a transcript."""
    return Outcome(
        **belonging(envelope),
        progress=failed_progress(getattr(envelope.data, "run", 1), stage, failure),
        later=end_of_failed(cast("OfRun", envelope.data), stage, failure),
    )
