"""A transcript as a Markdown document: facts about the call, notes, and what was said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from schemas.printable import printable

#: Of the upload's metadata, the characters of a name or value and the number of values that are shown, at most.
_VALUE_CHARS, _VALUES = 200, 20

#: Characters that are markup in Markdown, or in HTML within it.
_MARKUP = re.compile(r"([\\`*_\[\]<>|~&]|^[#+-])")


def markdown(
    transcript: dict[str, Any], title: str | None = None, description: str | None = None, notes: Sequence[str] = ()
) -> str:
    """A transcript (the content of `agent_optimized.json`) as Markdown: facts about the call, notes, and each segment
    with its speaker and time. Markup in spoken words, in the upload and in what a model has written is escaped.

    The upload's own title is preferred to `title`.
    """
    metadata = transcript["metadata"]
    notes = [*metadata["reconciliation_notes"], *notes]
    lines = [f"# {_title(metadata, title)}", ""]
    lines += [_text(description), ""] if description else []
    lines += [*_facts(transcript), ""]
    if notes:
        lines += ["## Notes", "", *(f"- {_text(note)}" for note in notes), ""]
    lines += ["## Transcript", ""]
    for segment in transcript["transcript"]["segments"]:
        speaker = f"**{_text(segment['speaker'])}** " if segment["speaker"] else ""
        lines += [f"{speaker}`{clock(segment['start_ms'])}` {_text(segment['text'])}", ""]
    if not transcript["transcript"]["segments"]:
        lines += ["No speech was heard.", ""]
    return "\n".join(lines)


def _title(metadata: dict[str, Any], given: str | None) -> str:
    title = (metadata.get("custom") or {}).get("title")
    if isinstance(title, str) and title.strip():
        return _text(title)
    return _text(given or PurePosixPath(metadata["filename"]).stem)


def _facts(transcript: dict[str, Any]) -> list[str]:
    metadata = transcript["metadata"]
    confidence = metadata["confidence"]
    rows = {
        "Recording": metadata["filename"],
        "Reference": transcript["reference"],
        "Length": clock(round(metadata["duration"] * 1000)),
        "Language": metadata["language"],
        "Speakers": ", ".join(transcript["transcript"]["speakers"]),
        "Recognizers": ", ".join(metadata["recognizers"]),
        "Confidence": None if confidence is None else f"{confidence:.0%}",
    }
    custom = {name: value for name, value in (metadata.get("custom") or {}).items() if name not in {"title", *rows}}
    shown = [(name, value) for name, value in custom.items() if isinstance(value, str | int | float)]
    rows |= {name[:_VALUE_CHARS]: str(value)[:_VALUE_CHARS] for name, value in shown[:_VALUES]}
    return ["| | |", "| --- | --- |", *(f"| {_text(name)} | {_text(value)} |" for name, value in rows.items() if value)]


def _text(value: object) -> str:
    """The value as one line of text, escaped so that Markdown shows it unchanged."""
    return _MARKUP.sub(r"\\\1", printable(str(value)))


def clock(at_ms: int | None) -> str:
    """A time as people write it, such as 4:07 or 1:04:07."""
    if at_ms is None:
        return "-:--"
    minutes, seconds = divmod(at_ms // 1000, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
