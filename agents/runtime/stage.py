"""Stages as values: a name, topics, and `async handle(envelope) -> Outcome`; and `step`, which turns every failure of a
handler into an outcome.

The class of the exception (`schemas.errors`) decides whether the event is retried later, or the run fails and the
record becomes a dead letter. Only `Unavailable` is raised to the caller: while our own servers are away no outcome
could be stored, so the caller waits.

The outcome of a failure can fail, too: in a stage's own `give_up`, or when PostgreSQL refuses to store it. So every
step has a fallback that is committed in its place (`Step.otherwise`), each simpler than the one before: the outcome,
then the stage's `give_up`, then a failed job that consists of its ids only, the same without a row in the audit log,
and the dead letter alone.
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
from schemas.calls.time_limit import time_limit
from schemas.envelope import UNREADABLE_NAME, UNREADABLE_URI, Envelope, Record, decode, identity, salvaged
from schemas.errors import (
    ConcordError,
    InvalidInput,
    MalformedEvent,
    NoAnswer,
    NotAccepted,
    ProviderError,
    Transient,
    Unavailable,
)
from schemas.events.audio import AudioUploaded
from schemas.events.enrichment import requested_generation, requested_version
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
from schemas.topics import Topic

log = logging.getLogger(__name__)

#: How often an event is retried after a transient error, unless its stage says otherwise.
RETRIES = 3

#: How often an event is delivered again because its handler did not end in time. Calls to other servers have their own
#: timeouts, so the cause is mostly a slow store or database of ours, which does not count as an attempt: 60 deliveries
#: take an hour. But there must be a limit for a handler that hangs.
WAITS = 60

#: Seconds between two deliveries of an event whose provider accepts nothing, at most, unless it asks for more.
LONGEST_WAIT_S = 600.0

#: Error numbers that mean that this machine lacks space, memory or descriptors, or that its disk fails. Clients of
#: other servers translate their errors into ours, so that an OSError that arrives here is never caused by a server.
OUR_MACHINE = frozenset(
    getattr(errno, name) for name in "EAGAIN EDQUOT EFBIG EIO EMFILE ENFILE ENOBUFS ENOMEM ENOSPC EROFS".split()
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the pipeline, independent of Kafka."""

    name: str
    #: The topics that it consumes.
    inputs: tuple[Topic, ...]
    #: The topic of its own later events: retries, polls, deadlines.
    due: Topic
    #: Does the work outside the database and returns the outcome. It may be called twice for one event, and must be
    #: idempotent.
    handle: Callable[[Envelope], Awaitable[Outcome]]
    #: The outcome of an event that will not be handled.
    give_up: Callable[[Envelope, Failure], Outcome]
    #: Seconds within which an event must be handled, not counting those that our own database and store take.
    limit_s: float = 20.0
    #: Events that one worker handles concurrently.
    concurrency: int = 48
    #: Its events' priority in a busy process, see `agents.runtime.backpressure`; None if they are time-critical.
    rank: int | None = None
    #: How often an event is delivered again because a provider certainly accepted nothing (`NotAccepted`), without that
    #: being counted as an attempt.
    provider_waits: int = 0
    #: The same because a provider is away that may have accepted something (`NoAnswer`), so that each may be billed.
    outage_waits: int = 0
    #: Whether its input topics contain new uploads, which alternate with all other events.
    begins: bool = False
    #: How often an event is retried after a transient error before the stage gives up.
    retries: int = RETRIES
    #: The kind of enrichment that it makes, if it makes one; a failure then ends the enrichment and not the run.
    enrichment: str | None = None

    @property
    def topics(self) -> dict[str, Topic]:
        """All topics that it reads, by name."""
        return {topic.name: topic for topic in (*self.inputs, self.due)}


@dataclass(frozen=True, slots=True)
class TableStage:
    """A stage that keeps the newest record of each key of one topic in a table, from which HTTP answers."""

    name: str
    topic: Topic
    #: The table's name.
    table: str
    #: The status in a record if it is newer than the row of its key (the first argument finds rows by key), else None.
    #: Raises `MalformedEvent`.
    newest: Callable[[Callable[[str], dict[str, Any] | None], Record], JobStatus | None]
    #: The key of a status's row.
    key_of: Callable[[JobStatus], str]

    def deleted(self, record: Record) -> str | None:
        """The key of the row that a record without a value deletes; None for another record, or without a key."""
        if record.value is not None or not record.key or record.flaw is not None:
            return None
        return record.key.decode(errors="replace")


def backoff_s(attempt: int, retry_after: float | None = None) -> float:
    """Seconds before attempt `attempt` + 1: `min(1000 * 2^n, 60000)` ms, less up to a quarter as jitter, but never less
    than `retry_after`.
    """
    delay = min(1000 * 2.0 ** min(attempt, 16), 60_000) / 1000
    return max(delay * random.uniform(0.75, 1.0), retry_after or 0.0)  # noqa: S311 - jitter, not a secret


async def step(stage: Stage, record: Record) -> Step:
    """Handle one record; the step to be committed. A handler that fails has a step, too.

    Raises:
        Unavailable: One of our own servers, or this machine, cannot do the work now.
    """
    started = time.perf_counter()
    try:
        envelope = decode(record, stage.topics)
    except Exception as exc:  # noqa: BLE001 - records may come from any producer: whatever is raised, the record is invalid
        return _refused(stage, record, exc)
    try:
        outcome = await _outcome(stage, envelope)
        result = Step(stage.name, envelope.id, outcome, envelope, otherwise=partial(_refused_outcome, stage, envelope))
    except _GivenUp as exc:
        result = _give_up(stage, envelope, exc.failure)
    return replace(result, seconds=time.perf_counter() - started)


class _GivenUp(Exception):
    def __init__(self, failure: Failure) -> None:
        self.failure = failure


async def _outcome(stage: Stage, envelope: Envelope) -> Outcome:
    """The outcome of the handler, or of its failure. Raises `_GivenUp`, `Unavailable` and cancellation."""
    try:
        async with time_limit(stage.limit_s):
            return await stage.handle(envelope)
    except Unavailable:
        raise
    except (InvalidInput, ProviderError) as exc:
        raise _GivenUp(Failure(described(exc), exc.code, envelope.attempt + 1)) from exc
    except Transient as exc:
        if isinstance(exc, NotAccepted) and envelope.waits < stage.provider_waits:
            return _waiting(stage, envelope, exc, 2.0)
        if isinstance(exc, NoAnswer) and envelope.waits < stage.outage_waits:
            return _waiting(stage, envelope, exc, 4.0)
        return _retried(stage, envelope, described(exc), exc.code, exc.retry_after)
    except TimeoutError:
        return _put_off(stage, envelope)
    except asyncio.CancelledError as exc:
        if _is_cancelled():
            raise
        return _bug(stage, envelope, exc)  # a task that the handler awaited was cancelled, not the handler
    except ExceptionGroup as group:
        if (unavailable := group.subgroup(Unavailable)) is not None:
            raise Unavailable(described(_first(unavailable))) from group
        return _bug(stage, envelope, group)
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno in OUR_MACHINE:
            raise Unavailable(f"this machine cannot go on now: {exc}") from exc
        return _bug(stage, envelope, exc)  # it affects this event only


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """The first exception in a group, at any depth."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


def _bug(stage: Stage, envelope: Envelope, exc: BaseException) -> Outcome:
    """The outcome of an unexpected exception: it is logged with its traceback, and the event is retried."""
    log.error("%s failed on %s", stage.name, envelope.id, exc_info=exc)
    code = exc.code if isinstance(exc, ConcordError) else ConcordError.code
    return _retried(stage, envelope, f"internal error: {type(exc).__name__}", code, None)


def _retried(stage: Stage, envelope: Envelope, reason: str, code: str, retry_after: float | None) -> Outcome:
    attempt = envelope.attempt + 1
    if envelope.attempt >= stage.retries:
        raise _GivenUp(Failure(reason, code, attempt))
    log.info("%s: attempt %d at %s failed: %s", stage.name, attempt, envelope.id, reason)
    message = _again(stage, envelope, attempt=attempt)
    return _delivered_again(stage, envelope, message, backoff_s(envelope.attempt, retry_after), reason, attempt)


def _put_off(stage: Stage, envelope: Envelope) -> Outcome:
    """The outcome of a handler that did not end in time, which does not count as an attempt."""
    reason = f"not done within {stage.limit_s:.0f} s"
    if envelope.waits >= WAITS:
        raise _GivenUp(Failure(f"{reason}, {WAITS + 1} times", "stuck", envelope.attempt + 1))
    log.warning("%s: %s was %s; it is delivered again", stage.name, envelope.id, reason)
    message = _again(stage, envelope, waits=envelope.waits + 1)
    return _delivered_again(stage, envelope, message, backoff_s(envelope.waits), reason, envelope.attempt + 1)


def _waiting(stage: Stage, envelope: Envelope, exc: Transient, growth: float) -> Outcome:
    """The outcome of a handler whose provider is away, which does not count as an attempt. The pause before the next
    delivery is `growth` times the one before.
    """
    reason = described(exc)
    log.info("%s: %s waits: %s", stage.name, envelope.id, reason)
    message = _again(stage, envelope, waits=envelope.waits + 1)
    pause_s = max(backoff_s(envelope.waits, exc.retry_after), min(growth**envelope.waits, LONGEST_WAIT_S))
    return _delivered_again(stage, envelope, message, pause_s, reason, envelope.attempt + 1)


def _again(stage: Stage, envelope: Envelope, *, attempt: int | None = None, waits: int | None = None) -> Message:
    return again(
        envelope,
        stage.due.name,
        id=ids.event_id(envelope.id, stage.name, "again"),
        attempt=envelope.attempt if attempt is None else attempt,
        waits=envelope.waits if waits is None else waits,
    )


def _delivered_again(
    stage: Stage, envelope: Envelope, message: Message, seconds: float, reason: str, attempts: int
) -> Outcome:
    job = belonging(envelope)
    run = getattr(envelope.data, "run", 1)
    step = StepState(state="retrying", attempts=attempts, error=reason)
    progress = Progress(run=run, stage=stage.name, step=step)
    enrichment = None
    if stage.enrichment is not None:
        enrichment = EnrichmentChange(
            run=run,
            kind=stage.enrichment,
            state="retrying",
            attempts=attempts,
            error=reason,
            transcript_version=requested_version(envelope.data),
            generation=requested_generation(envelope.data),
            reopens=envelope.replay > 0,
        )
    return Outcome(
        **job,
        progress=progress if job["job_id"] and enrichment is None else None,
        enrichment=enrichment,
        raw=((message, seconds),),
        audit="retried",
        error=reason,
    )


def _refused(stage: Stage, record: Record, exc: Exception) -> Step:
    """The step for a record that is not an event of the stage's topics: a dead letter, and a failed run if it names
    one.
    """
    failure = Failure(described(exc), MalformedEvent.code)
    if isinstance(exc, MalformedEvent):
        failure = replace(failure, code=exc.code)
    else:
        log.error("%s cannot read a record", stage.name, exc_info=exc)
    position = record.topic, record.partition, record.offset
    log.warning("%s: dead letter from %s/%d/%d: %s", stage.name, *position, failure.reason)
    try:
        envelope = salvaged(record, stage.topics)
    except Exception:
        log.exception("%s cannot tell to which job a record belongs", stage.name)
        envelope = None
    return _give_up(stage, envelope, failure) if envelope else undeliverable(stage.name, record, failure)


def _refused_outcome(stage: Stage, envelope: Envelope, exc: Exception) -> Step:
    """The fallback of an outcome that PostgreSQL refuses to store."""
    code = exc.code if isinstance(exc, ConcordError) else ConcordError.code
    reason = f"the result could not be stored: {described(exc)}"
    return _give_up(stage, envelope, Failure(reason, code, envelope.attempt + 1))


def _give_up(stage: Stage, envelope: Envelope, failure: Failure) -> Step:
    """The stage's outcome for an event that will not be handled, with the dead letter."""
    try:
        outcome = stage.give_up(envelope, failure)
    except Exception:
        log.exception("the failure outcome of %s for %s cannot be made", stage.name, envelope.id)
        return _fail_by_ids(stage, envelope, failure)
    return _with_letter(stage, envelope, failure, outcome, lambda _: _fail_by_ids(stage, envelope, failure))


def _fail_by_ids(stage: Stage, envelope: Envelope, failure: Failure) -> Step:
    """The job fails; the rows contain only ids of the event, which are valid, so that no content can be refused."""
    record = envelope.record
    try:
        outcome = _failure_by_ids(stage, envelope, failure)
        unlogged = _with_letter(
            stage, envelope, failure, outcome, lambda _: undeliverable(stage.name, record, failure), audit=""
        )
    except Exception:
        log.exception("%s cannot fail the job of %s", stage.name, envelope.id)
        return undeliverable(stage.name, record, failure)
    return _with_letter(stage, envelope, failure, outcome, lambda _: unlogged)


def _failure_by_ids(stage: Stage, envelope: Envelope, failure: Failure) -> Outcome:
    bare = replace(failure, reason=f"{stage.name} gave up ({failure.code}); the dead letter has the reason")
    upload = envelope.data
    if stage.enrichment is not None:
        return failed_enrichment(
            cast("OfRun", upload),
            stage.enrichment,
            bare,
            transcript_version=requested_version(upload),
            generation=requested_generation(upload),
            reopens=envelope.replay > 0,
        )
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
    """A step that only publishes the record as a dead letter."""
    id = identity(record)
    letter = _letter(stage, record, failure, id)
    return Step(stage, id, Outcome(raw=((letter, 0.0),), error=failure.reason, audit="refused"))


def belonging(envelope: Envelope) -> dict[str, Any]:
    """Tenant and job of an event, as arguments of an `Outcome`; None where the event has none."""
    return {"tenant_id": getattr(envelope.data, "tenant_id", None), "job_id": getattr(envelope.data, "job_id", None)}


def failed_job(stage: str, envelope: Envelope, failure: Failure) -> Outcome:
    """The outcome that fails the run at this stage."""
    return Outcome(
        **belonging(envelope),
        progress=failed_progress(getattr(envelope.data, "run", 1), stage, failure),
        later=end_of_failed(cast("OfRun", envelope.data), stage, failure),
    )
