"""Events of enrichments, which are created from a transcript after its run has completed."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from schemas.events.base import Event, JobEvent, Reason, Uri
from schemas.ids import Name


class EnrichmentEvent(JobEvent):
    """Payload of the event that ends an enrichment. Exactly one per (job, run, kind)."""

    kind: Name = Field(description="Kind of enrichment.")
    version: str | None = Field(None, description="Version of the template, prompt or program that created it.")
    ended_at: AwareDatetime | None = None


class EnrichmentRequested(Event):
    """Internal: create an enrichment of a completed run, or continue with it."""

    kind: Name


class EnrichmentFailed(EnrichmentEvent):
    """An enrichment has failed, with the reason. The run stays completed."""

    status: Literal["failed"] = "failed"
    code: str = Field("internal_error", description="Error code for programs, as in job.failed.")
    error: Reason
    attempts: int


class DocumentGenerated(EnrichmentEvent):
    """The transcript is available as a document for people."""

    status: Literal["done"] = "done"
    kind: Name = "document"
    document_uri: Uri
    content_type: str = "text/markdown; charset=utf-8"
    size_bytes: int
    sha256: str
