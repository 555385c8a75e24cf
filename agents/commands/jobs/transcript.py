"""A reconciled transcript as text and as HTML: disputed words are marked, with the reading of each recognizer."""

from __future__ import annotations

import html
import re
import textwrap
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING

from agents.text.score import words
from schemas.printable import printable
from schemas.texts import SENTENCE_ENDS, joined, separator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from schemas.words import Decision, Reconciliation

#: A pause, in ms, after which a paragraph begins; and words after which one begins at the next end of a sentence.
PAUSE_MS, MANY_WORDS = 1500, 80

#: Shown where recognizers returned a word and the decision is that there is none.
NOTHING = "–"  # noqa: RUF001 - an en dash, on purpose


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive words that are all agreed, or all disputed."""

    text: str
    disputed: bool
    #: Probability of the least certain word in it, 0 to 1.
    probability: float
    start_ms: int | None
    speaker: str | None
    #: The readings of a disputed span, each with its recognizers; the chosen one first. An empty text: no word.
    readings: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def chosen(self) -> str:
        """The words, or `NOTHING`."""
        return self.text or NOTHING


def spans(result: Reconciliation) -> list[Span]:
    """The transcript as agreed and disputed spans; adjacent disputes are one span."""
    return [_span(group, result.providers) for group in _groups(result.decisions)]


def _groups(decisions: Sequence[Decision]) -> Iterator[list[Decision]]:
    group: list[Decision] = []
    for decision in decisions:
        if group and _is_boundary(group[-1], decision):
            yield group
            group = []
        group.append(decision)
    if group:
        yield group


def _disputed(decision: Decision) -> bool:
    """Whether there are other readings, and one of them is more than a filler word."""
    return bool(decision.others) and any(words(reading.text or "") for reading in (decision.chosen, *decision.others))


def _is_boundary(last: Decision, following: Decision) -> bool:
    if _disputed(last) != _disputed(following) or last.speaker != following.speaker:
        return True
    end, start = last.chosen.end_ms, following.chosen.start_ms
    return end is not None and start is not None and start - end > PAUSE_MS


def _span(group: list[Decision], providers: Sequence[str]) -> Span:
    disputed = _disputed(group[0])
    return Span(
        text=_joined(decision.chosen.text for decision in group),
        disputed=disputed,
        probability=min(decision.chosen.probability for decision in group),
        start_ms=next((decision.chosen.start_ms for decision in group if decision.chosen.start_ms is not None), None),
        speaker=group[0].speaker and printable(group[0].speaker),
        readings=_readings(group, providers) if disputed else (),
    )


def _readings(group: list[Decision], providers: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each reading with its recognizers, the chosen one first. A recognizer that is in no reading of the group, a
    tiebreaker say, was not asked about it.
    """
    asked = {name for slot in group for reading in (slot.chosen, *slot.others) for name in reading.providers}
    chosen = _joined(decision.chosen.text for decision in group)
    readings: dict[str, list[str]] = {chosen: []}
    for provider in [name for name in providers if name in asked]:
        text = _joined(_reading_of(provider, decision) for decision in group)
        readings.setdefault(text, []).append(printable(provider))
    return tuple((text, tuple(names)) for text, names in readings.items())


def _reading_of(provider: str, decision: Decision) -> str | None:
    """A recognizer's reading in a slot. If it is in none, it has the chosen word as part of another phrase."""
    return next((reading.text for reading in decision.others if provider in reading.providers), decision.chosen.text)


def _joined(words: Iterator[str | None]) -> str:
    """The words as one text, safe for a terminal and without the marks of `_paragraph`."""
    return joined(printable(word) for word in words if word)


def paragraphs(marked: Sequence[Span]) -> list[list[Span]]:
    """Spans in paragraphs: a new one with each speaker, after each pause, and after about `MANY_WORDS`."""
    groups: list[list[Span]] = []
    length = 0
    for span in marked:
        if not groups or _breaks(groups[-1][-1], span, length):
            groups.append([])
            length = 0
        groups[-1].append(span)
        length += len(span.text.split())
    return groups


def _breaks(last: Span, following: Span, length: int) -> bool:
    # Two agreed spans in a row have a pause between them.
    if following.speaker != last.speaker or not (last.disputed or following.disputed):
        return True
    return length > MANY_WORDS * (1 if last.text.endswith(SENTENCE_ENDS) else 2)


def plain(result: Reconciliation, *, color: bool = False, width: int = 100) -> str:
    """The text with disputed words in [brackets] (or in colour), then one line for each dispute."""
    marked = spans(result)
    body = "\n\n".join(_paragraph(paragraph, color=color, width=width) for paragraph in paragraphs(marked))
    disputes = [span for span in marked if span.disputed]
    if not disputes:
        return body or "(no speech was heard)"
    return f"{body}\n\n{_disputes(disputes, result)}"


def _paragraph(paragraph: Sequence[Span], *, color: bool, width: int) -> str:
    speaker = f"{paragraph[0].speaker}: " if paragraph[0].speaker else ""
    # Brackets or colour codes replace the marks after the text is wrapped, or the codes would count as its width.
    text = _line(paragraph, lambda span: f"\ue000{span.chosen}\ue001" if span.disputed else span.text)
    wrapped = textwrap.fill(speaker + text, width, break_long_words=False, break_on_hyphens=False)
    opening, closing = ("\x1b[1;33m", "\x1b[0m") if color else ("[", "]")
    return wrapped.replace("\ue000", opening).replace("\ue001", closing)


def _line(paragraph: Sequence[Span], shown: Callable[[Span], str]) -> str:
    """The spans as they are shown, with spaces between them where their words have some."""
    spans = [span for span in paragraph if span.text or span.disputed]
    separators = ("", *(separator(before.chosen, span.chosen) for before, span in pairwise(spans)))
    return "".join(f"{gap}{shown(span)}" for gap, span in zip(separators, spans, strict=False))


def _disputes(disputes: Sequence[Span], result: Reconciliation) -> str:
    places = "1 place" if len(disputes) == 1 else f"{len(disputes)} places"
    rows = [f"Disputed: {places} in {len(result.words)} words (probability of the choice; who heard what)"]
    for span in disputes:
        readings = "  |  ".join(
            f"{text or NOTHING} ({', '.join(names) or 'pieced together'})" for text, names in span.readings
        )
        rows.append(f"  {clock(span.start_ms):>8}  {span.probability:4.0%}  {readings}")
    return "\n".join(rows)


def clock(ms: int | None) -> str:
    """A time within the recording: 1:02:03.4; empty for None."""
    if ms is None:
        return ""
    minutes, rest = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest / 1000:04.1f}"
    return f"{hours}:{minutes:02}:{tail}" if hours else f"{minutes}:{tail}"


def page(result: Reconciliation, title: str) -> str:
    """One self-contained HTML page: disputed words are marked, and show their readings on hover and on focus."""
    body = "\n".join(_html_paragraph(paragraph) for paragraph in paragraphs(spans(result)))
    template = files("agents.commands").joinpath("transcript.html").read_text()
    values = {
        "title": html.escape(title),
        "facts": html.escape(facts(result)),
        "body": body or "<p>No speech was heard in this recording.</p>",
    }
    # In one pass: the transcript may contain braces.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def facts(result: Reconciliation) -> str:
    """One line with the transcript's length, recognizers and estimated quality."""
    quality = result.quality
    parts = [f"{len(result.words)} words", f"heard by {printable(', '.join(result.providers))}"]
    if quality.confidence is not None:
        parts.append(f"mean probability {quality.confidence:.1%}")
    if quality.agreement is not None and len(result.providers) > 1:
        parts.append(f"agreement {quality.agreement:.1%}")
        parts.append(f"{quality.disputed_spans_per_1000_words:.0f} disputes per 1000 words")
    parts.append(f"about {quality.expected_word_errors:.1f} word errors expected")
    return " · ".join(parts)


def _html_paragraph(paragraph: Sequence[Span]) -> str:
    # The direction of the paragraph is that of its words, not of the speaker's label, which `bdi` leaves out.
    speaker = f"<bdi><b>{html.escape(paragraph[0].speaker)}</b></bdi> " if paragraph[0].speaker else ""
    time = f"<time>{clock(paragraph[0].start_ms)}</time>" if paragraph[0].start_ms is not None else ""
    return f"<p dir=auto>{time}{speaker}{_line(paragraph, _html_span)}</p>"


def _html_span(span: Span) -> str:
    if not span.disputed:
        return html.escape(span.text)
    readings = "".join(
        f"<span class=reading><bdi>{html.escape(text or NOTHING)}</bdi> <i>{html.escape(', '.join(names))}</i></span>"
        for text, names in span.readings
    )
    # Three shades: the least certain words, which a reviewer should check first, are the darkest.
    shade = 1 if span.probability >= 0.8 else 2 if span.probability >= 0.5 else 3
    sure = f"<span class=sure>{span.probability:.0%} probable</span>"
    note = f"<span class=note role=tooltip dir=ltr>{sure}{readings}</span>"
    return f"<mark class=p{shade} tabindex=0>{html.escape(span.chosen)}{note}</mark>"
