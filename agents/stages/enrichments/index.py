"""The stage that makes each transcript searchable: by its words at once, by its meaning in the background."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import cast

from agents.stages.enrichments.enrichment import Enriched, Make, enrichment
from agents.stages.enrichments.words import raw_transcript, word_source
from agents.stages.spec import Resources
from agents.text.chunks.chunking import ChunkSizes, sizes_of
from agents.text.chunks.index import transcript_index
from agents.text.chunks.tokens import RULE, tokens
from schemas import topics
from schemas.events.enrichment import TranscriptIndexed
from schemas.jobs.rows import Job, run_fields
from schemas.search.chunks import TranscriptIndex
from schemas.transcript_words import TranscriptWord, words_of
from schemas.words import Reconciliation, adapter
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Store
from sinks.ports.jobs import Jobs


@dataclass(frozen=True)
class Index:
    """Makes the index of transcripts in a store."""

    store: Store
    database: Jobs
    accounts: EffectiveSettings

    async def make(self, job: Job) -> Enriched:
        """The index of the current run's transcript.

        Raises:
            InvalidInput: The run has no transcript with this version, or its readings are not in the store any more.
            Unavailable: The database or the store is away.
        """
        source = await word_source(self.database, job)
        raw = await raw_transcript(self.store, source)
        sizes = sizes_of(await self.accounts.settings_of(job.tenant_id))
        # In a thread: the readings of a long call take a third of a second.
        index = await asyncio.to_thread(_index, job, raw, source.edited, sizes)
        event = TranscriptIndexed(
            **run_fields(job),
            chunks=len(index.chunks),
            tokens=sum(tokens(chunk.text) for chunk in index.chunks),
            counted_by=RULE,
        )
        return Enriched(event=event, index=index)


def _index(job: Job, raw: bytes, edited: list[TranscriptWord] | None, sizes: ChunkSizes) -> TranscriptIndex:
    reconciliation = cast("Reconciliation", adapter(Reconciliation).validate_json(raw))
    words = words_of(reconciliation) if edited is None else edited
    if job.created_at is None:
        raise ValueError("every stored job was created at some time")
    return transcript_index(job, job.created_at, job.transcript_version, reconciliation, words, sizes)


async def _build(resources: Resources) -> Make:
    resources.embed_in_background()
    return Index(resources.store, resources.database, resources.accounts).make


_SPEC = enrichment("index", version="chunks/2", announces=topics.INDEXED, make=_build)
SPEC = replace(_SPEC, publishes=(*_SPEC.publishes, topics.EMBEDDINGS))
