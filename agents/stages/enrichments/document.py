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
from schemas.jobs.rows import File, Job, run_fields
from schemas.rendering.markdown import markdown
from sinks.ports.blobs import Store

_CONTENT_TYPE = "text/markdown; charset=utf-8"


@dataclass(frozen=True)
class Document:
    """Makes documents of the transcripts in a store."""

    store: Store

    async def make(self, job: Job) -> Enriched:
        """Render and store the document of the job's current run. Raises `Unavailable`."""
        names = job.tenant_id, job.job_id, job.run
        content = await self.store.get(self.store.uri(blob_names.agent_optimized(*names)))
        # In a thread with its parsing: the transcript of a long call has megabytes.
        text = await asyncio.to_thread(lambda: markdown(orjson.loads(content)).encode())
        blob = await self.store.put(blob_names.document(*names), text, _CONTENT_TYPE)
        run = run_fields(job)
        stored: dict[str, Any] = {
            "size_bytes": blob.size_bytes,
            "content_type": blob.content_type,
            "sha256": blob.sha256,
        }
        return Enriched(
            event=DocumentGenerated(**run, document_uri=blob.uri, **stored),
            files=(File(**run, kind="document", uri=blob.uri, **stored),),
        )


async def _build(resources: Resources) -> Make:
    return Document(resources.store).make


SPEC = enrichment("document", version="transcript/1", announces=topics.DOCUMENT, make=_build)
