"""The port of searching: which passages of a tenant's transcripts match a question, by words and by meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from schemas.search.chunks import Chunk, ChunkKey, Generation
from schemas.summaries import Sentiment


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkFilter:
    """Which of a tenant's passages are searched. What is not set excludes none; all that is set holds."""

    #: Jobs created from the first moment to before the second.
    created_from: datetime | None = None
    created_to: datetime | None = None
    #: A job's id or its reference.
    job: str | None = None
    reference: str | None = None
    speaker: str | None = None
    recognizer: str | None = None
    #: Pairs of the upload's metadata, as in `sinks.ports.reads.JobFilter`.
    metadata: frozenset[tuple[str, str]] = frozenset()
    #: What the call's summary has: an entity, by `schemas.summaries.folded`; how the call goes.
    entity: str | None = None
    sentiment: Sentiment | None = None


#: Every passage.
EVERYWHERE = ChunkFilter()


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a question. A phrase's words follow on each other; a prefix is the beginning of a word."""

    text: str
    kind: Literal["word", "phrase", "prefix"] = "word"
    #: How much a passage with it is worth.
    weight: float = 1.0
    #: "must": only passages with it match; "not": only those without it.
    use: Literal["may", "must", "not"] = "may"


@dataclass(frozen=True, slots=True)
class Match:
    """A passage that matches."""

    key: ChunkKey
    #: Higher is better; of one question, and one kind of search.
    score: float


@dataclass(frozen=True, slots=True)
class TextMatches:
    """Passages that match by their words, best first."""

    matches: list[Match] = field(default_factory=list)
    #: Whether more passages matched than are ranked, so that some of the best may be missing.
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class IndexState:
    """What can be searched for a tenant."""

    #: Whether the database has vectors at all.
    has_vectors: bool = False
    #: The generation of vectors that serves; None if there is none.
    serving: Generation | None = None
    #: Runs of the tenant of which passages wait for their vector, at most 1000.
    waiting: int = 0


class SearchIndex(Protocol):
    """Questions of one tenant, to which nothing of another exists.

    Raises:
        Unavailable: the database cannot be reached, or the search took too long.
        InvalidInput: the text cannot be a tenant's name.
    """

    async def index_state(self, tenant: str) -> IndexState:
        """What can be searched."""

    async def matching_words(
        self, tenant: str, terms: Sequence[Term], which: ChunkFilter = EVERYWHERE, *, limit: int
    ) -> TextMatches:
        """The best passages by words: any of those that may be there, all that must, none that must not. Both readings
        of a disputed word count, the chosen one for more.
        """

    async def nearest(
        self,
        tenant: str,
        generation: Generation,
        vector: Sequence[float],
        which: ChunkFilter = EVERYWHERE,
        *,
        limit: int,
    ) -> list[Match]:
        """The passages whose vectors are nearest, with the cosine as the score."""

    async def chunks(self, tenant: str, keys: Sequence[ChunkKey]) -> dict[ChunkKey, Chunk]:
        """Passages by their keys; those that there are not (any more) are left out."""

    async def marked(
        self, tenant: str, terms: Sequence[Term], texts: Sequence[tuple[str, str]]
    ) -> list[list[tuple[int, int]]]:
        """Where each of these texts, (dictionary, text), has one of the terms: from and to characters, in order."""
