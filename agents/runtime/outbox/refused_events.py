"""Ends the run, or the enrichment, that depends on an event which Kafka refuses for good."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from schemas import ids, topics
from schemas.envelope import Envelope, Record, decode
from schemas.errors import MalformedEvent, PublishRefused
from schemas.events.job import RunSweep
from schemas.jobs.outcome import Failure, Outcome, Step, end_of_failed, failed_progress
from schemas.messages import load_headers

STAGE = "relay"

#: Topics that only announce results, as dead letters do. No run depends on their events.
_ANNOUNCEMENTS = frozenset({topics.STATUS.name, topics.PERSISTED.name, topics.FAILED.name})


def depends(topic: str) -> bool:
    """Whether a run cannot go on without the events of this topic."""
    return not (topic.endswith(".dlq") or topic in _ANNOUNCEMENTS)


#: By name of a topic: the topic, and the outcome of an event for it that is refused; if that is None, the run fails.
Refusals = Mapping[str, tuple[topics.Topic, Callable[[Envelope, Failure], Outcome | None]]]


def end_of_run(row: Any, error: str, refusals: Refusals) -> Step | None:
    """The step for an outbox row that Kafka refuses: the outcome that `refusals` has for its topic, otherwise the
    failure of its run; None if nothing depends on the event.

    The step is a function of the row. Committed twice, it ends the run once.
    """
    if not depends(row["topic"]):
        return None
    failure = Failure(f"its event for {row['topic']} is refused by Kafka: {error}", PublishRefused.code)
    outcome = _of_topic(row, failure, refusals) or _of_run(row, failure)
    return None if outcome is None else Step(STAGE, ids.event_id(row["event_id"], STAGE, "refused"), outcome)


def _of_topic(row: Any, failure: Failure, refusals: Refusals) -> Outcome | None:
    if row["topic"] not in refusals:
        return None
    topic, give_up = refusals[row["topic"]]
    with contextlib.suppress(MalformedEvent, ValueError, TypeError):
        record = Record(topic.name, 0, 0, row["key"], row["value"], tuple(load_headers(row["headers"])))
        return give_up(decode(record, {topic.name: topic}), failure)
    return None


def _of_run(row: Any, failure: Failure) -> Outcome | None:
    tenant_id, job_id, run = row["tenant_id"], row["job_id"], row["run"]
    if tenant_id is None or job_id is None or run is None:
        return None
    return Outcome(
        tenant_id=tenant_id,
        job_id=job_id,
        run=run,
        progress=failed_progress(run, STAGE, failure),
        later=end_of_failed(RunSweep(tenant_id=tenant_id, job_id=job_id, run=run), STAGE, failure),
        audit="failed",
        error=failure.reason,
    )
