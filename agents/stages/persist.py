"""The stage that completes a run: it stores the transcript in both stores, then publishes the one terminal event."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import orjson

from agents.runtime.failpoints import passing
from agents.runtime.stage import Stage, belonging, failed_job
from agents.stages.redacting import clean_up, forgets
from agents.stages.spec import Resources, StageSpec
from agents.text.corrections.review import review_items
from schemas import blob_names, topics
from schemas.envelope import Envelope
from schemas.errors import NotFound
from schemas.events.base import MAX_EVENT_METADATA_BYTES
from schemas.events.job import Persisted, Reconciled, RunSweep, StepState
from schemas.jobs import enrichment
from schemas.jobs.outcome import IGNORED, NOTHING, Failure, Later, Outcome, Progress, sweep
from schemas.jobs.rows import Job, Transcript
from schemas.rendering.segments import segments, speakers
from schemas.words import Reconciliation, adapter
from sinks.ports.blobs import Blob, Store, file_of
from sinks.ports.jobs import Jobs
from sinks.ports.providers.requests import Requests

_JSON = "application/json"


class Database(Jobs, Requests, Protocol):
    """What persisting asks of the database."""


@dataclass(frozen=True)
class Persist:
    """Handles reconciled transcripts, and sweeps of ended runs."""

    database: Database
    store: Store
    #: Kinds of enrichment that begin when a run completes.
    enrichments: tuple[str, ...] = ()

    async def handle(self, envelope: Envelope) -> Outcome:
        """Store a reconciled transcript and complete its run, or sweep what an ended run may not keep.

        Raises:
            Unavailable: The database or the store is away.
        """
        if isinstance(envelope.data, RunSweep):
            return await self._sweep(envelope.data)
        data = cast("Reconciled", envelope.data)
        job = await self.database.job(data.tenant_id, data.job_id)
        if job is None or job.run < data.run:
            return IGNORED
        if job.run > data.run or job.ended:
            return NOTHING
        job = replace(job, metadata=await self.database.metadata(*job.key))
        return await self._store(envelope, job, data, await self._read(data.raw_uri))

    async def _read(self, uri: str) -> Reconciliation:
        return cast("Reconciliation", adapter(Reconciliation).validate_json(await self.store.get(uri)))

    async def _store(self, envelope: Envelope, job: Job, data: Reconciled, reconciliation: Reconciliation) -> Outcome:
        content = agent_optimized(job, reconciliation)
        optimized = await self._put(blob_names.agent_optimized(job.tenant_id, job.job_id, job.run), content)
        passing("persist.half-stored")
        name = blob_names.metadata(job.tenant_id, job.job_id, job.run)
        metadata = await self._put(name, _metadata(job, data, reconciliation))
        if job.is_redacted:
            await clean_up(self.store, self.database, job, reconciliation)
        passing("persist.stored")
        transcript = _row(job, data, reconciliation, content["transcript"], optimized)
        outcome = self._completed(envelope, job, data, transcript, (optimized, metadata))
        return replace(outcome, review=review_items(job, reconciliation))

    def _completed(
        self, envelope: Envelope, job: Job, data: Reconciled, transcript: Transcript, blobs: tuple[Blob, Blob]
    ) -> Outcome:
        optimized, metadata = blobs
        event = Persisted(
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
            completed_at=datetime.now(UTC),  # replaced by the database's time when it commits
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
            new_enrichments=enrichment.wanted(self.enrichments, job),
            files=(file_of(job, "agent_optimized", optimized), file_of(job, "metadata", metadata)),
            # What a recognizer answers late is stored behind the run's back: a run that forgets does it once more.
            later=(Later(topics.PERSISTED.name, event), *((sweep(job),) if forgets(job) else ())),
        )

    async def _put(self, name: str, content: dict[str, Any]) -> Blob:
        return await self.store.put(name, orjson.dumps(content), _JSON)

    async def _sweep(self, data: RunSweep) -> Outcome:
        """Delete the results of a failed run. The original and the paid answers of recognizers are kept for its
        reprocessing. Of a completed one that forgets, delete what came late.
        """
        job = await self.database.job(data.tenant_id, data.job_id)
        if job is None or job.run < data.run:
            return IGNORED
        of_run = data.tenant_id, data.job_id, data.run
        if job.run == data.run and job.status == "completed" and forgets(job):
            name = blob_names.raw_transcript(*of_run)
            with contextlib.suppress(NotFound):  # its files are gone by now
                await clean_up(self.store, self.database, job, await self._read(self.store.uri(name)))
        if job.run == data.run and job.status == "failed":
            for name_of in (blob_names.raw_transcript, blob_names.agent_optimized, blob_names.metadata):
                await self.store.delete(self.store.uri(name_of(*of_run)))
            await self.store.delete(self.store.uri(blob_names.raw_transcript(*of_run, restricted=True)))
        return NOTHING

    def give_up(self, envelope: Envelope, failure: Failure) -> Outcome:
        """The run fails. A sweep that fails changes nothing; its dead letter is kept."""
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
    """The upload's metadata as the event `persisted` repeats them; None if they are too large for it."""
    small = len(orjson.dumps(job.metadata)) <= MAX_EVENT_METADATA_BYTES
    return job.metadata if small else None


def agent_optimized(job: Job, reconciliation: Reconciliation) -> dict[str, Any]:
    """The content of `agent_optimized.json`: text, speakers, segments, and measures of quality."""
    return {
        "job_id": job.job_id,
        "tenant_id": job.tenant_id,
        "reference": job.reference,
        "transcript": {
            "text": reconciliation.text,
            "speakers": speakers(reconciliation.words),
            "segments": segments(reconciliation.words),
        },
        "metadata": {
            "run": job.run,
            "filename": job.filename,
            "duration": (job.duration_ms or 0) / 1000,
            "language": reconciliation.language,
            "confidence": reconciliation.quality.confidence,
            "method": reconciliation.method,
            "recognizers": list(reconciliation.providers),
            "reconciliation_notes": notes(job, reconciliation),
            "quality": asdict(reconciliation.quality),
            "custom": job.metadata,
        },
    }


def notes(job: Job, reconciliation: Reconciliation) -> list[str]:
    """Sentences for readers on how the transcript was made, and on what limits its quality."""
    sentences = [*job.audio_notes, *reconciliation.notes]
    if not reconciliation.words:
        sentences.append("No speech was heard in this recording; the transcript is empty.")
    if reconciliation.method == "single":
        sentences.append(
            f"The words are those of one recognizer ({', '.join(reconciliation.providers)}); nothing could be compared."
        )
    return sentences


def _metadata(job: Job, data: Reconciled, reconciliation: Reconciliation) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "tenant_id": job.tenant_id,
        "reference": job.reference,
        "run": job.run,
        "filename": job.filename,
        "content_type": job.content_type,
        "duration_ms": job.duration_ms,
        "language": reconciliation.language,
        "audio_uri": job.audio_uri,
        "original_uri": job.original_uri,
        "raw_transcript_uri": data.raw_uri,
        "recognizers": list(reconciliation.providers),
        "method": reconciliation.method,
        "quality": asdict(reconciliation.quality),
        "metadata": job.metadata,
        "options": job.options,
        "created_at": job.created_at,
    }


def _row(
    job: Job, data: Reconciled, reconciliation: Reconciliation, transcript: dict[str, Any], optimized: Blob
) -> Transcript:
    return Transcript(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        run=job.run,
        text=transcript["text"],
        words=len(reconciliation.words),
        speakers=transcript["speakers"],
        segments=transcript["segments"],
        language=reconciliation.language,
        confidence=reconciliation.quality.confidence,
        agreement=reconciliation.quality.agreement,
        method=reconciliation.method,
        provider_confidences={name: of.get("confidence") for name, of in reconciliation.quality.recognizers.items()},
        reconciliation_notes=notes(job, reconciliation),
        quality=asdict(reconciliation.quality),
        raw_transcript_uri=data.raw_uri,
        agent_optimized_uri=optimized.uri,
        duration_ms=job.duration_ms,
    )
