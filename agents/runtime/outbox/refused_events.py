"""What becomes of a job when Kafka refuses, for good, the event on which it depends."""

from __future__ import annotations

import contextlib
from typing import Any

from agents.stages import intake
from schemas import ids, topics
from schemas.envelope import Record, decode
from schemas.errors import MalformedEvent, PublishRefused
from schemas.events.audio import AudioUploaded
from schemas.events.job import RunSweep
from schemas.jobs.outcome import Failure, Outcome, Step, end_of_failed, failed_progress
from schemas.messages import load_headers

STAGE = "relay"

#: What a run leaves behind, besides dead letters. Nothing in the run depends on it.
BEHIND = frozenset({topics.STATUS.name, topics.PERSISTED.name, topics.FAILED.name})


def depends(topic: str) -> bool:
    """Whether something in a run depends on the events of this topic."""
    return not (topic.endswith(".dlq") or topic in BEHIND)


def end_of_run(row: Any, error: str) -> Step | None:
    """The step that ends the run to which an outbox row belongs; None where no run depends on it.

    Always the same for the same row: committed twice, it ends the run once.
    """
    if not depends(row["topic"]):
        return None
    failure = Failure(f"its event for {row['topic']} is refused by Kafka: {error}", PublishRefused.code)
    outcome = _of_upload(row, failure) or _of_run(row, failure)
    return None if outcome is None else Step(STAGE, ids.event_id(row["event_id"], STAGE, "refused"), outcome)


def _of_upload(row: Any, failure: Failure) -> Outcome | None:
    """An upload that was to be tried again has no job yet: it is created as failed, so that whoever asks is told."""
    if row["topic"] != topics.INTAKE_DUE.name:
        return None
    with contextlib.suppress(MalformedEvent, ValueError, TypeError):
        record = Record(row["topic"], 0, 0, row["key"], row["value"], tuple(load_headers(row["headers"])))
        envelope = decode(record, {topics.INTAKE_DUE.name: topics.INTAKE_DUE})
        return intake.given_up(envelope, failure) if isinstance(envelope.data, AudioUploaded) else None
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
