"""Kafka records as text for a terminal, and as JSON; whatever they contain, it cannot move the cursor."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agents.commands.operations.dead_letters import job_id_of, job_key_of
from schemas.printable import LINE, printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.envelope import Record

#: Bytes of a value that are shown.
SHOWN_BYTES = 16_384

#: Levels of JSON that are indented: a document with more is shown as it was received.
DEEPEST = 40

#: Width of the column with the job's id: a UUID.
JOB_WIDTH = 36


def position_text(record: Record) -> str:
    """The record's position in its topic: OFFSET, or PARTITION/OFFSET outside of partition 0."""
    return f"{record.partition}/{record.offset}" if record.partition else str(record.offset)


def letter_rows(topic: str, letters: Sequence[Record]) -> list[str]:
    """A table of dead letters, one in a line, below two lines of headings."""
    heading = f"  {'offset':>8}  {'when':<19}  {'stage':<24} {'tries':>5}  {'job':<{JOB_WIDTH}}  reason"
    return [topic, heading, *map(_row, letters)]


def _row(letter: Record) -> str:
    stage, tries, job, reason = (
        printable(text or "", limit=limit)
        for text, limit in (
            (letter.header("dlq-stage"), 24),
            (letter.header("dlq-attempts"), 5),
            (job_id_of(letter), JOB_WIDTH),
            ((letter.header("dlq-reason") or "").replace("\n", " "), 200),
        )
    )
    return f"  {position_text(letter):>8}  {_time(letter):<19}  {stage:<24} {tries:>5}  {job:<{JOB_WIDTH}}  {reason}"


def letter_json(letter: Record, *, whole: bool = False) -> str:
    """A dead letter as a JSON object: in one line; or `whole`, indented, with key and value in base64."""
    document = _document(letter, whole=whole)
    return printable_json(json.dumps(document, indent=2 if whole else None, ensure_ascii=False))


def _document(letter: Record, *, whole: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "time": _time(letter),
        "tenant_id": (job_key_of(letter) or (None, None))[0],
        "job_id": job_id_of(letter) or None,
        "headers": {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in letter.headers},
    }
    if whole:
        document["key"] = None if letter.key is None else base64.b64encode(letter.key).decode()
        document["value"] = None if letter.value is None else base64.b64encode(letter.value).decode()
    return document


def letter_text(letter: Record) -> str:
    """A dead letter in full: its reason, headers, key and value."""
    rows = [
        f"{letter.topic} {position_text(letter)}  ({_time(letter)})",
        f"reason: {printable(letter.header('dlq-reason') or 'unknown')}",
        "",
    ]
    rows += [f"  {printable(name, limit=LINE)}: {bytes_text(value)}" for name, value in letter.headers]
    rows += ["", f"key: {bytes_text(letter.key)}", "value:", value_text(letter.value)]
    return "\n".join(rows)


def _time(record: Record) -> str:
    """The record's local time; in milliseconds if that is in no year: producers choose timestamps freely."""
    try:
        return f"{datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return f"{record.timestamp_ms} ms"


def bytes_text(data: bytes | None) -> str:
    """A header's value or a key, in one line."""
    return "none" if data is None else printable(data.decode("utf-8", "backslashreplace"), limit=LINE)


def value_text(value: bytes | None) -> str:
    """JSON indented, other text as it is, anything else in hex; at most `SHOWN_BYTES` of it."""
    if value is None:
        return "  none"
    text = _indented_json(value)
    if text is not None:
        return text if len(text) <= SHOWN_BYTES else f"{text[:SHOWN_BYTES]}\n... {len(value)} bytes in all"
    text, shown = _text(value[:SHOWN_BYTES]), SHOWN_BYTES
    if not text:
        shown = SHOWN_BYTES // 4
        text = _hex(value[:shown])
    return text if len(value) <= shown else f"{text}\n... {len(value)} bytes in all"


def _indented_json(value: bytes) -> str | None:
    """JSON with a line for each value; None for what is not JSON, or is nested too deeply for that."""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if _is_deeper(document, DEEPEST):
        return None
    return printable_json(json.dumps(document, indent=2, ensure_ascii=False))


def _is_deeper(document: Any, levels: int) -> bool:
    children = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return levels < 0 or any(_is_deeper(child, levels - 1) for child in children)


def _text(value: bytes) -> str | None:
    # The last bytes are ignored if they are an incomplete character: the value may have been cut there.
    text = value.decode("utf-8", "ignore")
    if len(text.encode()) <= len(value) - 4 or not all(c.isprintable() or c in "\r\n\t" for c in text):
        return None
    return printable(text.replace("\r\n", "\n"), lines=True)


def _hex(value: bytes) -> str:
    rows = (value[i : i + 16] for i in range(0, len(value), 16))
    return "\n".join(
        f"  {16 * i:06x}  {row.hex(' '):<47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in row)}"
        for i, row in enumerate(rows)
    )
