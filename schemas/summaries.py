"""Summaries of transcripts, whose every item cites the words on which it rests. The content of `summary.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.jobs.rows import OfRun

Sentiment = Literal["positive", "negative", "neutral", "mixed"]

EntityKind = Literal["person", "organisation", "product", "amount", "date", "id"]


class Cited(BaseModel):
    """What rests on a quotation of the transcript. Its word ids are those of the version that the summary names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: tuple[str, ...] = Field(min_length=1, description="Ids of the quoted words, in order.")
    quote: str = Field(description="What was said there.")
    speaker: str | None = Field(None, description="Who said it: the label of the first quoted word.")
    start_ms: int | None = Field(None, description="Where the quotation begins in the recording.")
    end_ms: int | None = Field(None, description="Where it ends.")
    disputed: bool = Field(False, description="Whether the recognizers did not agree on one of the quoted words.")


class Statement(Cited):
    """A key point, a decision or an open question."""

    text: str


class ActionItem(Cited):
    """What somebody is to do."""

    text: str
    who: str | None = Field(None, description="Who is to do it, as the call says.")
    when: str | None = Field(None, description="Until when, as the call says.")


class Participant(Cited):
    """Somebody who takes part in the call, and where the call says so."""

    name: str
    label: str | None = Field(None, description="The speaker's label in the transcript who bears this name, if known.")


class Entity(Cited):
    """Something that the call names, as it names it first."""

    kind: EntityKind
    text: str


class Coverage(BaseModel):
    """What of the transcript was read. Nothing is left out in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: int = Field(description="Words of the transcript.")
    words_read: int = Field(description="Words that were read.")
    parts: int = Field(description="Parts in which they were read; 1 for a call that fits into one question.")


class Summary(BaseModel):
    """A summary by a language model, or, without one, a digest: quotations from the transcript."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["summary", "digest"]
    template: str = Field(description="Name and version of the template, as `default/1`.")
    model: str | None = Field(None, description="Provider and model, as `openai/gpt-5`; null for a digest.")
    transcript_version: int = Field(description="Version of the transcript that it is made from.")
    topic: str | None = Field(None, description="What the call is about; null for a digest.")
    sentiment: Sentiment | None = Field(None, description="How the call goes; null for a digest.")
    key_points: tuple[Statement, ...] = ()
    action_items: tuple[ActionItem, ...] = ()
    decisions: tuple[Statement, ...] = ()
    open_questions: tuple[Statement, ...] = ()
    participants: tuple[Participant, ...] = ()
    entities: tuple[Entity, ...] = ()
    dropped: int = Field(
        0, description="Items that were left out: the transcript does not say what they cite, or too many."
    )
    coverage: Coverage
    notes: tuple[str, ...] = Field((), description="Sentences for readers on how it was made, and what limits it.")


ItemKind = Literal["action_item", "participant", "entity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryItem:
    """The database row of an item that is looked for over many calls."""

    tenant_id: str
    job_id: str
    run: int
    kind: ItemKind
    #: From 0, among those of its kind.
    number: int
    #: Version of the transcript that the summary is made from.
    transcript_version: int
    #: What is to be done; or a participant's or an entity's name.
    text: str
    #: By which it is found, folded: a name, or who is to do something (empty if nobody is named).
    lookup: str
    #: The kind of an entity, or the speaker's label of a participant.
    label: str | None = None
    who: str | None = None
    due: str | None = None
    quote: str
    words: list[Any] = field(default_factory=list)
    speaker: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    disputed: bool = False
    #: Time of the commit; set by the database.
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ItemsOfRun:
    """The items of a run's summary, which replace those of earlier ones."""

    tenant_id: str
    job_id: str
    run: int
    items: tuple[SummaryItem, ...]


def items_of(summary: Summary, job: OfRun) -> tuple[SummaryItem, ...]:
    """The rows of a summary."""

    def row(kind: ItemKind, number: int, item: Cited, **fields: Any) -> SummaryItem:
        common = item.model_dump(include={"quote", "speaker", "start_ms", "end_ms", "disputed"})
        return SummaryItem(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            run=job.run,
            kind=kind,
            number=number,
            transcript_version=summary.transcript_version,
            words=list(item.words),
            **common,
            **fields,
        )

    return (
        *(
            row("action_item", n, item, text=item.text, lookup=folded(item.who or ""), who=item.who, due=item.when)
            for n, item in enumerate(summary.action_items)
        ),
        *(
            row("participant", n, item, text=item.name, lookup=folded(item.name), label=item.label)
            for n, item in enumerate(summary.participants)
        ),
        *(
            row("entity", n, item, text=item.text, lookup=folded(item.text), label=item.kind)
            for n, item in enumerate(summary.entities)
        ),
    )


def folded(text: str) -> str:
    """A text by which items are found, in whatever case it was written, cut to what an index takes."""
    return " ".join(text.casefold().split())[:500]
