"""A report as PDF. The same report makes the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.platypus import SimpleDocTemplate

from agents.reports.blocks import Block
from agents.reports.content import Report, Turn
from agents.reports.fonts import Fonts
from agents.reports.typesetting import Span, Style, Text

_MARGIN: Final = 18 * mm

#: The width of the column of names, and of that of times.
_NAMES, _TIMES = 38 * mm, 16 * mm

_TITLE: Final = Style(size=20, bold=True)
_HEADING: Final = Style(size=13, bold=True, color="#174a7c")
_SUBHEADING: Final = Style(size=10.5, bold=True)
_TEXT: Final = Style()
_SPEAKER: Final = Style(bold=True, color="#174a7c")
_LINK: Final = Style(color="#174a7c")
_DISPUTED: Final = Style(background="#ffe9a8")
_FAINT: Final = Style(size=8.5, color="#5d6675")

_LEGEND: Final = "Words behind which there is a color are those of which the recognizers heard different things."
_EMPTY: Final = "No speech was heard."


def pdf(report: Report) -> bytes:
    """The report as a PDF of A4 pages."""
    content = io.BytesIO()
    document = SimpleDocTemplate(
        content,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=report.title,
        author="Concord",
        creator="Concord",
        lang=report.language or "en",
        invariant=1,
    )
    with closing(Fonts(report.model_dump_json(), report.language)) as fonts:
        _build(document, report, fonts)
    return content.getvalue()


def _build(document: SimpleDocTemplate, report: Report, fonts: Fonts) -> None:
    blocks = list(_blocks(report, fonts))
    # Lines are broken here, so that the characters that no font has are known before the last block is made.
    for block in blocks:
        block.wrap(A4[0] - 2 * _MARGIN - 12, 0)
    if fonts.missing:
        blocks.append(_block(_missing(fonts.missing), _FAINT, fonts))

    def footer(canvas: Any, _: Any) -> None:
        canvas.setFillColor(HexColor(_FAINT.color))
        canvas.setFont(fonts.latin().name, 8)
        canvas.drawRightString(A4[0] - _MARGIN, 10 * mm, str(canvas.getPageNumber()))

    document.build(blocks, onFirstPage=footer, onLaterPages=footer)


def _missing(characters: set[str]) -> str:
    names = ", ".join(f"U+{ord(one):04X}" for one in sorted(characters)[:20])
    return f"Characters that are in no font of this report, shown as \ufffd: {len(characters)} ({names})."


def _block(text: str, style: Style, fonts: Fonts, **more: Any) -> Block:
    return Block(Text([Span(text, style)], fonts), **more)


def _labelled(label: str, spans: list[Span], fonts: Fonts, indent: float, **more: Any) -> Block:
    return Block(Text(spans, fonts), Text([Span(label, _FAINT)], fonts), indent=indent, **more)


def _heading(text: str, fonts: Fonts) -> Block:
    return _block(text, _HEADING, fonts, before=12.0, after=5.0, keep=True, outline=text)


def _blocks(report: Report, fonts: Fonts) -> Iterator[Block]:
    yield _block(report.title, _TITLE, fonts, after=8.0)
    for fact in report.facts:
        yield _labelled(fact.name, [Span(fact.value)], fonts, _NAMES, after=1.5)
    if report.speakers:
        yield _heading("Speakers", fonts)
        for fact in report.speakers:
            yield _labelled(fact.name, [Span(fact.value)], fonts, _NAMES, after=1.5)
    yield from _summary(report, fonts)
    if report.verification is not None:
        yield _heading(report.verification.heading, fonts)
        for item in report.verification.items:
            yield _labelled(item.time, [Span(item.text)], fonts, _TIMES, after=3.0)
    if report.has_transcript:
        yield from _transcript(report, fonts)
    for note in report.notes:
        yield _block(note, _TEXT, fonts, before=3.0)


def _transcript(report: Report, fonts: Fonts) -> Iterator[Block]:
    yield _heading("Transcript", fonts)
    if not report.turns:
        yield _block(_EMPTY, _TEXT, fonts)
    elif any(disputed for turn in report.turns for _, disputed in turn.parts):
        yield _block(_LEGEND, _FAINT, fonts, after=6.0, keep=True)
    for turn in report.turns:
        yield _labelled(turn.time, list(_spoken(turn)), fonts, _TIMES, after=4.5)
    yield _heading("Quality", fonts)
    for fact in report.quality:
        yield _labelled(fact.name, [Span(fact.value)], fonts, _NAMES, after=1.5)


def _summary(report: Report, fonts: Fonts) -> Iterator[Block]:
    yield _heading("Summary", fonts)
    first, *others = report.about or ("",)
    yield _block(first, _TEXT, fonts, after=5.0)
    for section in report.sections:
        yield _block(section.heading, _SUBHEADING, fonts, before=6.0, after=3.0, keep=True)
        for item in section.items:
            doubt = [Span("  rests on disputed words", _FAINT)] if item.disputed else []
            spans = [Span(item.text, _LINK if item.link else _TEXT), *doubt]
            yield _labelled(item.time, spans, fonts, _TIMES, after=3.0, link=item.link)
    for sentence in others:
        yield _block(sentence, _FAINT, fonts, after=2.0)


def _spoken(turn: Turn) -> Iterator[Span]:
    if turn.speaker:
        yield Span(f"{turn.speaker}  ", _SPEAKER)
    for text, disputed in turn.parts:
        yield Span(text, _DISPUTED if disputed else _TEXT)
