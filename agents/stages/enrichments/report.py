"""The stage that makes a PDF of each transcript: facts, the summary if there is one, what was said, and its quality."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

import orjson

from agents.reports.content import Report, report
from agents.reports.rendering import Renderer
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages.enrichments.enrichment import Enriched, Make, enrichment
from agents.stages.enrichments.words import agent_optimized, raw_transcript, word_source
from agents.stages.spec import Resources
from schemas import blob_names, ids, topics
from schemas.conversations.differences import Difference, differences
from schemas.conversations.names import conversation_of, started_at
from schemas.corrections.rows import FIRST
from schemas.errors import NotFound
from schemas.events.conversation import AGENT
from schemas.events.enrichment import ReportGenerated
from schemas.jobs.rows import Job, file_kind, run_fields
from schemas.summaries import Summary
from schemas.transcript_words import words_of
from schemas.words import Reconciliation, adapter
from sinks.ports.blobs import Blob, Store, file_of
from sinks.ports.jobs import Jobs

#: Seconds for which an event waits for its report; a longer one is made on in the background.
QUICK_S: Final = 10.0

#: Reports of a worker at once: one is typeset while another is read or stored.
AT_ONCE: Final = 2

_CONTENT_TYPE: Final = "application/pdf"


class Pdfs(Protocol):
    """Typesets; see `agents.reports.rendering.Renderer`."""

    async def pdf(self, report: Report) -> bytes:
        """The report as PDF."""


@dataclass(frozen=True)
class Reports:
    """Makes reports on the transcripts in a store."""

    store: Store
    database: Jobs
    renderer: Pdfs
    tasks: LeasedTasks

    async def make(self, job: Job) -> Enriched | None:
        """Make and store the report on the newest version of the run's transcript.

        Raises:
            InvalidInput: It cannot be made of this transcript.
            Transient: The process that makes it was killed.
            Unavailable: The database, the store or this machine does not do it now.
        """
        key = ids.task_key("report", job.tenant_id, job.job_id, job.run, job.transcript_version)
        blob: Blob | None = await self.tasks.run(key, lambda _: self._stored(job), QUICK_S)
        if blob is None:
            return None
        event = ReportGenerated(**run_fields(job), report_uri=blob.uri, size_bytes=blob.size_bytes, sha256=blob.sha256)
        return Enriched(event=event, files=(file_of(job, file_kind("report", job.transcript_version), blob),))

    async def _stored(self, job: Job) -> Blob:
        content = await self.renderer.pdf(await report_on(job, self.store, self.database))
        return await self.store.put(report_name(job), content, _CONTENT_TYPE)


def report_name(job: Job) -> str:
    """The name of the report on this version of the job's transcript. A conversation's first one has that of the
    conversation.
    """
    conversation_id = conversation_of(job)
    if conversation_id is not None and job.transcript_version == FIRST:
        return blob_names.conversation_report(job.tenant_id, conversation_id)
    return blob_names.report(job.tenant_id, job.job_id, job.run, job.transcript_version)


async def report_on(job: Job, store: Store, database: Jobs) -> Report:
    """What a report says about the newest version of the run's transcript. Raises `NotFound` and `Unavailable`."""
    content = await agent_optimized(database, store, job)
    source = await word_source(database, job)
    is_verified = conversation_of(job) is not None and bool(job.options.get("verify"))
    # Read once: words and differences are both made of it. Of an edited transcript only the differences are.
    raw = await raw_transcript(store, source) if source.edited is None or is_verified else None
    summary, why_none = await _summary(job, store)

    # In a thread with its parsing: the transcript of a long call has megabytes.
    def made() -> Report:
        readings = adapter(Reconciliation).validate_json(raw) if raw is not None else None
        words = source.edited if source.edited is not None else words_of(readings) if readings is not None else []
        of_agent = _differences(readings) if is_verified and readings is not None else None
        return report(orjson.loads(content), words, summary, why_none, of_agent, started_at(job))

    return await asyncio.to_thread(made)


def _differences(readings: Reconciliation) -> list[Difference] | None:
    """What the agent's transcript got wrong; None where no recognizer has heard the recording, too."""
    if AGENT not in readings.providers or len(readings.providers) == 1:
        return None
    return differences(readings, AGENT)


async def _summary(job: Job, store: Store) -> tuple[Summary | None, str]:
    """The summary of this version of the transcript, or why there is none."""
    status = job.enrichment.get("summary")
    if status is None:
        return None, "No summary was made of this call: the installation, or its upload, does not ask for one."
    name = blob_names.summary(job.tenant_id, job.job_id, job.run, job.transcript_version)
    try:
        return Summary.model_validate_json(await store.get(store.uri(name))), ""
    except NotFound:
        return None, f"There is no summary of this call: {status.error or 'it is not made yet'}"


async def _build(resources: Resources) -> Make:
    renderer = Renderer()
    resources.on_close(renderer.close)
    return Reports(resources.store, resources.database, renderer, resources.leased_tasks(AT_ONCE)).make


SPEC = enrichment("report", version="report/1", announces=topics.REPORT, make=_build, after=(topics.SUMMARY,))
