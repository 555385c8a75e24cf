"""The stage that renders each transcript as a Markdown document for people; title and description are by a language
model where there is one.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

import orjson

from agents.llm.texts.prompts import template
from agents.llm.texts.titles import VERSION, Titler
from agents.stages.enrichments.enrichment import WAITS, Enriched, Make, enrichment
from agents.stages.enrichments.words import agent_optimized, transcript_words
from agents.stages.spec import Resources
from schemas import blob_names, topics
from schemas.errors import ProviderError
from schemas.events.enrichment import DocumentGenerated
from schemas.jobs.rows import Job, file_kind, run_fields
from schemas.rendering.markdown import markdown
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Store, file_of
from sinks.ports.jobs import Jobs

log = logging.getLogger(__name__)

_CONTENT_TYPE = "text/markdown; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Heading:
    """What a language model has written above the transcript."""

    title: str | None = None
    description: str | None = None
    notes: tuple[str, ...] = ()
    #: Fields of the event.
    made_by: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """Makes documents of the transcripts in a store."""

    store: Store
    database: Jobs
    accounts: EffectiveSettings
    titler: Titler | None = None

    async def make(self, job: Job) -> Enriched:
        """Render and store the document of the current run's transcript. Raises `Unavailable`, and `Transient` if the
        language model is away; one that refuses, or whose budget is used up, costs only title and description.
        """
        heading = await self._heading(job)
        content = await agent_optimized(self.database, self.store, job)
        # In a thread with its parsing: the transcript of a long call has megabytes.
        text = await asyncio.to_thread(_rendered, content, heading)
        version = job.transcript_version
        name = blob_names.document(job.tenant_id, job.job_id, job.run, version)
        blob = await self.store.put(name, text, _CONTENT_TYPE)
        event = DocumentGenerated(
            **run_fields(job),
            document_uri=blob.uri,
            size_bytes=blob.size_bytes,
            content_type=blob.content_type,
            sha256=blob.sha256,
            **heading.made_by,
        )
        return Enriched(event=event, files=(file_of(job, file_kind("document", version), blob),))

    async def _heading(self, job: Job) -> _Heading:
        if self.titler is None:
            return _Heading()
        words, language = await transcript_words(self.database, self.store, job)
        if not words:
            return _Heading()
        settings = await self.accounts.settings_of(job.tenant_id)
        own = template("document", VERSION, settings, await self.database.metadata(*job.key))
        model = self.titler.questions.model
        try:
            titled = await self.titler.titled(job, words, language, own)
        except ProviderError as exc:
            log.warning("%s/%d: the document has no description: %s", job.job_id, job.run, exc)
            return _Heading(notes=(f"{model} has not described this call: {str(exc).rstrip('.')}.",))
        made_by = {"template": own.name, "model": model, "tokens": titled.tokens}
        return _Heading(titled.title, titled.description, made_by=made_by)


def _rendered(content: bytes, heading: _Heading) -> bytes:
    return markdown(orjson.loads(content), heading.title, heading.description, heading.notes).encode()


async def _build(resources: Resources) -> Make:
    questions = await resources.text_questions()
    titler = Titler(questions, resources.part_tokens, resources.document_temperature) if questions else None
    return Document(resources.store, resources.database, resources.accounts, titler).make


SPEC = enrichment(
    "document", version="transcript/1", announces=topics.DOCUMENT, make=_build, limit_s=300.0, waits=WAITS
)
