"""Divides a Markdown document into chunks: by its headings, then at paragraphs, at ends of sentences, and at last at
words. Each chunk is a slice of the document.

A section of less than the least number of tokens is joined with what follows. One that is longer than a chunk is
divided, and each part repeats the end of the one before; nothing is repeated across a heading that begins a chunk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from agents.text.chunks.chunking import SIZES, ChunkSizes, sizes_of
from agents.text.chunks.tokens import tokens
from schemas.accounts.settings import AccountSettings
from schemas.texts import SENTENCE_ENDS

_HEADING: Final = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$", re.MULTILINE)
_FENCE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.MULTILINE)
_PARAGRAPHS: Final = re.compile(r"\n[ \t]*\n+")
_SENTENCES: Final = re.compile(f"[{re.escape(''.join(SENTENCE_ENDS))}][\"')\\]]*\\s*")

_SPACES: Final = re.compile(r"\s+")
_CHARACTERS: Final = re.compile(r"(?s)(?<=.)(?=.)")


@dataclass(frozen=True, slots=True)
class MarkdownChunk:
    """A slice of a document."""

    #: The headings under which it begins, the highest first.
    headings: tuple[str, ...]
    #: Its first character, and the one behind its last.
    start: int
    end: int
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class _Unit:
    """A part of a section that is not divided."""

    section: int
    headings: tuple[str, ...]
    start: int
    end: int
    tokens: int


def markdown_chunks(text: str, sizes: ChunkSizes = SIZES) -> list[MarkdownChunk]:
    """The chunks of a document, in order. Every character is in at least one."""
    units = list(_units(text, sizes.tokens))
    chunks: list[list[_Unit]] = []
    group: list[_Unit] = []
    for unit in units:
        length = sum(one.tokens for one in group)
        if group and group[-1].section != unit.section and length >= sizes.least:
            chunks.append(group)
            group = []
        elif group and length + unit.tokens > sizes.tokens:
            chunks.append(group)
            group = _repeated(group, unit, min(sizes.overlap, sizes.tokens - unit.tokens))
        group = [*group, unit]
    if group:
        chunks.append(group)
    return [_chunk(text, chunk) for chunk in _joined_end(chunks, sizes)]


def document_chunks(text: str, settings: AccountSettings) -> list[MarkdownChunk]:
    """The chunks of a document, as long as a tenant has set."""
    return markdown_chunks(text, sizes_of(settings))


def _joined_end(chunks: list[list[_Unit]], sizes: ChunkSizes) -> list[list[_Unit]]:
    """The last chunk, if it is too short for one of its own, is a part of the one before."""
    if len(chunks) < 2 or sum(one.tokens for one in chunks[-1]) >= sizes.least:
        return chunks
    whole = [*chunks[-2], *(one for one in chunks[-1] if one.start >= chunks[-2][-1].end)]
    return [*chunks[:-2], whole] if sum(one.tokens for one in whole) <= sizes.tokens else chunks


def _repeated(group: list[_Unit], following: _Unit, most: int) -> list[_Unit]:
    """The last units of a chunk that the next one repeats: of its section, and no more than so many tokens."""
    kept: list[_Unit] = []
    for unit in reversed(group[1:]):
        if unit.section != following.section or sum(one.tokens for one in kept) + unit.tokens > most:
            break
        kept.insert(0, unit)
    return kept


def _chunk(text: str, units: list[_Unit]) -> MarkdownChunk:
    start, end = units[0].start, units[-1].end
    return MarkdownChunk(units[0].headings, start, end, text[start:end], tokens(text[start:end]))


def _units(text: str, longest: int) -> Iterator[_Unit]:
    for section, (headings, start, end) in enumerate(_sections(text)):
        for begin, stop in _divided(text, start, end, longest):
            yield _Unit(section, headings, begin, stop, tokens(text[begin:stop]))


def _sections(text: str) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """The headings, the beginning and the end of each section; what stands before the first heading is one, too."""
    path: list[tuple[int, str]] = []
    begin = 0
    for heading in _headings(text):
        if heading.start() > begin:
            yield tuple(name for _, name in path), begin, heading.start()
        level = len(heading.group(1))
        path = [*((depth, name) for depth, name in path if depth < level), (level, (heading.group(2) or "").strip())]
        begin = heading.start()
    if begin < len(text):
        yield tuple(name for _, name in path), begin, len(text)


def _headings(text: str) -> Iterator[re.Match[str]]:
    """The headings that are not in a block of code."""
    blocks = list(_code(text))
    for heading in _HEADING.finditer(text):
        if not any(start <= heading.start() < end for start, end in blocks):
            yield heading


def _code(text: str) -> Iterator[tuple[int, int]]:
    """The blocks of code between fences; one without an end reaches to that of the document."""
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence.group(1)[0] == opened.group(1)[0] and len(fence.group(1)) >= len(opened.group(1)):
            yield opened.start(), fence.end()
            opened = None
    if opened is not None:
        yield opened.start(), len(text)


def _divided(text: str, start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """The sentences of a section; of one that is too long, parts at words, or at characters."""
    for paragraph in _cut(text, start, end, _PARAGRAPHS):
        for sentence in _cut(text, *paragraph, _SENTENCES):
            yield from _shortened(text, *sentence, longest, (_SPACES, _CHARACTERS))


def _shortened(
    text: str, start: int, end: int, longest: int, breaks: tuple[re.Pattern[str], ...]
) -> Iterator[tuple[int, int]]:
    if not breaks or tokens(text[start:end]) <= longest:
        yield start, end
        return
    for piece in _packed(text, _cut(text, start, end, breaks[0]), longest):
        yield from _shortened(text, *piece, longest, breaks[1:])


def _cut(text: str, start: int, end: int, where: re.Pattern[str]) -> list[tuple[int, int]]:
    """Cut behind each place; what divides two parts belongs to the first."""
    places = [match.end() for match in where.finditer(text, start, end) if start < match.end() < end]
    edges = [start, *places, end]
    return [(a, b) for a, b in pairwise(edges) if a < b]


def _packed(text: str, pieces: list[tuple[int, int]], longest: int) -> list[tuple[int, int]]:
    """As few parts as there can be of these pieces."""
    packed: list[tuple[int, int]] = []
    for start, end in pieces:
        if packed and tokens(text[packed[-1][0] : end]) <= longest:
            packed[-1] = (packed[-1][0], end)
        else:
            packed.append((start, end))
    return packed
