"""Rows and steps that the tests of databases share."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from schemas import topics
from schemas.events.asr import AsrRequest
from schemas.events.job import Persisted, StepState
from schemas.jobs.outcome import EnrichmentChange, Later, Outcome, Progress, RequestChange, Step
from schemas.jobs.rows import Adjudication, Job, ProviderRequest, Transcript, Usage
from sinks.ports.api.direct_uploads import DirectUpload


def job(job_id: str = "j", tenant: str = "t", **more) -> Job:
    return Job(**{"tenant_id": tenant, "job_id": job_id, "filename": "a.wav", "audio_uri": "file:///a.wav"} | more)


def requests(of: Job, *providers: str) -> tuple[ProviderRequest, ...]:
    return tuple(
        ProviderRequest(tenant_id=of.tenant_id, job_id=of.job_id, run=of.run, provider=p, marker=f"m-{p}")
        for p in providers
    )


def created(of: Job, *providers: str, **more) -> Step:
    outcome = Outcome(
        tenant_id=of.tenant_id, job_id=of.job_id, create=of, new_requests=requests(of, *providers), **more
    )
    return Step("intake", uuid4(), outcome)


def moved(status, *, run: int = 1, stage: str = "x", job_id: str = "j", later: tuple[Later, ...] = ()) -> Step:
    progress = Progress(run=run, status=status, stage=stage, step=StepState(state="done"))
    return Step(stage, uuid4(), Outcome(tenant_id="t", job_id=job_id, progress=progress, later=later))


def answered(provider: str, token: int | None, state: str = "done") -> Step:
    change = RequestChange(run=1, provider=provider, token=token, columns={"state": state})
    return Step(f"transcribe.{provider}", uuid4(), Outcome(tenant_id="t", job_id="j", request=change))


def changed(provider: str, token: int | None, job_id: str = "j", **columns) -> Step:
    change = RequestChange(run=1, provider=provider, token=token, columns=columns)
    return Step(f"transcribe.{provider}", uuid4(), Outcome(tenant_id="t", job_id=job_id, request=change))


def poll(job_id: str, provider: str) -> Later:
    asked = AsrRequest(tenant_id="t", job_id=job_id, provider=provider, audio_uri="file:///a.wav")
    return Later(topics.requests(provider).name, asked, seconds=60, kind=topics.REQUEST_TYPE)


def used(unit: str = "prompt_tokens", quantity: float = 7, **more) -> Usage:
    whose = {"tenant_id": "t", "job_id": "j", "run": 1, "provider": "gemini", "ref": "response-1"}
    return Usage(**whose | {"unit": unit, "quantity": quantity} | more)


def answer(question: str, choice: int | None = 0, **more) -> Adjudication:
    whose = {"tenant_id": "t", "job_id": "j", "run": 1, "adjudicator": "gemini/m/v1"}
    return Adjudication(**whose | {"question": question, "choice": choice} | more)


def persisted_event() -> Persisted:
    return Persisted.model_construct(
        tenant_id="t", job_id="j", run=1, raw_transcript_uri="x://a", agent_optimized_uri="x://b"
    )


def transcript(job_id: str, tenant: str, run: int) -> Transcript:
    return Transcript(
        tenant_id=tenant,
        job_id=job_id,
        run=run,
        text=f"hello in run {run}",
        words=4,
        speakers=["A"],
        segments=[{"start_ms": 0, "end_ms": 900, "speaker": "A", "text": "hello", "confidence": 0.9}],
        language="en",
        confidence=0.9,
        agreement=None,
        method="calibrated",
        provider_confidences={"one": 0.8, "two": None},
        reconciliation_notes=[],
        quality={"agreement": None},
        raw_transcript_uri="s3://b/raw",
        agent_optimized_uri="s3://b/agent",
        duration_ms=1000,
    )


async def asking(under_test, *jobs: Job) -> None:
    """Jobs whose requests have just been made, with an event each that was put off."""
    for one in jobs:
        later = AsrRequest(tenant_id=one.tenant_id, job_id=one.job_id, run=1, provider="a", audio_uri="file:///a.wav")
        put_off = Later(topics.requests("a").name, later, seconds=3600, kind=topics.REQUEST_TYPE)
        await under_test.database.commit([created(one, "a", later=(put_off,))])


def waiting(job_id: str, tenant: str = "t", priority: int = 5) -> Job:
    return job(job_id, tenant, status="transcribing", priority=priority)


async def due_jobs(under_test) -> list[str]:
    return sorted((key or b"").decode() for _, key in await under_test.due())


async def under_way(under_test, slots: int, *jobs: str, tenant: str = "t") -> list[str]:
    """Which of these requests may be under way."""
    return [id for id in jobs if await under_test.database.acquire_slot(tenant, id, 1, "a", slots)]


def direct_upload(**more):
    fields = {
        "tenant_id": "t",
        "upload_id": uuid4(),
        "job_id": "j",
        "uri": "s3://b/t/uploads/1",
        "size_bytes": 5 << 30,
        "upload": {"filename": "Zoë.wav"},
        "token_hash": b"\x00\xff",
        "expires_at": datetime(2027, 1, 1, tzinfo=UTC),
    }
    return DirectUpload(**fields | more)


async def reported(database, job_id: str = "j", tenant: str = "t", **more) -> None:
    """A completed job whose report is made."""
    owner = {"tenant_id": tenant, "job_id": job_id}
    progress = Progress(run=1, status="completed", stage="persist", step=StepState(state="done"))
    completed = Outcome(**owner, progress=progress, new_enrichments=("report",))
    done = Outcome(**owner, enrichment=EnrichmentChange(run=1, kind="report", state="done"))
    await database.commit([created(job(job_id, tenant, status="persisting", **more))])
    await database.commit([Step("persist", uuid4(), completed)])
    await database.commit([Step("report", uuid4(), done)])
