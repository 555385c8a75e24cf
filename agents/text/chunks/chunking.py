"""Divides a transcript's words into chunks: at ends of sentences, and by turns where there are speakers.

Turns of less than the least number of tokens are joined with what follows, because one word alone finds nothing and
answers nothing. A turn, or a transcript without speakers, that is longer than a chunk is divided at ends of sentences,
and each part repeats the last words of the one before, so that no sentence is found by half of its context only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from agents.text.chunks.tokens import tokens
from schemas.accounts.settings import AccountSettings
from schemas.rendering.segments import Spoken, groups
from schemas.texts import SENTENCE_ENDS

#: The first and the last word of a part, the last not included.
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """Tokens of a chunk at most, those that a part of a long turn repeats, and the least of a chunk."""

    tokens: int = 500
    overlap: int = 50
    least: int = 100


SIZES: Final = ChunkSizes()


def sizes_of(settings: AccountSettings) -> ChunkSizes:
    """What a tenant has set; an overlap of more than half a chunk would only repeat it."""
    longest = settings.chunk_tokens or SIZES.tokens
    overlap = SIZES.overlap if settings.chunk_overlap is None else settings.chunk_overlap
    return ChunkSizes(longest, min(overlap, longest // 2), min(settings.chunk_least or SIZES.least, longest))


@dataclass(frozen=True, slots=True)
class _Unit:
    """A sentence, or a part of a long one."""

    begin: int
    end: int
    ends_turn: bool


def chunked(words: Sequence[Spoken], sizes: ChunkSizes = SIZES) -> list[Span]:
    """The chunks of these words, in order. All words are in at least one, and none is in more than two."""
    lengths = [tokens(f"{word.text} ") for word in words]
    by_turn = any(word.speaker is not None for word in words)
    spans: list[Span] = []
    begin = length = 0
    for unit in _units(words, lengths, sizes.tokens):
        added = sum(lengths[unit.begin : unit.end])
        if unit.begin > begin and length + added > sizes.tokens:
            spans.append((begin, unit.begin))
            begin = _overlapped(words, lengths, (begin, unit.begin), min(sizes.overlap, sizes.tokens - added))
            length = sum(lengths[begin : unit.begin])
        length += added
        if by_turn and unit.ends_turn and length >= sizes.least:
            spans.append((begin, unit.end))
            begin, length = unit.end, 0
    if begin < len(words):
        _end(spans, (begin, len(words)), lengths, sizes)
    return spans


def _end(spans: list[Span], last: Span, lengths: Sequence[int], sizes: ChunkSizes) -> None:
    """Add the rest; to the chunk before, if it is too short for one of its own."""
    if spans and sum(lengths[slice(*last)]) < sizes.least:
        whole = (spans[-1][0], last[1])
        if sum(lengths[slice(*whole)]) <= sizes.tokens:
            spans[-1] = whole
            return
    spans.append(last)


def _overlapped(words: Sequence[Spoken], lengths: Sequence[int], span: Span, overlap: int) -> int:
    """Where a chunk begins that repeats the end of the one before: at a sentence, if one begins there."""
    begin, length = span[1], 0
    while begin > span[0] + 1 and length + lengths[begin - 1] <= overlap:
        begin -= 1
        length += lengths[begin]
    ends = (n + 1 for n in range(begin, span[1] - 1) if words[n].text.endswith(SENTENCE_ENDS))
    return next(ends, begin)


def _units(words: Sequence[Spoken], lengths: Sequence[int], longest: int) -> Iterator[_Unit]:
    begin = 0
    for group in groups(words):
        end = begin + len(group)
        ends_turn = end == len(words) or words[end].speaker != words[end - 1].speaker
        start, length = begin, 0
        for n in range(begin, end):
            if n > start and length + lengths[n] > longest:
                yield _Unit(start, n, ends_turn=False)
                start, length = n, 0
            length += lengths[n]
            if n + 1 == end or words[n].text.endswith(SENTENCE_ENDS):
                yield _Unit(start, n + 1, ends_turn=ends_turn and n + 1 == end)
                start, length = n + 1, 0
        begin = end
