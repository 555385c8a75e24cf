"""What is answered to a question about calls: passages, claims that cite them, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from schemas.search.chunks import Chunk, Utterance
from schemas.search.results import Searched


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier question of the conversation, and what was answered."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that the language model reads, widened by what was said before and after it."""

    #: From 1; what claims cite.
    number: int
    chunk: Chunk
    utterances: list[Utterance]


@dataclass(frozen=True, slots=True)
class Found:
    """What was found before anything is answered."""

    passages: list[Passage]
    searched: Searched
    #: Names the conversation: its next question may have it, and what it uses is found by it.
    conversation: UUID | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a claim's quotation stands."""

    number: int
    passage: Passage
    utterance: Utterance
    #: When the quotation's first word is said.
    start_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the answer. Without a citation it is unsupported: nothing that was quoted for it was said."""

    text: str
    quote: str
    citations: list[Citation] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an answer.

    "answered"; "not_in_these_calls": nothing that was said supports an answer; "passages_only": there is no language
    model, or it gave no answer.
    """

    result: Literal["answered", "not_in_these_calls", "passages_only"]
    model: str | None = None
    #: Why there are only passages.
    reason: str | None = None


#: A part of an answer, in their order: what was found, claims, the end.
AnswerPart = Found | Claim | Ended
