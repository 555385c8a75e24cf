"""The stage that renders each transcript as a Markdown document for people, without a language model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson

from agents.stages.enrichments.enrichment import Enriched, Make, enrichment
from agents.stages.spec import Resources
from schemas import blob_names, topics
from schemas.events.enrichment import DocumentGenerated
from schemas.jobs.rows import File, Job, file_kind, run_fields
from schemas.rendering.markdown import markdown
from sinks.ports.blobs import Store
from sinks.ports.jobs import Jobs

_CONTENT_TYPE = "text/markdown; charset=utf-8"


@dataclass(frozen=True)
class Document:
    """Makes documents of the transcripts in a store."""

    store: Store
    database: Jobs

    async def make(self, job: Job) -> Enriched:
        """Render and store the document of the current run's transcript. Raises `Unavailable`."""
        names = job.tenant_id, job.job_id, job.run
        uri = await self.database.transcript_uri(*names)
        content = await self.store.get(uri or self.store.uri(blob_names.agent_optimized(*names)))
        # In a thread with its parsing: the transcript of a long call has megabytes.
        text = await asyncio.to_thread(lambda: markdown(orjson.loads(content)).encode())
        version = job.transcript_version
        blob = await self.store.put(blob_names.document(*names, version), text, _CONTENT_TYPE)
        run = run_fields(job)
        stored: dict[str, Any] = {
            "size_bytes": blob.size_bytes,
            "content_type": blob.content_type,
            "sha256": blob.sha256,
        }
        return Enriched(
            event=DocumentGenerated(**run, document_uri=blob.uri, **stored),
            files=(File(**run, kind=file_kind("document", version), uri=blob.uri, **stored),),
        )


async def _build(resources: Resources) -> Make:
    return Document(resources.store, resources.database).make


SPEC = enrichment("document", version="transcript/1", announces=topics.DOCUMENT, make=_build)
