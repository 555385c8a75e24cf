"""A transcript as a language model reads it: utterances with ids, in parts that fit into one question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agents.text.chunks.tokens import tokens
from schemas.rendering.segments import groups
from schemas.texts import joined
from schemas.transcript_words import TranscriptWord

#: Words of an utterance at most: without pauses and ends of sentences, a segment may have all words of a call.
MOST_WORDS: Final = 120

#: Tokens of JSON around each utterance's text.
AROUND: Final = 15

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Utterance:
    """Some words of one speaker, of about one sentence or more."""

    #: `s7`: unique within the transcript.
    id: str
    words: tuple[TranscriptWord, ...]

    @property
    def text(self) -> str:
        """What is said."""
        return joined(word.text for word in self.words)

    @property
    def speaker(self) -> str | None:
        """Who says it: a label."""
        return self.words[0].speaker

    @property
    def as_json(self) -> dict[str, Any]:
        """What a model sees of it."""
        return {"id": self.id, "speaker": self.speaker, "text": self.text}


def utterances(words: Sequence[TranscriptWord]) -> list[Utterance]:
    """All words, in order."""
    pieces = [
        group[start : start + MOST_WORDS] for group in groups(words) for start in range(0, len(group), MOST_WORDS)
    ]
    return [Utterance(f"s{number}", tuple(piece)) for number, piece in enumerate(pieces, 1)]


def parts(spoken: Sequence[Utterance], most_tokens: int) -> list[list[Utterance]]:
    """Consecutive utterances, of about so many tokens in a question at most; a longer one is a part of its own."""
    return list(packed(spoken, most_tokens, lambda utterance: tokens(utterance.text) + AROUND))


def packed(items: Sequence[T], most: int, size_of: Callable[[T], int], *, least: int = 1) -> Iterator[list[T]]:
    """Consecutive items in groups of at most the size `most`, but of at least `least` items while there are any."""
    group: list[T] = []
    size = 0
    for item in items:
        if len(group) >= least and size + size_of(item) > most:
            yield group
            group, size = [], 0
        group.append(item)
        size += size_of(item)
    if group:
        yield group
