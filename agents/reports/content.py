"""What a report says, as plain values that can be sent to another process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from schemas.conversations.differences import Difference
from schemas.printable import printable
from schemas.rendering.markdown import clock
from schemas.rendering.segments import groups, span_ms
from schemas.summaries import Summary
from schemas.texts import joined, separator
from schemas.transcript_words import TranscriptWord

#: Words of a transcript that a report has at most: five hours of talk on 200 pages. A longer one says where it ends.
MAX_WORDS: Final = 50_000

#: Of the upload's metadata, how many values are shown, and how many characters of each name and value.
_VALUES, _VALUE_CHARS = 20, 200

#: Differences that a report shows at most.
_SHOWN: Final = 200

#: Characters of a title, a name or a note.
_TITLE_CHARS, _NOTE_CHARS = 200, 1000


class Fact(BaseModel):
    """A name and what it stands for."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: str


class Item(BaseModel):
    """A line of the summary, and when the words that it cites were said."""

    model_config = ConfigDict(frozen=True)

    time: str
    text: str
    #: Whether it rests on words of which the recognizers heard different things.
    disputed: bool = False
    #: Where it leads to, in reports over many calls.
    link: str | None = None


class Section(BaseModel):
    """A part of the summary."""

    model_config = ConfigDict(frozen=True)

    heading: str
    items: tuple[Item, ...]


class Turn(BaseModel):
    """What one speaker says: its time, and texts that are disputed or not."""

    model_config = ConfigDict(frozen=True)

    time: str
    speaker: str | None
    parts: tuple[tuple[str, bool], ...]


class Report(BaseModel):
    """A report."""

    model_config = ConfigDict(frozen=True)

    title: str
    #: BCP 47 tag.
    language: str | None
    facts: tuple[Fact, ...]
    speakers: tuple[Fact, ...]
    #: Sentences about the call, and where they come from.
    about: tuple[str, ...]
    sections: tuple[Section, ...]
    #: Of a conversation of a voice agent whose recording was heard by recognizers, too.
    verification: Section | None = None
    turns: tuple[Turn, ...]
    quality: tuple[Fact, ...]
    notes: tuple[str, ...]
    #: Whether it is on one call, and so has its transcript and quality.
    has_transcript: bool = True


def report(
    optimized: Mapping[str, Any],
    words: Sequence[TranscriptWord],
    summary: Summary | None,
    why_none: str,
    differences: Sequence[Difference] | None = None,
    call_began: datetime | None = None,
) -> Report:
    """The report on a transcript: `optimized` is the content of its `agent_optimized.json`, `words` are its words,
    `why_none` is said where there is no summary. `differences` are those of a voice agent's own transcript, where that
    was verified. `call_began` has a time zone; None if nobody knows it.
    """
    metadata = optimized["metadata"]
    shown, notes = words[:MAX_WORDS], [_text(note, _NOTE_CHARS) for note in metadata["reconciliation_notes"]]
    if len(shown) < len(words):
        notes.append(
            f"This report ends after {len(shown):,} of {len(words):,} words; the transcript itself has all of them."
        )
    names = {one.label: one.name for one in summary.participants if one.label} if summary else {}
    return Report(
        title=title(metadata),
        language=metadata["language"],
        facts=tuple(_facts(optimized, words, call_began)),
        speakers=tuple(_speakers(words, names)),
        about=tuple(_about(summary, why_none)),
        sections=tuple(_sections(summary)) if summary else (),
        verification=None if differences is None else _verification(differences),
        turns=tuple(_turns(shown, names)),
        quality=tuple(_quality(metadata, words)),
        notes=tuple(notes),
    )


def title(metadata: Mapping[str, Any]) -> str:
    """The title that the upload's metadata give the call, else the recording's name."""
    given = (metadata.get("custom") or {}).get("title")
    has_title = isinstance(given, str) and given.strip()
    return _text(given if has_title else PurePosixPath(metadata["filename"]).stem, _TITLE_CHARS)


def _text(value: object, limit: int | None = None) -> str:
    return printable(str(value), limit=limit)


def _facts(
    optimized: Mapping[str, Any], words: Sequence[TranscriptWord], call_began: datetime | None
) -> Iterator[Fact]:
    metadata = optimized["metadata"]
    known = {
        "Recording": metadata["filename"],
        "Reference": optimized["reference"],
        "Call began": call_began.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if call_began else None,
        "Length": clock(round(metadata["duration"] * 1000)),
        "Language": metadata["language"],
        "Words": f"{len(words):,}",
        "Transcript": f"version {metadata.get('version', 1)} of run {metadata['run']}",
        "Recognizers": ", ".join(metadata["recognizers"]),
    }
    custom = {name: value for name, value in (metadata.get("custom") or {}).items() if name not in {"title", *known}}
    values = [(name, value) for name, value in custom.items() if isinstance(value, str | int | float)]
    for name, value in (*known.items(), *values[:_VALUES]):
        if value not in (None, ""):
            yield Fact(name=_text(name[:_VALUE_CHARS]), value=_text(str(value)[:_VALUE_CHARS]))


def _speakers(words: Sequence[TranscriptWord], names: Mapping[str, str]) -> Iterator[Fact]:
    spoken = Counter(word.speaker for word in words if word.speaker is not None)
    first: dict[str, int | None] = {}
    for word in words:
        if word.speaker is not None:
            first.setdefault(word.speaker, word.start_ms)
    for speaker, count in spoken.most_common():
        value = f"{count / len(words):.0%} of the words, {count:,}; first at {clock(first[speaker])}"
        yield Fact(name=_speaker(speaker, names) or "", value=value)


def _speaker(label: str | None, names: Mapping[str, str]) -> str | None:
    """A speaker's label, with the name that the call gives it."""
    if label is None:
        return None
    name = names.get(label)
    return _text(f"{name} ({label})" if name and name != label else label, _TITLE_CHARS)


def _about(summary: Summary | None, why_none: str) -> Iterator[str]:
    if summary is None:
        yield why_none
        return
    if summary.topic:
        yield _text(summary.topic, _NOTE_CHARS)
    if summary.sentiment:
        yield f"Sentiment: {summary.sentiment}."
    if summary.coverage.words_read < summary.coverage.words:
        yield f"Made from {summary.coverage.words_read:,} of {summary.coverage.words:,} words."
    yield from (_text(note, _NOTE_CHARS) for note in summary.notes)
    made_by = f"{'A digest' if summary.kind == 'digest' else 'A summary'} by the template {summary.template}"
    dropped = f"; {summary.dropped} items were left out, because the call does not say what they cite"
    yield made_by + (f" and {summary.model}" if summary.model else "") + (dropped if summary.dropped else "") + "."


def _sections(summary: Summary) -> Iterator[Section]:
    actions = [
        (item, ": ".join(filter(None, (item.who, item.text))) + (f" ({item.when})" if item.when else ""))
        for item in summary.action_items
    ]
    parts: list[tuple[str, list[tuple[Any, str]]]] = [
        ("Key points", [(one, one.text) for one in summary.key_points]),
        ("Action items", actions),
        ("Decisions", [(one, one.text) for one in summary.decisions]),
        ("Open questions", [(one, one.text) for one in summary.open_questions]),
        ("Named in the call", [(one, f"{one.text} ({one.kind})") for one in summary.entities]),
    ]
    for heading, items in parts:
        if items:
            lines = [
                Item(time=clock(cited.start_ms), text=_text(text, _NOTE_CHARS), disputed=cited.disputed)
                for cited, text in items
            ]
            yield Section(heading=heading, items=tuple(lines))


def _verification(differences: Sequence[Difference]) -> Section:
    items = [Item(time=clock(one.start_ms), text=_text(_correction(one), _NOTE_CHARS)) for one in differences[:_SHOWN]]
    if not items:
        items.append(Item(time="", text="Nothing: the recognizers have heard the same words."))
    if len(differences) > _SHOWN:
        items.append(Item(time="", text=f"There are {len(differences) - _SHOWN:,} more, which are not shown."))
    return Section(heading="What the agent's transcript got wrong", items=tuple(items))


def _correction(one: Difference) -> str:
    sure = f"({one.probability:.0%} sure)"
    if not one.decided:
        return f"It has \u201c{one.written}\u201d, which nobody said {sure}."
    if not one.written:
        return f"It lacks \u201c{one.decided}\u201d {sure}."
    return f"It has \u201c{one.written}\u201d; what was said is \u201c{one.decided}\u201d {sure}."


def _turns(words: Sequence[TranscriptWord], names: Mapping[str, str]) -> Iterator[Turn]:
    before = None
    for group in groups(words):
        start_ms, _ = span_ms(group)
        speaker = _speaker(group[0].speaker, names)
        yield Turn(time=clock(start_ms), speaker=speaker if speaker != before else None, parts=tuple(_parts(group)))
        before = speaker


def _parts(words: Sequence[TranscriptWord]) -> Iterator[tuple[str, bool]]:
    before = ""
    for disputed, of_part in groupby(words, lambda word: word.disputed):
        texts = [word.text for word in of_part]
        if gap := separator(before, texts[0]):
            yield gap, False
        yield _text(joined(texts)), disputed
        before = texts[-1]


def _quality(metadata: Mapping[str, Any], words: Sequence[TranscriptWord]) -> Iterator[Fact]:
    quality = metadata["quality"]
    disputed = sum(word.disputed for word in words)
    if metadata["confidence"] is not None:
        yield Fact(name="Confidence", value=f"{metadata['confidence']:.1%}: the mean probability that a word is right")
    if quality.get("agreement") is not None:
        yield Fact(
            name="Agreement", value=f"{quality['agreement']:.1%} of the places are heard alike by all recognizers"
        )
    if words:
        yield Fact(name="Disputed words", value=f"{disputed:,} of {len(words):,}, {disputed / len(words):.1%}")
    if quality.get("expected_word_errors") is not None:
        yield Fact(name="Expected errors", value=f"{quality['expected_word_errors']:.1f} words")
    yield Fact(name="Decided by", value=_text(metadata["method"]))
