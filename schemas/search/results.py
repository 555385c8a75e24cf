"""What a search answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from schemas.search.chunks import Chunk, Utterance

#: How passages are looked for: by both, unless asked otherwise.
Mode = Literal["hybrid", "text", "vectors"]


@dataclass(frozen=True, slots=True)
class OtherReading:
    """What else was heard at a disputed word, and is what was looked for."""

    #: None where the transcript has no word.
    word_id: str | None
    heard: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An utterance that matches, in its passage."""

    chunk: Chunk
    #: Its place among the passage's utterances.
    place: int
    score: float
    #: "text", "vectors".
    found_by: tuple[str, ...]
    #: From and to characters of its text that match.
    highlights: list[tuple[int, int]] = field(default_factory=list)
    readings: list[OtherReading] = field(default_factory=list)
    #: What was said before and after it.
    before: list[Utterance] = field(default_factory=list)
    after: list[Utterance] = field(default_factory=list)

    @property
    def utterance(self) -> Utterance:
        """The utterance."""
        return self.chunk.spoken[self.place]

    @property
    def start_ms(self) -> int | None:
        """When the first word that matches is said; the utterance, where it is found by its meaning alone."""
        said = self.utterance
        found = [said.moment(begin) for begin, _ in self.highlights[:1]]
        found += [said.moment_of(one.word_id) for one in self.readings if one.word_id is not None]
        return min((at for at in found if at is not None), default=said.start_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """How a search was made: never silently worse than it could have been."""

    by_text: bool
    by_vectors: bool
    #: The embedding model; None if no vectors were used.
    model: str | None = None
    #: Why no vectors were used, although they were asked for.
    reason: str | None = None
    #: Transcripts of which passages have no vector yet, at most 1000.
    waiting: int = 0
    #: Whether more passages have the words than were ranked.
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A page of hits."""

    hits: list[Hit]
    #: Where the next page begins; None on the last.
    following: int | None
    searched: Searched
