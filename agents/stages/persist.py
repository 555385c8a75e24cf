"""The stage that ends a run: the transcript into both stores, then the one terminal event."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from agents.runtime.failpoints import passing
from agents.runtime.stage import Stage, belonging, failed_job
from agents.stages.spec import Resources, StageSpec
from agents.text.segments import segments, speakers
from schemas import blob_names, topics
from schemas.envelope import Envelope
from schemas.events.base import MAX_EVENT_METADATA_BYTES
from schemas.events.job import Persisted, Reconciled, RunSweep, StepState
from schemas.jobs.outcome import IGNORED, NOTHING, Failure, Later, Outcome, Progress
from schemas.jobs.rows import File, Job, Transcript
from schemas.words import Reconciliation, adapter
from sinks.ports.blobs import Blob, Store
from sinks.ports.jobs import Jobs

_JSON = "application/json"


@dataclass(frozen=True)
class Persist:
    """What persist needs from outside."""

    database: Jobs
    store: Store
    #: Kinds of enrichment that begin when a run completes.
    enrichments: tuple[str, ...] = ()

    async def handle(self, envelope: Envelope) -> Outcome:
        """A reconciled transcript, or the sweep after a failed run."""
        if isinstance(envelope.data, RunSweep):
            return await self._sweep(envelope.data)
        data = cast("Reconciled", envelope.data)
        job = await self.database.job(data.tenant_id, data.job_id)
        if job is None or job.run < data.run:
            return IGNORED
        if job.run > data.run or job.ended:
            return NOTHING
        job = replace(job, metadata=await self.database.metadata(*job.key))
        decided = cast("Reconciliation", adapter(Reconciliation).validate_json(await self.store.get(data.raw_uri)))
        content = agent_optimized(job, decided)
        optimized = await self._put(blob_names.agent_optimized(job.tenant_id, job.job_id, job.run), content)
        passing("persist.half-stored")
        known = await self._put(blob_names.metadata(job.tenant_id, job.job_id, job.run), _metadata(job, data, decided))
        passing("persist.stored")
        transcript = _row(job, data, decided, content["transcript"], optimized)
        return self._ended(envelope, job, data, transcript, (optimized, known))

    def _ended(
        self, envelope: Envelope, job: Job, data: Reconciled, transcript: Transcript, blobs: tuple[Blob, Blob]
    ) -> Outcome:
        optimized, known = blobs
        done = Persisted(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            run=job.run,
            raw_transcript_uri=data.raw_uri,
            agent_optimized_uri=optimized.uri,
            confidence=transcript.confidence,
            word_count=transcript.words,
            duration_seconds=(job.duration_ms or 0) / 1000,
            language=transcript.language,
            filename=job.filename,
            metadata=announced_metadata(job),
            completed_at=datetime.now(UTC),  # the database puts its own time here when it commits
        )
        return Outcome(
            **belonging(envelope),
            progress=Progress(
                run=job.run,
                status="completed",
                stage="persist",
                step=StepState(state="done", attempts=envelope.attempt + 1, progress=1.0),
            ),
            transcript=transcript,
            new_enrichments=() if job.options.get("enrich") is False else self.enrichments,
            files=(_file(job, "agent_optimized", optimized), _file(job, "metadata", known)),
            later=(Later(topics.PERSISTED.name, done),),
        )

    async def _put(self, name: str, content: dict[str, Any]) -> Blob:
        return await self.store.put(name, orjson.dumps(content), _JSON)

    async def _sweep(self, data: RunSweep) -> Outcome:
        """Delete the results of a failed run. The original and what recognizers were paid for stay, for a
        reprocessing.
        """
        job = await self.database.job(data.tenant_id, data.job_id)
        if job is None or job.run < data.run:
            return IGNORED
        if job.run == data.run and job.status == "failed":
            for name in (blob_names.raw_transcript, blob_names.agent_optimized, blob_names.metadata):
                await self.store.delete(self.store.uri(name(data.tenant_id, data.job_id, data.run)))
        return NOTHING

    def give_up(self, envelope: Envelope, failure: Failure) -> Outcome:
        """The run fails; a sweep that fails is only kept in the dead letters."""
        if isinstance(envelope.data, RunSweep):
            return NOTHING
        return failed_job("persist", envelope, failure)


def stage(persist: Persist) -> Stage:
    """Persist as a stage."""
    return Stage("persist", (topics.RECONCILED,), topics.PERSIST_DUE, persist.handle, persist.give_up, rank=0)


async def _build(_: StageSpec, resources: Resources) -> Stage:
    return stage(Persist(resources.database, resources.store, resources.enrichments))


SPEC = StageSpec(
    name="persist",
    inputs=(topics.RECONCILED,),
    due=topics.PERSIST_DUE,
    publishes=(topics.PERSISTED,),
    build=_build,
)


def announced_metadata(job: Job) -> dict[str, Any] | None:
    """The upload's metadata as `persisted` repeats them; None when they are too large for that."""
    small = len(orjson.dumps(job.metadata)) <= MAX_EVENT_METADATA_BYTES
    return job.metadata if small else None


def agent_optimized(job: Job, decided: Reconciliation) -> dict[str, Any]:
    """The transcript as machines like to read it: text, speakers, segments, and how far to trust it."""
    return {
        "job_id": job.job_id,
        "tenant_id": job.tenant_id,
        "reference": job.reference,
        "transcript": {"text": decided.text, "speakers": speakers(decided.words), "segments": segments(decided.words)},
        "metadata": {
            "run": job.run,
            "filename": job.filename,
            "duration": (job.duration_ms or 0) / 1000,
            "language": decided.language,
            "confidence": decided.quality.confidence,
            "method": decided.method,
            "recognizers": list(decided.providers),
            "reconciliation_notes": notes(job, decided),
            "quality": asdict(decided.quality),
            "custom": job.metadata,
        },
    }


def notes(job: Job, decided: Reconciliation) -> list[str]:
    """What a reader should know about how the transcript came to be, in sentences."""
    said = [*job.audio_notes, *decided.notes]
    if not decided.words:
        said.append("No speech was heard in this recording; the transcript is empty.")
    if decided.method == "single":
        said.append(
            f"The words are those of one recognizer ({', '.join(decided.providers)}); nothing could be compared."
        )
    return said


def _metadata(job: Job, data: Reconciled, decided: Reconciliation) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "tenant_id": job.tenant_id,
        "reference": job.reference,
        "run": job.run,
        "filename": job.filename,
        "content_type": job.content_type,
        "duration_ms": job.duration_ms,
        "language": decided.language,
        "audio_uri": job.audio_uri,
        "original_uri": job.original_uri,
        "raw_transcript_uri": data.raw_uri,
        "recognizers": list(decided.providers),
        "method": decided.method,
        "quality": asdict(decided.quality),
        "metadata": job.metadata,
        "options": job.options,
        "created_at": job.created_at,
    }


def _row(
    job: Job, data: Reconciled, decided: Reconciliation, transcript: dict[str, Any], optimized: Blob
) -> Transcript:
    return Transcript(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        run=job.run,
        text=transcript["text"],
        words=len(decided.words),
        speakers=transcript["speakers"],
        segments=transcript["segments"],
        language=decided.language,
        confidence=decided.quality.confidence,
        agreement=decided.quality.agreement,
        method=decided.method,
        provider_confidences={name: said.get("confidence") for name, said in decided.quality.recognizers.items()},
        reconciliation_notes=notes(job, decided),
        quality=asdict(decided.quality),
        raw_transcript_uri=data.raw_uri,
        agent_optimized_uri=optimized.uri,
        duration_ms=job.duration_ms,
    )


def _file(job: Job, kind: str, blob: Blob) -> File:
    return File(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        run=job.run,
        kind=kind,
        uri=blob.uri,
        size_bytes=blob.size_bytes,
        content_type=blob.content_type,
        sha256=blob.sha256,
    )
