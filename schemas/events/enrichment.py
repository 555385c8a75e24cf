"""Events of enrichments, which are created from a transcript after its run has completed."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from schemas.events.base import Event, JobEvent, Reason, Uri
from schemas.events.transcript import TranscriptEdited
from schemas.ids import Name
from schemas.summaries import Sentiment


class EnrichmentEvent(JobEvent):
    """Payload of the event that ends an enrichment. Exactly one per (job, run, kind), version of the transcript and
    generation, except versions that were edited before their turn.
    """

    kind: Name = Field(description="Kind of enrichment.")
    version: str | None = Field(None, description="Version of the template, prompt or program that created it.")
    transcript_version: int = Field(1, description="Version of the transcript that it is made from.")
    generation: int = Field(1, description="How often it was begun of that version.")
    ended_at: AwareDatetime | None = None


class EnrichmentRequested(Event):
    """Internal: create an enrichment of a completed run, or continue with it."""

    kind: Name
    #: The version of the transcript for which it is requested.
    transcript_version: int = 1
    #: How often it was begun of that version.
    generation: int = 1


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
    template: str | None = Field(None, description="Name and version of the prompt; null without a language model.")
    model: str | None = Field(None, description="Provider and model that wrote title and description.")
    tokens: int = Field(0, description="Tokens that they cost.")


class SummaryGenerated(EnrichmentEvent):
    """The transcript has a summary, or a digest."""

    status: Literal["done"] = "done"
    kind: Name = "summary"
    summary_uri: Uri
    content_type: str = "application/json"
    size_bytes: int
    sha256: str
    form: Literal["summary", "digest"] = Field(description="`digest`: quotations, made without a language model.")
    template: str = Field(description="Name and version of the template.")
    model: str | None = Field(None, description="Provider and model.")
    sentiment: Sentiment | None = None
    dropped: int = Field(0, description="Items that were left out because the transcript does not say what they cite.")
    tokens: int = Field(0, description="Tokens that it cost.")


class TranscriptIndexed(EnrichmentEvent):
    """The transcript can be found by its words."""

    status: Literal["done"] = "done"
    kind: Name = "index"
    chunks: int = Field(description="Passages of the transcript that are searched.")
    tokens: int = Field(description="Their length, by the rule that `counted_by` names.")
    counted_by: str


class EmbeddingsGenerated(JobEvent):
    """The transcript can be found by its meaning: all of its passages have a vector of this model. Once for each
    version of the transcript and, after a change of the model, for each model.
    """

    kind: Name = "embeddings"
    transcript_version: int = Field(1, description="Version of the transcript.")
    model: str
    dimensions: int


class ReportGenerated(EnrichmentEvent):
    """The report is available: a PDF with the summary, the transcript and its quality."""

    status: Literal["done"] = "done"
    kind: Name = "report"
    report_uri: Uri
    content_type: str = "application/pdf"
    size_bytes: int
    sha256: str


class ReportDelivered(EnrichmentEvent):
    """The mail server has taken the report, for these many of its recipients."""

    status: Literal["done"] = "done"
    kind: Name = "mail"
    message_id: str = Field(description="The mail's Message-ID.")
    accepted: int = Field(description="Recipients for whom the server has taken the mail.")
    refused: int = Field(description="Recipients that it has refused for good.")


def requested_version(data: object) -> int:
    """The version of the transcript of which an event asks for enrichments: that of an edit or of another enrichment,
    or the run's own.
    """
    match data:
        case TranscriptEdited(version=version) | EnrichmentRequested(transcript_version=version):
            return version
        case EnrichmentEvent(transcript_version=version):
            return version
        case _:
            return 1


def requested_generation(data: object) -> int:
    """How often the enrichments that an event asks for were begun of that version: once, unless they are made again."""
    return data.generation if isinstance(data, EnrichmentRequested) else 1
