"""What is published when a dead letter is replayed: the record as it was, or a request for a new run of its job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agents.commands.operations.dead_letters import source_topic
from agents.stages import registry
from schemas import ids, topics
from schemas.envelope import Headers, Record
from schemas.events.job import JobReprocess
from schemas.messages import Message, message

if TYPE_CHECKING:
    from uuid import UUID

    from schemas.jobs.rows import Job

#: Headers that a replayed record does not keep: why it was given up, and how often it was tried and replayed before.
_NOT_REPLAYED = ("dlq-", "ce_attempt", "ce_replay")


@dataclass(frozen=True, slots=True)
class Replay:
    """The effect of replaying one record."""

    #: Published; None if nothing is.
    message: Message | None
    #: The effect in words, for the operator.
    summary: str


def plan_replay(letter: Record, job: Job | None, *, skip_completed: bool = False) -> Replay:
    """The replay of a dead letter; `job` is the one that it is about, if there is one."""
    topic = source_topic(letter)
    if (contents := letter.header("dlq-bytes-of")) is not None:
        return Replay(None, f"not put back, its value is the bytes of a {contents} that could not be read")
    if "value" in (letter.header("dlq-truncated") or "").split(","):
        return Replay(None, f"not put back, only a part of its {letter.header('dlq-value-length')} bytes was kept")
    if (kind := letter.header("dlq-stage")) in registry.enrichments():
        return _plan_enrichment(letter, job, kind, skip_done=skip_completed)
    if skip_completed and job is not None and job.status == "completed":
        return Replay(None, f"skipped, job {job.job_id} has been completed meanwhile")
    if job is not None and job.status == "failed":
        # The record belongs to a run that has ended: its stage would ignore it.
        summary = f"job {job.job_id} failed: run {job.run + 1} asked for on {topics.INTAKE_DUE.name}"
        return Replay(reprocess(letter, job), summary)
    return Replay(restored(letter), f"put back on {topic}")


def _plan_enrichment(letter: Record, job: Job | None, kind: str, *, skip_done: bool) -> Replay:
    """To the topic of its own stage: others subscribe to the letter's, and must not get the event twice."""
    status = job.enrichment.get(kind) if job is not None else None
    if skip_done and status is not None and status.state == "done":
        return Replay(None, f"skipped, the {kind} has been made meanwhile")
    topic = topics.due_name(kind)
    return Replay(restored(letter, topic), f"put back on {topic}")


def reprocess(record: Record, job: Job) -> Message:
    """The request for a new run of a job; the same record and run always make the same event."""
    request = JobReprocess(
        tenant_id=job.tenant_id, job_id=job.job_id, run=job.run + 1, reason="replayed from the dead letters"
    )
    id = ids.event_id(_id_of(record), "dlq.replay", job.run + 1)
    return message(topics.INTAKE_DUE.name, request, id=id, now=datetime.now(UTC), kind="job.reprocess")


def restored(letter: Record, topic: str | None = None) -> Message:
    """The record that was given up, for its original topic or another one: key and value unchanged, its replays
    counted.
    """
    kept = tuple((name, value) for name, value in letter.headers if not name.startswith(_NOT_REPLAYED))
    text = letter.header("ce_replay") or "0"
    count = (int(text) if text.isdecimal() and len(text) < 7 else 0) + 1
    headers: Headers = (*kept, ("ce_replay", str(count).encode()))
    return Message(_id_of(letter), topic or source_topic(letter), letter.key, letter.value, headers)


def _id_of(letter: Record) -> UUID:
    return ids.record_id(letter.topic, letter.partition, letter.offset, letter.timestamp_ms, letter.value)
