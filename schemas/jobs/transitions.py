"""The state machine of a run: `advance` applies the outcome of a step to the rows of a job. No I/O.

A database, PostgreSQL or the double, locks the rows that a step concerns, calls `advance` and writes the result. The
rules are implemented here only: versions only increase, a run ends once, only the holder of the newest claim may write
a request.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from schemas import topics
from schemas.corrections.rows import ReviewItem, TranscriptEdit
from schemas.corrections.voices import SpeakerVoice
from schemas.errors import TooLarge
from schemas.events.job import StepState
from schemas.jobs import enrichment
from schemas.jobs.changes import abandoned, bounded, closed_steps, merged
from schemas.jobs.deletion import Deletion
from schemas.jobs.outcome import (
    Failure,
    Later,
    Outcome,
    Progress,
    Step,
    end_of_failed,
    failed_enrichment,
    failed_progress,
)
from schemas.jobs.published import deadline_id, event_message, result_of, status_message
from schemas.jobs.rows import ORDER, TERMINAL, Enrichment, File, Job, ProviderRequest, Transcript, Usage
from schemas.mail.rows import Mail
from schemas.messages import Message, largest, size_of
from schemas.search.chunks import TranscriptIndex
from schemas.summaries import ItemsOfRun
from schemas.texts import ERROR_CHARS, readable


@dataclass(slots=True)
class Rows:
    """The locked rows of one job that a step may read and change: its row and the run's requests by recognizer."""

    job: Job | None
    requests: dict[str, ProviderRequest]
    #: The other job of the tenant that has the reference of the job to create.
    namesake: Job | None = None
    #: Enrichments of the current run, by kind.
    enrichments: dict[str, Enrichment] = field(default_factory=dict)
    #: Of a job that does not exist: the newest deletion of one with its id.
    deletion: Deletion | None = None


@dataclass(slots=True)
class Written:
    """What a step writes besides the job's rows. `applied` is False if it is a duplicate or came too late."""

    applied: bool = True
    #: The job is deleted: what the step has stored elsewhere must go, too.
    too_late: bool = False
    #: The event is not recorded as handled: its run is unknown, or another worker has claimed the request since.
    forgotten: bool = False
    transcript: Transcript | None = None
    edit: TranscriptEdit | None = None
    review: tuple[ReviewItem, ...] = ()
    voices: tuple[SpeakerVoice, ...] = ()
    #: New or changed rows.
    enrichments: tuple[Enrichment, ...] = ()
    summary: ItemsOfRun | None = None
    index: TranscriptIndex | None = None
    mail: Mail | None = None
    files: tuple[File, ...] = ()
    usage: tuple[Usage, ...] = ()
    #: (message, delay in seconds)
    messages: list[tuple[Message, float]] = field(default_factory=list)
    #: Ids of scheduled events that are no longer needed.
    cancelled: list[UUID] = field(default_factory=list)


def advance(step: Step, rows: Rows, now: datetime) -> Written:
    """Apply one step to the rows of its job, in place; returns what else is to be written.

    A step whose guard does not hold is not an error: another worker has done the work, or the run has ended. It writes
    only its retries and dead letters. A step with an event that is too large to be published ends its run instead.
    """
    before, requests, namesake = rows.job, dict(rows.requests), rows.namesake
    enrichments = dict(rows.enrichments)
    written = _advance(step, rows, now)
    events = (event for event, _ in written.messages[len(step.outcome.raw) :])
    oversized = next((event for event in events if size_of(event) > largest(event.topic)), None)
    job = step.outcome.create or step.outcome.begin or before
    if oversized is None or job is None:
        return written
    rows.job, rows.namesake = before, namesake
    rows.requests.clear()
    rows.requests.update(requests)
    rows.enrichments.clear()
    rows.enrichments.update(enrichments)
    return _advance(replace(step, outcome=_too_large(step, job, oversized)), rows, now)


def _too_large(step: Step, job: Job, oversized: Message) -> Outcome:
    """The outcome in place of one with an oversized event: it ends the run and keeps the usage."""
    reason = f"{oversized.topic}: its event has {size_of(oversized)} bytes, which is too large to be published"
    failure = Failure(reason, TooLarge.code, step.envelope.attempt + 1 if step.envelope else 1)
    change = step.outcome.enrichment
    if change is not None:
        end = failed_enrichment(
            job,
            change.kind,
            failure,
            version=change.version,
            transcript_version=change.transcript_version,
            generation=change.generation,
            reopens=change.reopens,
        )
        return replace(end, usage=step.outcome.usage, raw=step.outcome.raw)
    request = step.outcome.request
    if request is not None and request.columns.get("state") in ("done", "failed"):
        request = None  # its end would continue the run
    return replace(
        step.outcome,
        progress=failed_progress(job.run, step.stage, failure),
        request=request,
        new_requests=(),
        give_up=None,
        transcript=None,
        voices=(),
        new_enrichments=(),
        later=end_of_failed(job, step.stage, failure),
        audit="failed",
        error=reason,
    )


def _advance(step: Step, rows: Rows, now: datetime) -> Written:
    outcome = step.outcome
    written = Written(messages=list(outcome.raw))
    if outcome.key is None:
        _publish(step, written, None, now)
        return written
    before = rows.job
    if before is None and rows.deletion is not None:
        renewed = _after_deletion(outcome, rows.deletion)
        if renewed is None:
            return Written(applied=False, too_late=True, messages=list(outcome.raw) if _is_new(step) else [])
        outcome, step = renewed, replace(step, outcome=renewed)
    if outcome.taken is not None and before is None and rows.namesake is not None:
        rows.namesake = None
        replacement = _advance(replace(step, outcome=outcome.taken), rows, now)
        replacement.messages[:0] = written.messages
        return replacement
    if not _guards_hold(outcome, rows):
        written.applied = False
        written.forgotten = _fenced(outcome, rows) or _unknown(outcome, rows.job)
        return written
    written.enrichments = _change_enrichments(outcome, rows, now)
    _change_job(step, rows, now)
    results = _change_requests(outcome, rows, now)
    _publish(step, written, rows.job, now)
    _announce_results(step, rows, results, written, now)
    if rows.job is not None and rows.job.ended:
        _abandon_requests(rows, rows.job, now)
        rows.job = replace(rows.job, steps=closed_steps(rows.job, now))
        written.enrichments += _begin_enrichments(outcome, rows, rows.job, now)
        if written.enrichments:
            rows.job = replace(rows.job, enrichment=enrichment.statuses(rows.enrichments))
    written.transcript, written.files, written.usage = outcome.transcript, outcome.files, outcome.usage
    if outcome.summary_items is not None and rows.job is not None:
        written.summary = ItemsOfRun(*rows.job.key, rows.job.run, outcome.summary_items)
    written.edit, written.review, written.index = _dated(outcome.edit, now), outcome.review, outcome.index
    written.mail, written.voices = outcome.mail, outcome.voices
    if rows.job is not None and rows.job != before:
        rows.job = replace(rows.job, version=_last_version(before, rows.deletion) + 1, updated_at=now)
        written.messages.append((status_message(step, rows.job, now), 0.0))
        if rows.job.ended:
            written.cancelled.append(deadline_id(rows.job.tenant_id, rows.job.job_id, rows.job.run))
    else:
        rows.job = before  # equal, but another object: there is nothing to write
    return written


def _after_deletion(outcome: Outcome, deletion: Deletion) -> Outcome | None:
    """The outcome of an event about a deleted job: None, unless it creates a new job of the same id. That one's runs
    come behind the deleted ones, so that no event of theirs has the id of an earlier one.
    """
    create = outcome.create
    if create is None or create.run > deletion.run:
        return outcome if create is not None else None
    if not create.ended:
        return None  # its recording is stored under the name of a deleted run
    run = deletion.run + 1
    later = tuple(replace(one, data=one.data.model_copy(update={"run": run})) for one in outcome.later)
    return replace(outcome, create=replace(create, run=run), later=later)


def _is_new(step: Step) -> bool:
    """Whether the event is not one of a run, but an upload, which must not be lost with a deleted job of its name."""
    return step.envelope is not None and not hasattr(step.envelope.data, "run")


def _last_version(job: Job | None, deletion: Deletion | None) -> int:
    if job is not None:
        return job.version
    return deletion.version if deletion is not None else 0


def _guards_hold(outcome: Outcome, rows: Rows) -> bool:
    job = rows.job
    if outcome.create is not None:
        return job is None and rows.namesake is None
    if job is None:
        return False
    if outcome.begin is not None:
        return job.ended and job.run + 1 == outcome.begin.run
    if outcome.edit is not None:
        return _edit_allowed(outcome.edit, job)
    if outcome.enrichment is not None:
        return enrichment.is_allowed(outcome.enrichment, job, rows.enrichments)
    if outcome.run is not None and (job.run != outcome.run or job.ended):
        return False
    if outcome.new_requests and (job.status != "uploaded" or job.is_queued):
        return False  # the run has its requests already, and some may have been billed; or it is queued again
    return _progress_allowed(outcome.progress, job) and _request_allowed(outcome, job, rows)


def _edit_allowed(edit: TranscriptEdit, job: Job) -> bool:
    """Whether nobody has edited the transcript since the version that was edited here, and no new run has begun."""
    is_next = job.transcript_version + 1 == edit.version.version
    return job.run == edit.version.run and job.status == "completed" and is_next


def _dated(edit: TranscriptEdit | None, now: datetime) -> TranscriptEdit | None:
    """The edit with the time of its commit."""
    if edit is None:
        return None
    choice = replace(edit.choice, chosen_at=now) if edit.choice else None
    return replace(edit, version=replace(edit.version, edited_at=now), choice=choice)


def _progress_allowed(progress: Progress | None, job: Job) -> bool:
    if progress is None:
        return True
    if job.run != progress.run or job.ended:
        return False
    if progress.status is None or progress.status == "failed":
        return True
    return ORDER.index(progress.status) >= ORDER.index(job.status)


def _request_allowed(outcome: Outcome, job: Job, rows: Rows) -> bool:
    change = outcome.request
    if change is None:
        return True
    row = rows.requests.get(change.provider)
    if row is None or row.run != change.run or row.ended or job.run != change.run or job.ended:
        return False
    return change.token is None or change.token == row.token


def _fenced(outcome: Outcome, rows: Rows) -> bool:
    change = outcome.request
    row = rows.requests.get(change.provider) if change else None
    if change is None or row is None or change.token is None:
        return False
    return change.run == row.run and change.token < row.token and not row.ended


def _unknown(outcome: Outcome, job: Job | None) -> bool:
    """Whether the job or run is unknown. False with `raw`, which would be published a second time."""
    if outcome.create is not None or outcome.raw:
        return False
    parts = (outcome, outcome.progress, outcome.request, outcome.enrichment)
    runs = [part.run for part in parts if part is not None]
    return job is None or any(run is not None and run > job.run for run in runs)


def _change_job(step: Step, rows: Rows, now: datetime) -> None:
    outcome = step.outcome
    new_run = outcome.create or outcome.begin
    if new_run is not None:
        rows.job = replace(
            new_run,
            created_at=rows.job.created_at if rows.job else now,
            completed_at=now if new_run.ended else None,
            steps={name: merged(None, state, now, step.seconds) for name, state in new_run.steps.items()},
            enrichment={},
            transcript_version=1,
        )
        if outcome.begin is not None:
            rows.requests.clear()
    if outcome.edit is not None and rows.job is not None:
        rows.job = replace(rows.job, transcript_version=outcome.edit.version.version)
    for request in outcome.new_requests:
        rows.requests[request.provider] = request
    if outcome.new_requests and rows.job is not None:
        awaited = {f"transcribe.{r.provider}": _AWAITED[r.ended] for r in outcome.new_requests}
        rows.job = replace(rows.job, steps=rows.job.steps | awaited)
    progress, job = outcome.progress, rows.job
    if progress is None or job is None:
        return
    columns = dict(progress.columns)
    if progress.status is not None:
        columns["status"] = progress.status
        if progress.status in TERMINAL:
            columns["completed_at"] = now
    if progress.step is not None:
        name = job.step_of(progress.stage)
        columns["steps"] = job.steps | {name: merged(job.steps.get(name), progress.step, now, step.seconds)}
    if progress.reason is not None:
        columns["reason"] = readable(progress.reason, ERROR_CHARS)
    rows.job = replace(job, **columns)


#: Initial state of a recognizer's step, by whether an earlier run has its result.
_AWAITED: Final = {False: StepState(state="waiting"), True: StepState(state="done", progress=1.0)}


def _change_requests(outcome: Outcome, rows: Rows, now: datetime) -> list[ProviderRequest]:
    """Apply the changes of provider requests; returns the requests that ended."""
    ended = []
    if outcome.request is not None:
        before = rows.requests[outcome.request.provider]
        row = replace(before, **bounded(outcome.request.columns))
        row = replace(row, finished_at=now) if row.ended else row
        row = replace(row, submitted_at=now) if row.state == "submitted" != before.state else row
        rows.requests[row.provider] = row
        ended += [row] if row.ended else []
    if outcome.give_up is not None:
        for row in [r for r in rows.requests.values() if not r.ended]:
            row = abandoned(row, outcome.give_up, now)
            rows.requests[row.provider] = row
            ended.append(row)
    return ended


def _change_enrichments(outcome: Outcome, rows: Rows, now: datetime) -> tuple[Enrichment, ...]:
    """Apply a change of an enrichment, or end all of them if a new run begins; returns the changed rows."""
    if outcome.begin is not None:
        superseded = enrichment.superseded(rows.enrichments, now)
        rows.enrichments.clear()
        return tuple(superseded)
    if outcome.edit is not None:
        reopened = enrichment.reopened(rows.enrichments, outcome.edit.version.version, now)
        rows.enrichments.update((row.kind, row) for row in reopened)
        return tuple(reopened)
    change = outcome.enrichment
    if change is None:
        return ()
    if change.begins and rows.job is not None:
        row = enrichment.begun_again(rows.enrichments.get(change.kind), rows.job, change.kind, now)
    else:
        row = enrichment.changed(rows.enrichments[change.kind], change, now)
    rows.enrichments[change.kind] = row
    return (row,)


def _begin_enrichments(outcome: Outcome, rows: Rows, job: Job, now: datetime) -> tuple[Enrichment, ...]:
    """Create the enrichments of a run that this step has completed; returns the new rows."""
    if job.status != "completed" or not outcome.new_enrichments:
        return ()
    rows.enrichments.update(enrichment.begun(job, outcome.new_enrichments, now))
    return tuple(rows.enrichments.values())


def _abandon_requests(rows: Rows, job: Job, now: datetime) -> None:
    """End the open requests of a run that has ended, which frees their slots."""
    for row in [r for r in rows.requests.values() if not r.ended]:
        rows.requests[row.provider] = abandoned(row, job.reason or f"the run has {job.status}", now)


def _announce_results(step: Step, rows: Rows, results: list[ProviderRequest], written: Written, now: datetime) -> None:
    """Publish `asr.results` for every request that ended; after the last one of the run, the job is reconciled."""
    if not results or rows.job is None:
        return
    waiting = sum(not r.ended for r in rows.requests.values())
    for index, row in enumerate(results):
        remaining = waiting + len(results) - 1 - index
        data = result_of(row, rows.job, remaining)
        result = Later(topics.RESULTS.name, data, index=row.provider)
        written.messages.append((event_message(step, result, rows.job, now), 0.0))
        stage = f"transcribe.{row.provider}"
        if row.state == "done":  # with an error, it was left out
            state = StepState(state="done", progress=1.0, notes=(row.error,) if row.error else None)
        else:
            state = StepState(state="failed", error=row.error)
        steps = rows.job.steps | {stage: merged(rows.job.steps.get(stage), state, now, step.seconds)}
        rows.job = replace(rows.job, steps=steps)
    if not waiting:
        # A late result neither moves a job back nor continues an ended one.
        if rows.job.status in ("uploaded", "transcribing"):
            rows.job = replace(rows.job, status="reconciling")
        written.cancelled.append(deadline_id(rows.job.tenant_id, rows.job.job_id, rows.job.run))


def _publish(step: Step, written: Written, job: Job | None, now: datetime) -> None:
    written.messages += [(event_message(step, later, job, now), later.seconds) for later in step.outcome.later]
