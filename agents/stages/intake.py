"""The stage that takes in uploads: it validates them, recognizes repeats, fetches and probes the audio, stores it, and
creates the job. Uploads may be invalid or hostile; everything after this stage relies on what it has checked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from agents.media.source.audio_source import AudioSource, Fetched, host_of_uri
from agents.runtime.failpoints import passing
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import RETRIES, Stage, backoff_s, belonging, failed_job
from agents.stages.spec import Resources, StageSpec
from agents.stages.uploads import failures, jobs
from agents.stages.uploads.accepted import is_of_deleted
from agents.stages.uploads.fetch_queue import FetchQueue, share_of
from agents.stages.uploads.of_tenant import with_defaults
from agents.stages.uploads.runs import Runs, begin_fetching
from agents.stages.uploads.waiting import (
    WAITING,
    admitted,
    begun,
    check_not_before,
    put_off,
    still_queued,
    until_its_time,
)
from schemas import ids, topics
from schemas.envelope import SOURCE, Envelope
from schemas.errors import InvalidInput, MalformedEvent, NotDelivered, Transient
from schemas.events.audio import AudioFetch, AudioUploaded
from schemas.events.job import JobReprocess, StepState
from schemas.jobs.outcome import IGNORED, NOTHING, Failure, Later, Outcome, Progress, failed_upload, id_of_upload
from schemas.jobs.rows import Job, run_fields
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import file_of
from sinks.ports.clock import Clock
from sinks.ports.jobs import Jobs
from sinks.ports.providers.requests import Requests
from sinks.ports.upkeep.deletions import Deletions
from sinks.ports.uploads import Uploads

log = logging.getLogger(__name__)

#: Seconds for which the upload's own event waits for its audio; a longer fetch continues outside the event.
QUICK_S = 3.0

#: Seconds between two events of a fetch that continues, and for which each of them waits.
POLL_S = 2.0

#: Seconds for which a fetch is retried, at least, if the host states when to retry.
RETRY_AFTER_S = 3600.0


class Database(Clock, Jobs, Requests, Uploads, Deletions, Protocol):
    """What intake asks of the database."""


@dataclass(frozen=True)
class Intake:
    """Handles uploads, fetches, and requests for a new run."""

    database: Database
    audio_source: AudioSource
    tasks: LeasedTasks
    #: Those of the installation; a tenant may have chosen others.
    runs: Runs
    #: Seconds for which a fetch is retried if the host fails.
    patience_s: float = 300.0
    #: What holds for a tenant; without it, what holds for the installation.
    accounts: EffectiveSettings | None = None
    #: Whether this process has more events waiting than it can start soon. New uploads then become rows and wait.
    is_behind: Callable[[], bool] = lambda: False
    queue: FetchQueue = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "queue", FetchQueue(self.database, self.tasks))

    async def handle(self, envelope: Envelope) -> Outcome:
        """Handle an upload, the next event of its fetch, or a request for a new run.

        Raises:
            MalformedEvent: The event is of another type.
            InvalidInput: The upload cannot become a transcript.
            Unavailable: The database or the store is away.
        """
        match envelope.data:
            case AudioFetch() as data:
                return await self._fetch(envelope, data)
            case AudioUploaded() as data:
                return await self._upload(envelope, await with_defaults(data, self.accounts, self.runs.enrichments))
            case JobReprocess() as data:
                return await self._reprocess(envelope, data)
            case other:
                raise MalformedEvent(f"intake does not handle {type(other).__name__}")

    async def _runs(self, tenant_id: str) -> Runs:
        return self.runs.of_tenant(await self.accounts.settings_of(tenant_id)) if self.accounts else self.runs

    async def _upload(self, envelope: Envelope, upload: AudioUploaded) -> Outcome:
        job_id = id_of_upload(upload, envelope.root)
        candidates = await self.database.named(upload.tenant_id, job_id, upload.reference)
        existing = jobs.repeated_job(upload, job_id, candidates)
        if existing is not None:
            return await self._repeat(envelope, upload, existing)
        deletion = await self.database.deletion(upload.tenant_id, job_id)
        if is_of_deleted(envelope.record, deletion):
            return NOTHING  # it is about the deleted job
        runs = await self._runs(upload.tenant_id)
        runs.check_options(upload.options, upload.language)
        if upload.not_before is not None:
            check_not_before(upload, await self.database.now())
        first_run = jobs.first_run(deletion)
        fields, is_redacted = upload.model_dump(include=_FETCH_FIELDS), bool(upload.options.redact_pii)
        fetch = AudioFetch(**fields, job_id=job_id, run=first_run, restricted=is_redacted)
        urgency, key = 9 - upload.priority, (fetch.tenant_id, job_id)
        must_wait = runs.is_limited or self.is_behind() or self.queue.must_wait(key, urgency, _shares(fetch))
        if must_wait and not self._is_fetching(fetch):
            return await self._create_queued(envelope, upload, fetch)
        try:
            fetched = await self._fetch_audio(fetch, QUICK_S, eager=True)
        except Transient as exc:
            retry, step = await self._retry(envelope, fetch, exc)
            return self._create_fetching(envelope, upload, fetch, retry, steps={"intake": step})
        if fetched is None:
            return self._create_fetching(envelope, upload, fetch, _fetch_event(fetch, 1.0))
        first = await begun(runs.first(upload, job_id, fetched, first_run), self.database, is_limited=runs.is_limited)
        return replace(first, taken=failures.reference_in_use(envelope, upload))

    async def _repeat(self, envelope: Envelope, upload: AudioUploaded, job: Job) -> Outcome:
        """The upload of an existing job: a repeat, unless the job has failed and the upload corrects or replays it.
        That of a job which was created over HTTP is announced by an event of our own; nothing is left to do.
        """
        if job.status == "failed" and job.code == MalformedEvent.code:
            return await self._begin_corrected_run(envelope, upload, job)
        if job.status == "failed" and envelope.replay:
            again = JobReprocess(tenant_id=job.tenant_id, job_id=job.job_id, run=job.run + 1)
            return await self._reprocess(envelope, again)
        is_own = envelope.record.header("ce_source") == SOURCE and upload.audio_uri == job.audio_uri
        return Outcome(tenant_id=job.tenant_id, job_id=job.job_id, audit="" if is_own else "repeated")

    def _is_fetching(self, data: AudioFetch) -> bool:
        return self.tasks.progress(_task_key(data)) is not None

    async def _create_queued(self, envelope: Envelope, upload: AudioUploaded, fetch: AudioFetch) -> Outcome:
        """Create the job; its recording waits for a slot."""
        columns = {"steps": {"intake": WAITING}, "queued_at": await self.database.now()}
        return self._create_fetching(envelope, upload, fetch, put_off(fetch, attempt=envelope.attempt), **columns)

    async def _requeue(self, envelope: Envelope, data: AudioFetch) -> Outcome:
        """No slot is free for this recording: it waits again, behind the others of its tenant."""
        columns = {"queued_at": await self.database.now()}
        progress = Progress(run=data.run, stage="intake", step=WAITING, columns=columns)
        later = (put_off(data, attempt=envelope.attempt),)
        return Outcome(**belonging(envelope), progress=progress, later=later, audit="")

    async def _retry(self, envelope: Envelope, data: AudioFetch, exc: Transient) -> tuple[Later, StepState]:
        """The event that retries a failed fetch, and the step's state until then.

        A host that restarts, or has not received the recording yet, is retried for minutes; one that states when to
        retry, for an hour.

        Raises:
            NotDelivered: That time is over.
        """
        now = await self.database.now()
        attempts, since = envelope.attempt + 1, data.failing_since or now
        wait_s, failing_s = backoff_s(envelope.attempt, exc.retry_after), (now - since).total_seconds()
        has_retry_after = exc.retry_after is not None
        patience_s = max(self.patience_s, RETRY_AFTER_S) if has_retry_after else self.patience_s
        # Attempts that take minutes each, such as a large download that breaks off, are made a few times in any case.
        if (has_retry_after or attempts > RETRIES) and failing_s + wait_s > patience_s:
            raise NotDelivered(f"{exc}; tried {attempts} times in {_minutes(failing_s)}") from exc
        log.info("attempt %d to fetch job %s failed, the next is in %.0f s: %s", attempts, data.job_id, wait_s, exc)
        again = data.model_copy(update={"failing_since": since})
        return _fetch_event(again, wait_s, attempts), StepState(state="retrying", attempts=attempts, error=str(exc))

    async def _fetch(self, envelope: Envelope, data: AudioFetch) -> Outcome:
        job = await self.database.job(data.tenant_id, data.job_id)
        if job is None or job.run < data.run:
            return IGNORED
        if job.run > data.run or job.status != "uploaded":
            return NOTHING
        if job.is_queued:
            return still_queued(job, data, envelope.attempt)
        if job.original_uri is not None:
            return await self._admitted(job, JobReprocess(**run_fields(job)))
        if not self._is_fetching(data) and self.queue.full(job.key, _shares(data)):
            return await self._requeue(envelope, data)
        try:
            fetched = await self._fetch_audio(data, POLL_S)
        except Transient as exc:
            retry, step = await self._retry(envelope, data, exc)
            progress = Progress(run=job.run, stage="intake", step=step)
            return Outcome(**belonging(envelope), progress=progress, later=(retry,), audit="retried", error=step.error)
        if fetched is None:
            later = (_fetch_event(data, POLL_S, envelope.attempt),)
            return Outcome(**belonging(envelope), progress=_fetch_started(job), later=later, audit="")
        return await self._begin_transcribing(envelope, job, fetched)

    async def _begin_transcribing(self, envelope: Envelope, job: Job, fetched: Fetched) -> Outcome:
        """The recording is stored: its run goes on, or waits for its time."""
        step, columns = jobs.fetched_step(fetched), jobs.audio_columns(fetched)
        job = replace(job, **columns, steps={"intake": step})
        if job.not_before is not None and job.not_before > (now := await self.database.now()):
            return until_its_time(job, columns, (file_of(job, "original", fetched.blob),), now)
        runs = await self._runs(job.tenant_id)
        requests = jobs.provider_requests(job, runs.recognizers)
        return Outcome(
            **belonging(envelope),
            progress=Progress(run=job.run, status="transcribing", stage="intake", step=step, columns=columns),
            new_requests=requests,
            files=(file_of(job, "original", fetched.blob),),
            later=runs.request_events(job, requests),
        )

    async def _fetch_audio(self, data: AudioFetch, wait_s: float, *, eager: bool = False) -> Fetched | None:
        async def fetch(_: object) -> Fetched:
            fetched = await self.audio_source.fetch(data, again=not eager)
            passing("intake.stored")
            return fetched

        result = await self.tasks.run(_task_key(data), fetch, wait_s, eager=eager, shares=_shares(data))
        return cast("Fetched | None", result)

    @staticmethod
    def _create_fetching(
        envelope: Envelope, upload: AudioUploaded, fetch: AudioFetch, later: Later, **columns: Any
    ) -> Outcome:
        """Create the job of a recording that is still to be fetched, which `later` does."""
        job = replace(jobs.new_job(upload, fetch.job_id, None, fetch.run), **columns)
        return Outcome(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            create=job,
            later=(later,),
            taken=failures.reference_in_use(envelope, upload),
            audit="started",
            error=job.steps["intake"].error,
        )

    async def _begin_corrected_run(self, envelope: Envelope, upload: AudioUploaded, failed: Job) -> Outcome:
        """A readable upload of a job whose only upload so far could not be read: the job's next run."""
        job = replace(jobs.new_job(upload, failed.job_id, None), reference=failed.reference, run=failed.run + 1)
        runs = await self._runs(upload.tenant_id)
        try:
            runs.check_options(upload.options, upload.language)
        except InvalidInput as exc:
            outcome = failed_upload(job, "intake", Failure(str(exc), exc.code))
            outcome = replace(outcome, create=None, begin=outcome.create)
            return failures.with_dead_letter(envelope, outcome, str(exc), "dlq")
        return await begun(begin_fetching(job), self.database, is_limited=runs.is_limited)

    async def _reprocess(self, envelope: Envelope, data: JobReprocess) -> Outcome:
        """Begin the next run of a job that has ended, or one that was queued, with the recording and the answers that
        exist already.
        """
        job = await self.database.job(data.tenant_id, data.job_id)
        if job is None or data.run > job.run + 1:
            return IGNORED
        if job.run == data.run and job.is_queued:
            return still_queued(job, data, envelope.attempt)
        if job.run == data.run and job.status == "uploaded":
            return await self._admitted(job, data)
        if not job.ended or data.run <= job.run:
            return NOTHING
        runs = await self._runs(job.tenant_id)
        run = runs.next(job, data, await jobs.earlier_requests(self.database, job))
        return await begun(run, self.database, is_limited=runs.is_limited, wanted=data)

    async def _admitted(self, job: Job, wanted: JobReprocess) -> Outcome:
        """Begin a run that was queued."""
        runs = await self._runs(job.tenant_id)
        return admitted(runs.next(job, wanted, await jobs.earlier_requests(self.database, job)))


def give_up(envelope: Envelope, failure: Failure) -> Outcome:
    """The run fails. A job that does not exist yet is created as failed, so that its status can be queried."""
    upload = envelope.data
    if not isinstance(upload, AudioUploaded):
        return failed_job("intake", envelope, failure)
    return failures.create_failed(envelope, upload, failure)


def stage(intake: Intake) -> Stage:
    """Intake as a stage."""
    return Stage("intake", (topics.UPLOADED,), topics.INTAKE_DUE, intake.handle, give_up, rank=2, begins=True)


async def _build(_: StageSpec, resources: Resources) -> Stage:
    intake = Intake(
        resources.database,
        resources.audio_source(),
        resources.leased_tasks(64),
        Runs.installed(resources),
        resources.patience_s,
        resources.accounts,
        resources.is_behind,
    )
    resources.run_in_background("uploads that wait", intake.queue.run)
    return stage(intake)


def _refused(envelope: Envelope, failure: Failure) -> Outcome | None:
    """The retry of an upload has no job yet: it is created as failed, so that its status can be queried."""
    return give_up(envelope, failure) if isinstance(envelope.data, AudioUploaded) else None


SPEC = StageSpec(name="intake", inputs=(topics.UPLOADED,), due=topics.INTAKE_DUE, build=_build, refused=_refused)

#: The fields of an upload that its fetch needs.
_FETCH_FIELDS = {"tenant_id", "audio_uri", "filename", "content_type"}


def _task_key(data: AudioFetch) -> str:
    return ids.task_key("fetch", data.tenant_id, data.job_id, data.run)


def _shares(data: AudioFetch) -> tuple[str, ...]:
    """The shares of a fetch: neither one tenant's backlog nor one slow host may hold all slots."""
    host = host_of_uri(data.audio_uri)
    return (share_of(data.tenant_id), *([f"host {host}"] if host else []))


def _fetch_event(data: AudioFetch, seconds: float, attempt: int = 0) -> Later:
    return Later(topics.INTAKE_DUE.name, data, seconds=seconds, kind="audio.fetch", attempt=attempt)


def _fetch_started(job: Job) -> Progress | None:
    """The change of status when a recording that was queued is now fetched."""
    if job.steps.get("intake", WAITING).state != "waiting":
        return None
    return Progress(run=job.run, stage="intake", step=StepState(state="running"))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
