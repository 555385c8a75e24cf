"""The stage that meets strangers: it validates, recognizes repeats, fetches and probes the audio, stores it and creates
the job.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from agents.media.source.audio_source import AudioSource, Fetched, host_of_uri
from agents.runtime.failpoints import passing
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import RETRIES, Stage, backoff_s, belonging, failed_job
from agents.stages.fetch_queue import FetchQueue, share_of
from agents.stages.options import Abilities, check_options
from agents.stages.spec import Resources, StageSpec
from agents.upkeep.stuck_jobs import fetching, requested
from schemas import ids, topics
from schemas.envelope import UNREADABLE_URI, Envelope
from schemas.errors import InvalidInput, MalformedEvent, NotDelivered, Transient
from schemas.events.asr import AsrDeadline, AsrResult
from schemas.events.audio import AudioFetch, AudioUploaded, Options
from schemas.events.job import JobReprocess, StepState
from schemas.jobs.outcome import IGNORED, NOTHING, Failure, Later, Outcome, Progress, failed_upload, id_of_upload
from schemas.jobs.rows import File, Job, ProviderRequest, RequestState
from schemas.messages import dead_letter
from sinks.ports.blobs import Blob
from sinks.ports.clock import Clock
from sinks.ports.jobs import Jobs
from sinks.ports.providers.requests import Requests
from sinks.ports.uploads import Uploads

log = logging.getLogger(__name__)

#: Seconds for which the upload's own event waits for its audio; longer fetches go on outside it.
QUICK_S = 3.0

#: Seconds between looks at a fetch that goes on.
LOOK_S = 2.0

#: Seconds after which an upload that waits for a place looks for itself whether it was forgotten.
QUEUED_S = 3600.0

#: Seconds for which a host is tried again that says itself when to come back.
ASKED_S = 3600.0


class Database(Clock, Jobs, Requests, Uploads, Protocol):
    """What intake asks of the database."""


@dataclass(frozen=True)
class Intake:
    """What intake needs from outside."""

    database: Database
    audio_source: AudioSource
    work: LeasedTasks
    recognizers: tuple[str, ...]
    #: Seconds, for a recording of this many ms, after which a run goes on without the recognizers that have not
    #: answered.
    deadline_s: float
    #: Seconds for which a host that does not deliver is tried again.
    patience_s: float = 300.0
    #: What the recognizers carry out of an upload's options.
    abilities: Abilities = field(default_factory=dict)
    #: What is made of each transcript.
    enrichments: tuple[str, ...] = ()
    #: Whether this process has begun more than it can do at once: then what is new waits for its turn, as a row.
    behind: Callable[[], bool] = lambda: False
    queue: FetchQueue = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "queue", FetchQueue(self.database, self.work))

    async def handle(self, envelope: Envelope) -> Outcome:
        """An upload, a look at a fetch that goes on, or the wish for a new run."""
        match envelope.data:
            case AudioFetch() as data:
                return await self._fetch(envelope, data)
            case AudioUploaded() as data:
                return await self._upload(envelope, data)
            case JobReprocess() as data:
                return await self._reprocess(data)
            case other:
                raise MalformedEvent(f"intake does not handle {type(other).__name__}")

    async def _upload(self, envelope: Envelope, data: AudioUploaded) -> Outcome:
        job_id = id_of_upload(data, envelope.root)
        known = _meant(data, job_id, await self.database.named(data.tenant_id, job_id, data.reference))
        if known is not None:
            if known.code == MalformedEvent.code and known.status == "failed":
                return self._corrected(envelope, data, known)
            again = envelope.replay and known.status == "failed"
            wish = JobReprocess(tenant_id=known.tenant_id, job_id=known.job_id, run=known.run + 1)
            return await self._reprocess(wish) if again else _repeated(known)
        check_options(data.options, self.recognizers, self.abilities, self.enrichments)
        fetch = AudioFetch(**data.model_dump(include=_FETCHED), job_id=job_id)
        urgency, key = 9 - data.priority, (fetch.tenant_id, job_id)
        if self._is_new(fetch) and (self.behind() or self.queue.must_wait(key, urgency, _shares(fetch))):
            return await self._queued_upload(envelope, data, fetch)
        try:
            fetched = await self._fetched(fetch, QUICK_S, eager=True)
        except Transient as exc:
            later, step = await self._tried(envelope, fetch, exc)
            created = self._created(envelope, data, job_id, None)
            job = replace(cast("Job", created.create), steps={"intake": step})
            return replace(created, create=job, later=(later,), audit="started", error=step.error)
        if fetched is None:
            return replace(
                self._created(envelope, data, job_id, None),
                later=(Later(topics.INTAKE_DUE.name, fetch, seconds=1.0, kind="audio.fetch"),),
                audit="started",
            )
        return self._created(envelope, data, job_id, fetched)

    def _is_new(self, data: AudioFetch) -> bool:
        """Whether this process is not fetching the recording already."""
        return self.work.progress(_key(data)) is None

    async def _queued_upload(self, envelope: Envelope, data: AudioUploaded, fetch: AudioFetch) -> Outcome:
        """The job begins, and its recording waits for a place."""
        created = self._created(envelope, data, fetch.job_id, None)
        now = await self.database.now()
        job = replace(cast("Job", created.create), steps={"intake": _WAITING}, queued_at=now)
        return replace(created, create=job, later=(_put_off(fetch, envelope.attempt),), audit="started")

    async def _queued(self, envelope: Envelope, data: AudioFetch) -> Outcome:
        """There is no place for this recording: it waits again, behind the others of its tenant."""
        columns = {"queued_at": await self.database.now()}
        progress = Progress(run=data.run, stage="intake", step=_WAITING, columns=columns)
        return Outcome(**belonging(envelope), progress=progress, later=(_put_off(data, envelope.attempt),), audit="")

    async def _tried(self, envelope: Envelope, data: AudioFetch, exc: Transient) -> tuple[Later, StepState]:
        """The next try at audio that could not be had, and what the job's status says meanwhile.

        A host that restarts, or has not received the recording yet, has minutes for it; one that names a time, an hour.
        Raises `NotDelivered` after that.
        """
        now = await self.database.now()
        attempts, since = envelope.attempt + 1, data.failing_since or now
        wait_s, tried_s = backoff_s(envelope.attempt, exc.retry_after), (now - since).total_seconds()
        named = exc.retry_after is not None
        patience_s = max(self.patience_s, ASKED_S) if named else self.patience_s
        # Tries that take minutes each, as a large download that breaks off, are a few in any case.
        if (named or attempts > RETRIES) and tried_s + wait_s > patience_s:
            raise NotDelivered(f"{exc}; tried {attempts} times in {_minutes(tried_s)}") from exc
        log.info("try %d of the audio of job %s failed, the next in %.0f s: %s", attempts, data.job_id, wait_s, exc)
        again = data.model_copy(update={"failing_since": since})
        later = Later(topics.INTAKE_DUE.name, again, seconds=wait_s, kind="audio.fetch", attempt=attempts)
        return later, StepState(state="retrying", attempts=attempts, error=str(exc))

    async def _fetch(self, envelope: Envelope, data: AudioFetch) -> Outcome:
        job = await self.database.job(data.tenant_id, data.job_id)
        if job is None or job.run < data.run:
            return IGNORED
        if job.run > data.run or job.status != "uploaded":
            return NOTHING
        if self._is_new(data) and self.queue.full(job.key, _shares(data)):
            return await self._queued(envelope, data)
        try:
            fetched = await self._fetched(data, LOOK_S)
        except Transient as exc:
            later, step = await self._tried(envelope, data, exc)
            progress = Progress(run=job.run, stage="intake", step=step)
            return Outcome(**belonging(envelope), progress=progress, later=(later,), audit="retried", error=step.error)
        if fetched is None:
            later = Later(topics.INTAKE_DUE.name, data, seconds=LOOK_S, kind="audio.fetch", attempt=envelope.attempt)
            return Outcome(**belonging(envelope), progress=_begun(job), later=(later,), audit="")
        requests = _requests(job, self.recognizers)
        progress = Progress(
            run=job.run,
            status="transcribing",
            stage="intake",
            step=_done(fetched),
            columns=_audio_columns(fetched),
        )
        job = replace(job, **_audio_columns(fetched), steps={"intake": _done(fetched)})
        return Outcome(
            **belonging(envelope),
            progress=progress,
            new_requests=requests,
            files=(_original(job, fetched.blob),),
            later=self._asked(job, requests),
        )

    async def _fetched(self, data: AudioFetch, wait_s: float, *, eager: bool = False) -> Fetched | None:
        async def make(_: object) -> Fetched:
            found = await self.audio_source.fetch(data, again=not eager)
            passing("intake.stored")
            return found

        found = await self.work.run(_key(data), make, wait_s, eager=eager, shares=_shares(data))
        return cast("Fetched | None", found)

    def _created(self, envelope: Envelope, data: AudioUploaded, job_id: str, fetched: Fetched | None) -> Outcome:
        job = _job(data, job_id, fetched)
        requests = _requests(job, self.recognizers) if fetched else ()
        return Outcome(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            create=job,
            new_requests=requests,
            files=(_original(job, fetched.blob),) if fetched else (),
            later=self._asked(job, requests) if fetched else (),
            taken=_taken(envelope, data, job_id),
        )

    def _asked(self, job: Job, requests: tuple[ProviderRequest, ...]) -> tuple[Later, ...]:
        whose = {"tenant_id": job.tenant_id, "job_id": job.job_id, "run": job.run}
        asked = tuple(requested(job, r.provider) for r in requests if not r.ended)
        if not asked:  # every hypothesis is there already: straight to reconciling
            done = AsrResult(**whose, provider=requests[0].provider, status="ok", remaining=0)
            return (Later(topics.RESULTS.name, done),)
        # A long recording takes its recognizers longer: half its length is added to the deadline.
        wait_s = self.deadline_s + (job.duration_ms or 0) / 2000
        return (
            *asked,
            Later(topics.RECONCILE_DUE.name, AsrDeadline(**whose, seconds=wait_s), seconds=wait_s, kind="asr.deadline"),
        )

    def _corrected(self, envelope: Envelope, data: AudioUploaded, known: Job) -> Outcome:
        """An upload that can be read, of a job of which only one came that could not: the job's next run."""
        job = replace(_job(data, known.job_id, None), reference=known.reference, run=known.run + 1)
        try:
            check_options(data.options, self.recognizers, self.abilities, self.enrichments)
        except InvalidInput as exc:
            failed = failed_upload(job, "intake", Failure(str(exc), exc.code))
            id = ids.event_id(envelope.id, "intake", "dlq")
            letter = dead_letter(envelope.record, id=id, stage="intake", reason=str(exc), attempts=1, of=failed)
            return replace(failed, create=None, begin=failed.create, raw=((letter, 0.0),))
        return self._fetch_again(job)

    async def _reprocess(self, data: JobReprocess) -> Outcome:
        job = await self.database.job(data.tenant_id, data.job_id)
        if job is None or data.run > job.run + 1:
            return IGNORED
        if not job.ended or data.run <= job.run:
            return NOTHING
        if job.audio_uri == UNREADABLE_URI:
            raise InvalidInput("there is no recording to be run again: the upload could not be read; send it again")
        # The recognizers may be others by now. Earlier versions stored `enrich` although nobody had asked for it.
        check_options(Options(**job.options | {"enrich": None}), self.recognizers, self.abilities, self.enrichments)
        runs = [await self.database.requests(*job.key, run) for run in range(1, job.run + 1)]
        earlier = {row.provider: row for rows in runs for row in rows}
        begun = replace(
            job,
            run=data.run,
            steps={"intake": StepState(state="done", notes=job.audio_notes or None)},
            reason=None,
            code=None,
            completed_at=None,
            queued_at=None,
            status="transcribing",
        )
        if job.original_uri is None:
            return self._fetch_again(begun)
        requests = tuple(_reused(r, earlier.get(r.provider)) for r in _requests(begun, self.recognizers))
        if all(r.ended for r in requests):
            begun = replace(begun, status="reconciling")
        return Outcome(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            begin=begun,
            new_requests=requests,
            later=self._asked(begun, requests),
            audit="started",
        )

    def _fetch_again(self, begun: Job) -> Outcome:
        begun = replace(begun, status="uploaded", steps={"intake": StepState(state="running")})
        later = (fetching(begun),)
        return Outcome(tenant_id=begun.tenant_id, job_id=begun.job_id, begin=begun, later=later, audit="started")


def given_up(envelope: Envelope, failure: Failure) -> Outcome:
    """There will be no transcript; a job that was not created yet is created as failed, so that whoever asks is
    told.
    """
    data = envelope.data
    if not isinstance(data, AudioUploaded):
        return failed_job("intake", envelope, failure)
    job_id = id_of_upload(data, envelope.root)
    # With an id of its own, the reason may be that the reference is another job's.
    taken = _failed(_nameless(data), job_id, failure) if data.job_id else None
    return replace(_failed(data, job_id, failure), taken=taken)


def stage(intake: Intake) -> Stage:
    """Intake as a stage."""
    return Stage("intake", (topics.UPLOADED,), topics.INTAKE_DUE, intake.handle, given_up, rank=2, begins=True)


async def _build(_: StageSpec, resources: Resources) -> Stage:
    intake = Intake(
        resources.database,
        resources.audio_source(),
        resources.leased_tasks(64),
        resources.recognizers,
        resources.deadline_s,
        resources.patience_s,
        resources.abilities,
        resources.enrichments,
        resources.is_behind,
    )
    resources.run_beside("uploads that wait", intake.queue.run)
    return stage(intake)


def _refused(envelope: Envelope, failure: Failure) -> Outcome | None:
    """An upload that was to be tried again has no job yet: it is created as failed, so that a status exists."""
    return given_up(envelope, failure) if isinstance(envelope.data, AudioUploaded) else None


SPEC = StageSpec(name="intake", inputs=(topics.UPLOADED,), due=topics.INTAKE_DUE, build=_build, refused=_refused)


#: What fetching needs of an upload.
_FETCHED = {"tenant_id", "audio_uri", "filename", "content_type"}

#: Why an upload is refused that brings a new id and an old reference.
_TAKEN = (
    "reference: is another job's already; leave job_id out to repeat that job, or send another reference for a new one"
)


#: The step of an upload that waits for a place.
_WAITING = StepState(state="waiting")


def _key(data: AudioFetch) -> str:
    return f"fetch/{data.tenant_id}/{data.job_id}/{data.run}"


def _shares(data: AudioFetch) -> tuple[str, ...]:
    """A tenant's flood, or a host that is slow for all of them, leaves places to others."""
    host = host_of_uri(data.audio_uri)
    return (share_of(data.tenant_id), *([f"host {host}"] if host else []))


def _put_off(data: AudioFetch, attempt: int) -> Later:
    """The event of a recording that waits for a place; it is made due with the place."""
    return Later(topics.INTAKE_DUE.name, data, seconds=QUEUED_S, kind="audio.fetch", attempt=attempt)


def _begun(job: Job) -> Progress | None:
    """What is told of a recording that had to wait and is fetched now."""
    if job.queued_at is None and job.steps.get("intake", _WAITING).state != "waiting":
        return None
    return Progress(run=job.run, stage="intake", step=StepState(state="running"), columns={"queued_at": None})


def _failed(data: AudioUploaded, job_id: str, failure: Failure) -> Outcome:
    """The job, created as failed."""
    return failed_upload(_job(data, job_id, None), "intake", failure)


def _taken(envelope: Envelope, data: AudioUploaded, job_id: str) -> Outcome | None:
    """Another job got the reference while this one's recording was fetched. With an id of its own this one fails;
    without, it is a repeat.
    """
    if data.job_id is None:
        return None
    failed = _failed(_nameless(data), job_id, Failure(_TAKEN, InvalidInput.code))
    id = ids.event_id(envelope.id, "intake", "taken")
    letter = dead_letter(envelope.record, id=id, stage="intake", reason=_TAKEN, attempts=1, of=failed)
    return replace(failed, raw=((letter, 0.0),))


def _nameless(data: AudioUploaded) -> AudioUploaded:
    return data.model_copy(update={"reference": None})


def _meant(data: AudioUploaded, job_id: str, named: Sequence[Job]) -> Job | None:
    """The job that an upload repeats; None if it begins one.

    Raises InvalidInput if its job id and its reference are those of two jobs.
    """
    of_id = next((job for job in named if job.job_id == job_id), None)
    of_reference = next((job for job in named if data.reference is not None and job.reference == data.reference), None)
    if data.job_id is None:
        return of_reference or of_id
    if of_reference is not None and of_reference.job_id != job_id:
        raise InvalidInput(_TAKEN)
    if of_id is not None and data.reference is not None and of_id.reference not in (None, data.reference):
        raise InvalidInput(
            "job_id: the job with this id has another reference; a job keeps the name that it began with"
        )
    return of_id


def _job(data: AudioUploaded, job_id: str, fetched: Fetched | None) -> Job:
    """The job as it begins."""
    job = Job(
        tenant_id=data.tenant_id,
        job_id=job_id,
        reference=data.reference,
        status="transcribing" if fetched else "uploaded",
        filename=data.filename,
        audio_uri=data.audio_uri,
        language=data.language,
        priority=data.priority,
        options=data.options.model_dump(),
        metadata=dict(data.metadata),
        steps={"intake": _done(fetched) if fetched else StepState(state="running")},
    )
    return replace(job, **_audio_columns(fetched)) if fetched else job


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _requests(job: Job, recognizers: tuple[str, ...]) -> tuple[ProviderRequest, ...]:
    return tuple(
        ProviderRequest(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            run=job.run,
            provider=name,
            # Two tenants may use the same job id, and the same provider. No name contains a tilde: no two are the same.
            marker=f"concord-{job.tenant_id}~{job.job_id}~{job.run}~{name}",
        )
        for name in recognizers
    )


def _reused(request: ProviderRequest, earlier: ProviderRequest | None) -> ProviderRequest:
    """What an earlier run has heard is not paid for again, nor what it asked for and did not wait for."""
    if earlier is not None and earlier.state == "done":
        return replace(earlier, run=request.run, marker=request.marker)
    if earlier is None or not (earlier.abandoned_at or earlier.state in ("intended", "parked", "submitted")):
        return request
    # It keeps the marker by which the provider may know it.
    state: RequestState = "submitted" if earlier.provider_id else "intended"
    earlier = replace(earlier, error=None, finished_at=None, abandoned_at=None, queued_at=None, admitted_at=None)
    return replace(earlier, run=request.run, state=state)


def _done(fetched: Fetched) -> StepState:
    return StepState(state="done", progress=1.0, notes=fetched.notes or None)


def _audio_columns(fetched: Fetched) -> dict[str, Any]:
    return {
        "original_uri": fetched.blob.uri,
        "content_type": fetched.content_type,
        "duration_ms": fetched.duration_ms,
    }


def _original(job: Job, blob: Blob) -> File:
    return File(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        run=job.run,
        kind="original",
        uri=blob.uri,
        size_bytes=blob.size_bytes,
        content_type=blob.content_type,
        sha256=blob.sha256,
    )


def _repeated(job: Job) -> Outcome:
    return Outcome(tenant_id=job.tenant_id, job_id=job.job_id, audit="repeated")
