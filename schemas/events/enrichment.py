"""What is made of a transcript after its run has completed: documents, and why one could not be made."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from schemas.events.base import Event, JobEvent, Reason, Uri
from schemas.ids import Name


class EnrichmentEvent(JobEvent):
    """Data of the event that ends one kind of enrichment. Once per (job, run, kind)."""

    kind: Name = Field(description="what was made, or was to be made, of the transcript")
    version: str | None = Field(None, description="of what made it: a template, a prompt, a program")
    ended_at: AwareDatetime | None = None


class EnrichmentRequested(Event):
    """Internal: make an enrichment of a completed run, or go on with it."""

    kind: Name


class EnrichmentFailed(EnrichmentEvent):
    """An enrichment could not be made, and why. The run stays completed."""

    status: Literal["failed"] = "failed"
    code: str = Field("internal_error", description="for programs, as in job.failed")
    error: Reason
    attempts: int


class DocumentGenerated(EnrichmentEvent):
    """The transcript is there as a document for people."""

    status: Literal["done"] = "done"
    kind: Name = "document"
    document_uri: Uri
    content_type: str = "text/markdown; charset=utf-8"
    size_bytes: int
    sha256: str
