"""Breaks text into lines and sets them: fonts by character, forms by neighbours (HarfBuzz), directions by the Unicode
bidirectional algorithm (python-bidi).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby, pairwise
from typing import Any, Final

import uharfbuzz
from bidi import algorithm

from agents.reports.fonts import Font, Fonts

#: Characters between which a line may break without a space: those of scripts that have none.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
    "\U00020000-\U0003ffff"
)
#: Marks that do not begin a line.
_CLOSING: Final = "\u3001\u3002\u3009\u300b\u300d\u300f\u3011\u3015\uff01\uff09\uff0c\uff0e\uff1a\uff1b\uff1f\uff5d"

#: Spaces, a word, or a character of a script without spaces with what cannot be parted from it.
_TOKEN: Final = re.compile(rf"\s+|[{_UNSPACED}][{_CLOSING}]*|[^\s{_UNSPACED}]{{1,200}}")


@dataclass(frozen=True, slots=True)
class Style:
    """How a part of a text looks."""

    size: float = 10.0
    color: str = "#1c2330"
    bold: bool = False
    #: Color behind it.
    background: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text in one style."""

    text: str
    style: Style = Style()


@dataclass(frozen=True, slots=True)
class Glyph:
    """A glyph at its place in a run, in thousandths of the font's size."""

    character: str
    advance: float
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """A part of a line in one font, style and direction, in the order in which it is drawn."""

    font: Font
    style: Style
    text: str
    glyphs: tuple[Glyph, ...]

    @property
    def width(self) -> float:
        """Its width in points."""
        return sum(glyph.advance for glyph in self.glyphs) * self.style.size / 1000


@lru_cache(4096)
def _shaped(font: Font, text: str, *, rtl: bool) -> tuple[Glyph, ...]:
    if not (font.shaped or rtl or any(unicodedata.category(c).startswith("M") for c in text)):
        widths, default = font.reportlab.face.charWidths, font.reportlab.face.defaultWidth
        return tuple(Glyph(c, widths.get(ord(c), default)) for c in text)
    buffer = uharfbuzz.Buffer()
    buffer.cluster_level = uharfbuzz.BufferClusterLevel.MONOTONE_CHARACTERS
    buffer.add_str(text)
    buffer.guess_segment_properties()
    buffer.direction = "rtl" if rtl else "ltr"
    uharfbuzz.shape(font.harfbuzz, buffer)
    scale = 1000 / font.harfbuzz.face.upem
    meanings = _meanings([info.cluster for info in buffer.glyph_infos], text)
    return tuple(
        Glyph(
            font.character_of(info.codepoint, meant),
            position.x_advance * scale,
            position.x_offset * scale,
            position.y_offset * scale,
        )
        for info, position, meant in zip(buffer.glyph_infos, buffer.glyph_positions, meanings, strict=True)
    )


def _meanings(clusters: Sequence[int], text: str) -> list[str]:
    """The characters that each glyph stands for: those of its cluster, of which the first glyph stands for all."""
    ends = dict(pairwise([*sorted(set(clusters)), len(text)]))
    before, meanings = None, list[str]()
    for cluster in clusters:
        meanings.append("" if cluster == before else text[cluster : ends[cluster]])
        before = cluster
    return meanings


@dataclass
class Text:
    """A paragraph that can be broken into lines."""

    spans: Sequence[Span]
    fonts: Fonts

    @cached_property
    def text(self) -> str:
        """All of it."""
        return "".join(span.text for span in self.spans)

    @cached_property
    def _styles(self) -> list[Style]:
        return [span.style for span in self.spans for _ in span.text]

    @cached_property
    def rtl(self) -> bool:
        """Whether it begins at the right margin: its first letter is of a script that is written from there."""
        return bool(self._levels) and algorithm.get_base_level(self.text) == 1

    @cached_property
    def _levels(self) -> list[int]:
        """Each character's embedding level; empty if all are written from the left."""
        if not any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in self.text):
            return []
        base = algorithm.get_base_level(self.text)
        storage: dict[str, Any] = algorithm.get_empty_storage()
        storage |= {"base_level": base, "base_dir": ("L", "R")[base]}
        algorithm.get_embedding_levels(self.text, storage)
        algorithm.explicit_embed_and_overrides(storage)
        algorithm.resolve_weak_types(storage)
        algorithm.resolve_neutral_types(storage, debug=False)
        algorithm.resolve_implicit_levels(storage, debug=False)
        levels = [character["level"] for character in storage["chars"]]
        return levels if len(levels) == len(self.text) else [base] * len(self.text)

    def lines(self, width: float) -> list[list[Run]]:
        """The runs of each line, from left to right, of lines of at most this width."""
        return [list(self._line(start, end)) for start, end in self._breaks(width)]

    def _breaks(self, width: float) -> Iterator[tuple[int, int]]:
        """Where each line begins and ends, without the spaces around it."""
        start = end = 0
        used = 0.0
        for token in _TOKEN.finditer(self.text):
            begin, finish = token.span()
            if token.group().isspace():
                if end > start:
                    used += self._width(begin, finish)
                else:
                    start = end = finish
                continue
            needed = self._width(begin, finish)
            if end > start and used + needed > width:
                yield start, end
                start, used = begin, 0.0
            elif end == start:
                start = begin
            while needed > width and (cut := self._fitting(begin, finish, width)) < finish:
                yield begin, cut
                start = begin = cut
                used, needed = 0.0, self._width(begin, finish)
            end, used = finish, used + needed
        if end > start:
            yield start, end

    def _fitting(self, begin: int, end: int, width: float) -> int:
        """How far a word that is wider than a line fits into it: one cluster of characters at least."""
        low, high = begin + 1, end
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._width(begin, middle) <= width else (low, middle - 1)
        while low < end and unicodedata.category(self.text[low]).startswith("M"):
            low += 1
        return low

    def _width(self, start: int, end: int) -> float:
        return sum(run.width for run in self._runs(start, end))

    def _line(self, start: int, end: int) -> Iterator[Run]:
        runs = [(run, level) for run, level in self._leveled(start, end)]
        for level in range(max((level for _, level in runs), default=0), 0, -1):
            runs = _reversed_from(level, runs)
        return iter(run for run, _ in runs)

    def _leveled(self, start: int, end: int) -> Iterator[tuple[Run, int]]:
        at = start
        for run in self._runs(start, end):
            yield run, self._levels[at] if self._levels else 0
            at += len(run.text)

    def _runs(self, start: int, end: int) -> Iterator[Run]:
        """What is between two characters, in the order of the text, cut where font, style or direction change."""
        at = start
        while at < end:
            style, level = self._styles[at], self._levels[at] if self._levels else 0
            stop = at + 1
            while stop < end and self._styles[stop] == style and (not self._levels or self._levels[stop] == level):
                stop += 1
            for font, text in self.fonts.runs(self.text[at:stop], bold=style.bold):
                yield Run(font, style, text, _shaped(font, text, rtl=bool(level % 2)))
            at = stop


def _reversed_from(level: int, runs: list[tuple[Run, int]]) -> list[tuple[Run, int]]:
    """The runs with each sequence of this level or a higher one turned round (rule L2 of the algorithm)."""
    ordered: list[tuple[Run, int]] = []
    for is_turned, part in groupby(runs, lambda pair: pair[1] >= level):
        sequence = list(part)
        ordered += sequence[::-1] if is_turned else sequence
    return ordered
