"""The formats of a transcript, and which one a request asks for: by `format`, else by `Accept` (RFC 9110, 12.5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from aiohttp import web

from schemas.errors import InvalidInput

FormatName = Literal["json", "txt", "srt", "vtt", "md", "docx"]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of transcripts. `name` is also the suffix of its files."""

    name: FormatName
    media_type: str
    #: Its options that may be chosen; the others are as the format has them.
    options: frozenset[str]


_SPEAKERS, _ALL = frozenset({"speakers", "mark_disputed"}), frozenset({"speakers", "mark_disputed", "timestamps"})

#: By preference, where a request takes several.
FORMATS: Final = (
    Format("json", "application/json", frozenset()),
    Format("txt", "text/plain", _ALL),
    Format("md", "text/markdown", _SPEAKERS),
    Format("vtt", "text/vtt", _SPEAKERS),
    Format("srt", "application/x-subrip", _SPEAKERS),
    Format("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", _ALL),
)


@dataclass(frozen=True, slots=True)
class Options:
    """How a transcript is written. None: as the format does it by itself."""

    speakers: bool | None = None
    timestamps: bool | None = None
    mark_disputed: bool | None = None


def format_of(name: FormatName | None, accept: str, options: Options) -> Format:
    """The format that is asked for.

    Raises:
        HTTPNotAcceptable: `Accept` takes none of them.
        InvalidInput: it has no such option.
    """
    named = (format for format in FORMATS if format.name == name)
    chosen = next(named, None) or _accepted(accept)
    given = {option for option in ("speakers", "timestamps", "mark_disputed") if getattr(options, option) is not None}
    if refused := sorted(given - chosen.options):
        has = ", ".join(sorted(chosen.options)) or "none; what is disputed is behind `links.raw`"
        raise InvalidInput(f"the format {chosen.name} has no option {', '.join(refused)}; it has {has}")
    return chosen


def _accepted(accept: str) -> Format:
    qualities = [_quality(format.media_type, accept) for format in FORMATS]
    best = max(qualities)
    if best == 0:
        there_are = ", ".join(f"{format.media_type} ({format.name})" for format in FORMATS)
        raise web.HTTPNotAcceptable(text=f"`Accept` takes none of {there_are}; `?format=` chooses one, too")
    return FORMATS[qualities.index(best)]


def _quality(media_type: str, accept: str) -> float:
    """How much the type is wanted, 0 to 1: the most specific range that it is in counts."""
    if not accept.strip():
        return 1.0
    ranges = ("*/*", media_type.partition("/")[0] + "/*", media_type)
    found: dict[int, float] = {}
    for part in accept.split(",")[:100]:
        of, *parameters = (field.strip().lower() for field in part.split(";"))
        if of in ranges:
            found[ranges.index(of)] = _weight(parameters)
    return found[max(found)] if found else 0.0


def _weight(parameters: list[str]) -> float:
    text = next((parameter[2:].strip() for parameter in parameters if parameter.startswith("q=")), "1")
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 1.0
