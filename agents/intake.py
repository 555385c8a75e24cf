"""The stage that meets strangers: it validates, recognizes repeats, fetches and probes the audio, stores it and creates
the job.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from agents.failpoints import passing
from agents.locations import Fetched, Locations
from agents.stage import Stage, belonging, failed_job
from agents.work import LongWork
from schemas import ids, topics
from schemas.errors import MalformedEvent, Transient
from schemas.events import AsrDeadline, AsrRequest, AsrResult, AudioFetch, AudioUploaded, JobReprocess, StepState
from schemas.jobs import NOTHING, Failure, File, Job, Later, Outcome, Progress, ProviderRequest, end_of_failed
from schemas.messages import Envelope, Message, dead_letter
from sinks import Blob, Database

#: Seconds for which the upload's own event waits for its audio; longer fetches go on outside it.
QUICK_S = 3.0

#: Seconds between looks at a fetch that goes on.
LOOK_S = 2.0


@dataclass(frozen=True)
class Intake:
    """What intake needs from outside."""

    database: Database
    locations: Locations
    work: LongWork
    recognizers: tuple[str, ...]
    #: Seconds, for a recording of this many ms, after which a run goes on without the recognizers that have not
    #: answered.
    deadline_s: float

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
        job_id = data.job_id or ids.job_id(data.tenant_id, ids.event_id(envelope.id, "intake", 0))
        known = await self.database.job(job_id)
        if known is not None and known.tenant_id == data.tenant_id:
            again = envelope.replay and known.status == "failed"
            wish = JobReprocess(tenant_id=data.tenant_id, job_id=job_id, run=known.run + 1)
            return await self._reprocess(wish) if again else _repeated(known)
        if known is not None:
            return Outcome(raw=((_taken_letter(envelope), 0.0),), audit="")
        fetch = AudioFetch(**data.model_dump(include=_FETCHED), job_id=job_id)
        try:
            fetched = await self._fetched(fetch, QUICK_S, eager=True)
        except Transient:
            fetched = None
        if fetched is None:
            return replace(
                self._created(envelope, data, job_id, None),
                later=(Later(topics.INTAKE_DUE.name, fetch, seconds=1.0, kind="audio.fetch"),),
                audit="started",
            )
        return self._created(envelope, data, job_id, fetched)

    async def _fetch(self, envelope: Envelope, data: AudioFetch) -> Outcome:
        job = await self.database.job(data.job_id)
        if job is None or job.run != data.run or job.status != "uploaded":
            return NOTHING
        fetched = await self._fetched(data, LOOK_S)
        if fetched is None:
            later = Later(topics.INTAKE_DUE.name, data, seconds=LOOK_S, kind="audio.fetch", attempt=envelope.attempt)
            return Outcome(**belonging(envelope), later=(later,), audit="")
        requests = _requests(job, self.recognizers)
        progress = Progress(
            run=job.run,
            status="transcribing",
            stage="intake",
            step=StepState(state="done", progress=1.0),
            columns=_audio_columns(fetched),
        )
        job = replace(job, **_audio_columns(fetched))
        return Outcome(
            **belonging(envelope),
            progress=progress,
            new_requests=requests,
            files=(_original(job, fetched.blob),),
            later=self._asked(job, requests),
        )

    async def _fetched(self, data: AudioFetch, wait_s: float, *, eager: bool = False) -> Fetched | None:
        async def make(_: object) -> Fetched:
            found = await self.locations.fetch(data, again=not eager)
            passing("intake.stored")
            return found

        found = await self.work.run(f"fetch/{data.job_id}/{data.run}", make, wait_s, eager=eager)
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
            taken=_taken_letter(envelope),
        )

    def _asked(self, job: Job, requests: tuple[ProviderRequest, ...]) -> tuple[Later, ...]:
        whose = {"tenant_id": job.tenant_id, "job_id": job.job_id, "run": job.run}
        asked = tuple(
            Later(
                topics.requests(r.provider).name,
                AsrRequest(
                    **whose,
                    provider=r.provider,
                    audio_uri=job.original_uri or job.audio_uri,
                    language=job.language,
                    content_type=job.content_type or "application/octet-stream",
                    duration_ms=job.duration_ms,
                    options=job.options,
                ),
                kind=topics.REQUEST_TYPE,
                index=r.provider,
            )
            for r in requests
            if not r.ended
        )
        if not asked:  # every hypothesis is there already: straight to reconciling
            done = AsrResult(**whose, provider=requests[0].provider, status="ok", remaining=0)
            return (Later(topics.RESULTS.name, done),)
        # A long recording takes its recognizers longer: half its length is added to the deadline.
        wait_s = self.deadline_s + (job.duration_ms or 0) / 2000
        return (
            *asked,
            Later(topics.RECONCILE_DUE.name, AsrDeadline(**whose, seconds=wait_s), seconds=wait_s, kind="asr.deadline"),
        )

    async def _reprocess(self, data: JobReprocess) -> Outcome:
        job = await self.database.job(data.job_id)
        if job is None or job.tenant_id != data.tenant_id or not job.ended or data.run != job.run + 1:
            return NOTHING
        earlier = {r.provider: r for r in await self.database.requests(job.job_id, job.run) if r.state == "done"}
        begun = replace(
            job,
            run=data.run,
            steps={"intake": StepState(state="done")},
            reason=None,
            completed_at=None,
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
        fetch = AudioFetch(
            tenant_id=begun.tenant_id,
            job_id=begun.job_id,
            run=begun.run,
            audio_uri=begun.audio_uri,
            filename=begun.filename,
        )
        later = (Later(topics.INTAKE_DUE.name, fetch, kind="audio.fetch"),)
        return Outcome(tenant_id=begun.tenant_id, job_id=begun.job_id, begin=begun, later=later, audit="started")

    def give_up(self, envelope: Envelope, failure: Failure) -> Outcome:
        """There will be no transcript; a job that was not created yet is created as failed, so that whoever asks is
        told.
        """
        data = envelope.data
        if isinstance(data, AudioFetch) or not isinstance(data, AudioUploaded):
            return failed_job("intake", envelope, failure)
        job_id = data.job_id or ids.job_id(data.tenant_id, ids.event_id(envelope.id, "intake", 0))
        step = StepState(state="failed", attempts=failure.attempts, error=failure.reason)
        job = replace(_job(data, job_id, None), status="failed", reason=failure.reason, steps={"intake": step})
        return Outcome(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            create=job,
            later=end_of_failed(job, "intake", failure),
            taken=_taken_letter(envelope),
        )


def stage(intake: Intake) -> Stage:
    """Intake as a stage."""
    return Stage("intake", (topics.UPLOADED,), topics.INTAKE_DUE, intake.handle, intake.give_up, rank=2)


#: What fetching needs of an upload.
_FETCHED = {"tenant_id", "audio_uri", "filename", "content_type"}


def _job(data: AudioUploaded, job_id: str, fetched: Fetched | None) -> Job:
    """The job as it begins."""
    job = Job(
        tenant_id=data.tenant_id,
        job_id=job_id,
        status="transcribing" if fetched else "uploaded",
        filename=data.filename,
        audio_uri=data.audio_uri,
        language=data.language,
        priority=data.priority,
        options=data.options.model_dump(),
        metadata=dict(data.metadata),
        steps={"intake": StepState(state="done" if fetched else "running", progress=1.0 if fetched else None)},
    )
    return replace(job, **_audio_columns(fetched)) if fetched else job


def _requests(job: Job, recognizers: tuple[str, ...]) -> tuple[ProviderRequest, ...]:
    return tuple(
        ProviderRequest(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            run=job.run,
            provider=name,
            marker=f"concord-{job.job_id}-{job.run}-{name}",
        )
        for name in recognizers
    )


def _reused(request: ProviderRequest, earlier: ProviderRequest | None) -> ProviderRequest:
    """What an earlier run has heard is not paid for again."""
    return replace(earlier, run=request.run, marker=request.marker) if earlier else request


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


def _taken_letter(envelope: Envelope) -> Message:
    id = ids.event_id(envelope.id, "intake", "taken")
    reason = "job_id: is taken already; leave it out to get a new one"
    return dead_letter(envelope.record, id=id, stage="intake", reason=reason, attempts=1)
