"""The one flowable of reports: a paragraph beside a label, which may be split between pages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from reportlab.lib.colors import HexColor
from reportlab.platypus import Flowable

from agents.reports.typesetting import Glyph, Run, Text

#: Height of a line, as a multiple of the size of its largest text; and the part of it that is below the baseline.
_LEADING, _DESCENT = 1.42, 0.38


class Block(Flowable):  # type: ignore[misc]  # ReportLab publishes no annotations
    """A paragraph, with a label to its left, above which a page is broken rather than below it (`keep`)."""

    def __init__(
        self,
        body: Text,
        label: Text | None = None,
        *,
        indent: float = 0.0,
        before: float = 0.0,
        after: float = 4.0,
        keep: bool = False,
        outline: str | None = None,
        link: str | None = None,
    ) -> None:
        super().__init__()
        self._body, self._label, self._indent, self._outline, self._link = body, label, indent, outline, link
        self.spaceBefore, self.spaceAfter, self.keepWithNext = before, after, keep
        self._lines: list[list[Run]] | None = None
        self._label_lines: list[list[Run]] = []

    def wrap(self, width: float, _: float) -> tuple[float, float]:
        """The size that it takes."""
        self.width = width
        if self._lines is None:
            self._lines = self._body.lines(width - self._indent)
            self._label_lines = self._label.lines(self._indent - 6) if self._label else []
        self.height = max(_height(self._lines), _height(self._label_lines))
        return width, self.height

    def split(self, width: float, height: float) -> list[Block]:
        """Itself in two parts, of which the first has this height; none if that cannot be."""
        self.wrap(width, height)
        lines = self._lines or []
        fitting = sum(at <= height for at in accumulate(map(_line_height, lines)))
        if fitting < 2 or len(lines) - fitting < 2 or _height(self._label_lines) > height:
            return []
        first = self._part(lines[:fitting], self._label_lines, self._outline)
        return [first, self._part(lines[fitting:], [])]

    def _part(self, lines: list[list[Run]], label: list[list[Run]], outline: str | None = None) -> Block:
        part = Block(
            self._body, self._label, indent=self._indent, after=self.spaceAfter, outline=outline, link=self._link
        )
        part._lines, part._label_lines = lines, label
        return part

    def draw(self) -> None:
        """Draw it on `self.canv`, whose origin is its lower left corner."""
        if self._outline is not None:
            self.canv.bookmarkHorizontal(self._outline, 0, self.height)
            self.canv.addOutlineEntry(self._outline, self._outline, 0)
        if self._link is not None:
            self.canv.linkURL(self._link, (self._indent, 0, self.width, self.height), relative=1)
        self._draw(self._lines or [], self._indent, self.width - self._indent, rtl=self._body.rtl)
        self._draw(self._label_lines, 0.0, self._indent - 6, rtl=False)

    def _draw(self, lines: Sequence[Sequence[Run]], left: float, width: float, *, rtl: bool) -> None:
        top = self.height
        for line in lines:
            top -= _line_height(line)
            at = left + (width - sum(run.width for run in line) if rtl else 0.0)
            for run in line:
                _draw_run(self.canv, run, at, top)
                at += run.width


def _height(lines: Sequence[Sequence[Run]]) -> float:
    return sum(map(_line_height, lines))


def _line_height(line: Sequence[Run]) -> float:
    return max((run.style.size for run in line), default=10.0) * _LEADING


def _draw_run(canvas: Any, run: Run, x: float, bottom: float) -> None:
    size, baseline = run.style.size, bottom + run.style.size * _DESCENT
    if run.style.background is not None:
        canvas.setFillColor(HexColor(run.style.background))
        canvas.rect(x, bottom + size * 0.1, run.width, size * 1.22, stroke=0, fill=1)
    canvas.setFillColor(HexColor(run.style.color))
    canvas.setFont(run.font.name, size)
    is_plain = "".join(glyph.character for glyph in run.glyphs) == run.text
    if is_plain and not any(glyph.x or glyph.y for glyph in run.glyphs):
        canvas.drawString(x, baseline, run.text)
        return
    # What is copied from the document, and found in it, is the text and not its glyphs.
    actual = run.text.encode("utf-16-be").hex().upper()
    canvas.addLiteral(f"/Span <</ActualText <FEFF{actual}>>> BDC")
    _draw_glyphs(canvas, run.glyphs, size / 1000, x, baseline)
    canvas.addLiteral("EMC")


def _draw_glyphs(canvas: Any, glyphs: Sequence[Glyph], scale: float, x: float, baseline: float) -> None:
    for glyph in glyphs:
        canvas.drawString(x + glyph.x * scale, baseline + glyph.y * scale, glyph.character)
        x += glyph.advance * scale
