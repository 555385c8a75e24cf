"""The stage that summarises each transcript by a language model, or, without one, by quotations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agents.llm.texts.prompts import template
from agents.llm.texts.summaries import SUMMARY, Summarized, Summarizer
from agents.stages.enrichments.enrichment import WAITS, Enriched, Make, enrichment
from agents.stages.enrichments.words import transcript_words
from agents.stages.spec import Resources
from agents.text.summaries.digest import digest
from schemas import blob_names, topics
from schemas.conversations.names import conversation_of
from schemas.events.enrichment import SummaryGenerated
from schemas.jobs.rows import Job, file_kind, run_fields
from schemas.summaries import Coverage, Summary, items_of
from schemas.transcript_words import TranscriptWord
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Store, file_of
from sinks.ports.jobs import Jobs

_JSON: Final = "application/json"

#: The kind of calls with voice agents, by which templates are chosen (`summary.conversation`).
CONVERSATION: Final = "conversation"

#: Notes of digests.
NO_MODEL: Final = (
    "This is a digest: quotations from the call, chosen without a language model. "
    "Set OPENAI_API_KEY, or GEMINI_API_KEY with CONCORD_TEXT_MODEL=gemini, for a summary."
)
NO_SENTENCE: Final = "No sentence of this call is long enough to be quoted."
NO_WORDS: Final = "The transcript has no words; there is nothing to summarise."


@dataclass(frozen=True)
class Summaries:
    """Makes summaries of the transcripts in a store. Without a `summarizer`, digests."""

    store: Store
    database: Jobs
    accounts: EffectiveSettings
    summarizer: Summarizer | None = None

    async def make(self, job: Job) -> Enriched:
        """Summarise and store. Raises as `Summarizer.summary` does, and `Unavailable`."""
        made = await self._made(job, *await transcript_words(self.database, self.store, job))
        summary, version = made.summary, job.transcript_version
        content = summary.model_dump_json().encode()
        blob = await self.store.put(blob_names.summary(job.tenant_id, job.job_id, job.run, version), content, _JSON)
        event = SummaryGenerated(
            **run_fields(job),
            summary_uri=blob.uri,
            size_bytes=blob.size_bytes,
            sha256=blob.sha256,
            form=summary.kind,
            template=summary.template,
            model=summary.model,
            sentiment=summary.sentiment,
            dropped=summary.dropped,
            tokens=made.tokens,
        )
        return Enriched(
            event=event,
            files=(file_of(job, file_kind("summary", version), blob),),
            summary_items=items_of(summary, job),
        )

    async def _made(self, job: Job, words: Sequence[TranscriptWord], language: str | None) -> Summarized:
        if self.summarizer is None or not words:
            return Summarized(await asyncio.to_thread(_digest, job, words, language), 0)
        settings = await self.accounts.settings_of(job.tenant_id)
        ours = CONVERSATION if conversation_of(job) is not None else None
        own = template("summary", SUMMARY, settings, await self.database.metadata(*job.key), ours)
        return await self.summarizer.summary(job, words, language, own, job.transcript_version)


def _digest(job: Job, words: Sequence[TranscriptWord], language: str | None) -> Summary:
    quotations = digest(words, language)
    notes = (NO_MODEL,) if quotations else (NO_MODEL, NO_SENTENCE)
    return Summary(
        kind="digest",
        template="quotations/1",
        transcript_version=job.transcript_version,
        key_points=quotations,
        coverage=Coverage(words=len(words), words_read=len(words), parts=1),
        notes=notes if words else (NO_WORDS,),
    )


async def _build(resources: Resources) -> Make:
    questions = await resources.text_questions()
    summarizer = Summarizer(questions, resources.part_tokens) if questions is not None else None
    return Summaries(resources.store, resources.database, resources.accounts, summarizer).make


SPEC = enrichment(
    "summary", version=f"summary/{SUMMARY}", announces=topics.SUMMARY, make=_build, limit_s=300.0, waits=WAITS
)
