"""What becomes of a job that no event is on its way for: the event that moves it is made again; in vain, it ends.

How it can come to that: Kafka lost a topic, an operator moved a group's offsets past unread events, PostgreSQL was
restored to a time before an event was written. Every event is idempotent, so that one too many changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from schemas import ids, topics
from schemas.conversations.names import conversation_of
from schemas.events.asr import AsrDeadline, AsrRequest, AsrResult
from schemas.events.audio import AudioFetch, Options
from schemas.events.conversation import ConversationFetch
from schemas.jobs.outcome import Failure, Later, Outcome, Step, end_of_failed, failed_progress
from schemas.jobs.rows import STAGE_OF, Job, run_fields
from sinks.ports.upkeep.stuck_jobs import StuckJob

#: The stage's name of these steps, in the inbox and the audit log.
NAME: Final = "sweeper"

#: How often a job is put on its way again before it ends.
TRIES: Final = 3


def revived(stuck: StuckJob, deadline_s: float) -> Step:
    """The step that puts the job on its way again, or that ends it when that was tried `TRIES` times in vain."""
    job = stuck.job
    outcome = _ended(stuck) if stuck.times >= TRIES else _on_its_way(stuck, deadline_s)
    cause = ids.ingress_id(job.tenant_id, NAME, f"{job.job_id}/{job.run}/{job.version}/{stuck.times}")
    return Step(NAME, cause, replace(outcome, tenant_id=job.tenant_id, job_id=job.job_id, run=job.run))


def _on_its_way(stuck: StuckJob, deadline_s: float) -> Outcome:
    job = stuck.job
    match job.status:
        case "uploaded":
            later: tuple[Later, ...] = (fetching(job),)
        case "transcribing":
            later = tuple(requested(job, provider) for provider in stuck.providers)
            if stuck.without_deadline:
                # It is not known how long the run has waited: it gets its whole time again.
                deadline = AsrDeadline(**run_fields(job), seconds=deadline_s, extended=1)
                later += (Later(topics.RECONCILE_DUE.name, deadline, seconds=deadline_s, kind="asr.deadline"),)
        case _:  # what was decided is decided again, to the same words
            result = AsrResult(**run_fields(job), provider="all", status="ok", remaining=0)
            later = (Later(topics.RESULTS.name, result),)
    reason = f"nothing was on its way for it in `{job.status}`; put on its way again"
    return Outcome(later=later, audit="retried", error=reason)


def _ended(stuck: StuckJob) -> Outcome:
    job = stuck.job
    reason = f"nothing has moved this job on from `{job.status}`, although its work was asked for {TRIES} times more"
    if job.status == "transcribing" and stuck.providers:
        return Outcome(give_up=reason, audit="failed", error=reason)  # it goes on with those that have answered
    stage = job.first_stage if job.status == "uploaded" else STAGE_OF[job.status]
    failure = Failure(reason, "stuck", TRIES)
    return Outcome(
        progress=failed_progress(job.run, stage, failure),
        later=end_of_failed(job, stage, failure),
        audit="failed",
        error=reason,
    )


def requested(job: Job, provider: str) -> Later:
    """What asks a recognizer to hear a job's recording, or to go on with it."""
    request = AsrRequest(
        **run_fields(job),
        provider=provider,
        audio_uri=job.original_uri or job.audio_uri,
        language=job.language,
        content_type=job.content_type or "application/octet-stream",
        duration_ms=job.duration_ms,
        # Whom a report is mailed to is no recognizer's business, and addresses are on no topic of ours.
        options={
            name: value for name, value in job.options.items() if name in Options.model_fields and name != "mail_to"
        },
        # What decoding had to put right, others would not.
        transcode=bool(job.audio_notes),
    )
    return Later(topics.requests(provider).name, request, kind=topics.REQUEST_TYPE, index=provider)


def fetching(job: Job) -> Later:
    """What has a job's recording fetched, or its conversation."""
    conversation_id = conversation_of(job)
    if conversation_id is not None:
        data = ConversationFetch(**run_fields(job), conversation_id=conversation_id)
        return Later(topics.FETCH_DUE.name, data, kind="conversation.fetch")
    fetch = AudioFetch(
        **run_fields(job),
        audio_uri=job.audio_uri,
        filename=job.filename,
        content_type=job.content_type,
        restricted=job.is_redacted,
    )
    return Later(topics.INTAKE_DUE.name, fetch, kind="audio.fetch")
