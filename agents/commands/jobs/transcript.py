"""A reconciled transcript for people: its words with the disputed ones marked, and what each recognizer heard there."""

from __future__ import annotations

import html
import re
import textwrap
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from agents.text.score import words
from schemas.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from schemas.words import Decision, Reconciliation

#: A pause, in ms, after which a new paragraph begins, and words after which one does at the next good place.
PAUSE_MS, MANY_WORDS = 1500, 80

#: Shown where recognizers heard a word and the decision was that none was said.
NOTHING = "–"  # noqa: RUF001 - an en dash, on purpose


@dataclass(frozen=True, slots=True)
class Span:
    """Some words in a row: all agreed upon, or all disputed."""

    text: str
    disputed: bool
    #: Probability of the least certain word in it.
    probability: float
    start_ms: int | None
    speaker: str | None
    #: What was heard, by whom, in a disputed span; the chosen reading first. An empty text: nothing.
    heard: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def chosen(self) -> str:
        """The words, or the sign for none."""
        return self.text or NOTHING


def spans(decided: Reconciliation) -> list[Span]:
    """The transcript as agreed and disputed spans; disputes that touch are one."""
    return [_span(group, decided.providers) for group in _groups(decided.decisions)]


def _groups(decisions: Sequence[Decision]) -> Iterator[list[Decision]]:
    group: list[Decision] = []
    for decision in decisions:
        if group and _parted(group[-1], decision):
            yield group
            group = []
        group.append(decision)
    if group:
        yield group


def _disputed(decision: Decision) -> bool:
    """Whether others heard something else, and it is more than a filler."""
    return bool(decision.others) and any(words(reading.text or "") for reading in (decision.chosen, *decision.others))


def _parted(last: Decision, following: Decision) -> bool:
    if _disputed(last) != _disputed(following) or last.speaker != following.speaker:
        return True
    ended, begun = last.chosen.end_ms, following.chosen.start_ms
    return ended is not None and begun is not None and begun - ended > PAUSE_MS


def _span(group: list[Decision], providers: Sequence[str]) -> Span:
    disputed = _disputed(group[0])
    return Span(
        text=_joined(decision.chosen.text for decision in group),
        disputed=disputed,
        probability=min(decision.chosen.probability for decision in group),
        start_ms=next((decision.chosen.start_ms for decision in group if decision.chosen.start_ms is not None), None),
        speaker=group[0].speaker and printable(group[0].speaker),
        heard=_heard(group, providers) if disputed else (),
    )


def _heard(group: list[Decision], providers: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Text to its recognizers, the chosen one's first. Who is named nowhere in it was not asked about it."""
    asked = {name for slot in group for reading in (slot.chosen, *slot.others) for name in reading.providers}
    chosen = _joined(decision.chosen.text for decision in group)
    said: dict[str, list[str]] = {chosen: []}
    for provider in [name for name in providers if name in asked]:
        said.setdefault(_joined(_heard_by(provider, decision) for decision in group), []).append(printable(provider))
    return tuple((text, tuple(who)) for text, who in said.items())


def _heard_by(provider: str, decision: Decision) -> str | None:
    """What a recognizer heard in a slot. One that is in no reading heard the chosen word, as part of another phrase."""
    return next((reading.text for reading in decision.others if provider in reading.providers), decision.chosen.text)


def _joined(words: Iterator[str | None]) -> str:
    """What recognizers wrote: safe for a terminal, and without the marks of `_paragraph`."""
    return " ".join(printable(word) for word in words if word)


def paragraphs(marked: Sequence[Span]) -> list[list[Span]]:
    """Spans in paragraphs: one for each turn of a speaker, each pause, and no longer than is read with ease."""
    found: list[list[Span]] = []
    length = 0
    for span in marked:
        if not found or _breaks(found[-1][-1], span, length):
            found.append([])
            length = 0
        found[-1].append(span)
        length += len(span.text.split())
    return found


def _breaks(last: Span, following: Span, length: int) -> bool:
    """Two agreed spans in a row have a pause between them."""
    if following.speaker != last.speaker or not (last.disputed or following.disputed):
        return True
    return length > MANY_WORDS * (1 if last.text.endswith((".", "?", "!")) else 2)


def plain(decided: Reconciliation, *, color: bool = False, width: int = 100) -> str:
    """The text with disputed words in [brackets] (or in colour), then one line for each dispute."""
    marked = spans(decided)
    body = "\n\n".join(_paragraph(paragraph, color=color, width=width) for paragraph in paragraphs(marked))
    disputes = [span for span in marked if span.disputed]
    if not disputes:
        return body or "(no speech was heard)"
    return f"{body}\n\n{_disputes(disputes, decided)}"


def _paragraph(paragraph: Sequence[Span], *, color: bool, width: int) -> str:
    who = f"{paragraph[0].speaker}: " if paragraph[0].speaker else ""
    # Brackets become colour after the text is wrapped, or the codes would count as its width.
    text = " ".join(f"\ue000{s.chosen}\ue001" if s.disputed else s.text for s in paragraph if s.text or s.disputed)
    wrapped = textwrap.fill(who + text, width, break_long_words=False, break_on_hyphens=False)
    opening, closing = ("\x1b[1;33m", "\x1b[0m") if color else ("[", "]")
    return wrapped.replace("\ue000", opening).replace("\ue001", closing)


def _disputes(disputes: Sequence[Span], decided: Reconciliation) -> str:
    places = "1 place" if len(disputes) == 1 else f"{len(disputes)} places"
    rows = [f"Disputed: {places} in {len(decided.words)} words (probability of the choice; who heard what)"]
    for span in disputes:
        readings = "  |  ".join(
            f"{text or NOTHING} ({', '.join(who) or 'pieced together'})" for text, who in span.heard
        )
        rows.append(f"  {clock(span.start_ms):>8}  {span.probability:4.0%}  {readings}")
    return "\n".join(rows)


def clock(ms: int | None) -> str:
    """A moment of the recording: 1:02:03.4."""
    if ms is None:
        return ""
    minutes, rest = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest / 1000:04.1f}"
    return f"{hours}:{minutes:02}:{tail}" if hours else f"{minutes}:{tail}"


def page(decided: Reconciliation, title: str) -> str:
    """One self-contained HTML page: disputed words are marked and say, on hover and on focus, who heard what."""
    body = "\n".join(_html_paragraph(paragraph) for paragraph in paragraphs(spans(decided)))
    template = files("agents.commands").joinpath("transcript.html").read_text()
    values = {
        "title": html.escape(title),
        "facts": html.escape(facts(decided)),
        "body": body or "<p>No speech was heard in this recording.</p>",
    }
    # In one pass: what people said may contain braces.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def facts(decided: Reconciliation) -> str:
    """One line on how good the transcript is thought to be."""
    quality = decided.quality
    parts = [f"{len(decided.words)} words", f"heard by {printable(', '.join(decided.providers))}"]
    if quality.confidence is not None:
        parts.append(f"mean probability {quality.confidence:.1%}")
    if quality.agreement is not None and len(decided.providers) > 1:
        parts.append(f"agreement {quality.agreement:.1%}")
        parts.append(f"{quality.disputed_spans_per_1000_words:.0f} disputes per 1000 words")
    parts.append(f"about {quality.expected_word_errors:.1f} word errors expected")
    return " · ".join(parts)


def _html_paragraph(paragraph: Sequence[Span]) -> str:
    who = f"<b>{html.escape(paragraph[0].speaker)}</b> " if paragraph[0].speaker else ""
    time = f"<time>{clock(paragraph[0].start_ms)}</time>" if paragraph[0].start_ms is not None else ""
    text = " ".join(_html_span(span) for span in paragraph if span.text or span.disputed)
    return f"<p>{time}{who}{text}</p>"


def _html_span(span: Span) -> str:
    if not span.disputed:
        return html.escape(span.text)
    readings = "".join(
        f"<span class=reading>{html.escape(text or NOTHING)} <i>{html.escape(', '.join(who))}</i></span>"
        for text, who in span.heard
    )
    # Three shades: what a reviewer should look at first is the darkest.
    shade = 1 if span.probability >= 0.8 else 2 if span.probability >= 0.5 else 3
    note = f"<span class=note role=tooltip><span class=sure>{span.probability:.0%} probable</span>{readings}</span>"
    return f"<mark class=p{shade} tabindex=0>{html.escape(span.chosen)}{note}</mark>"
