"""Base models of all events, and field types that clean or refuse their values."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from schemas import texts
from schemas.ids import Name, Reference

#: Unicode categories of characters that no URI may contain: controls, lone surrogates, line and paragraph separators.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})


def _plain_filename(name: str) -> str:
    """The last component of a path, without control characters. It is a label, never used as a path."""
    base = posixpath.basename(name.replace("\\", "/"))
    clean = "".join(c for c in base if c.isprintable())[:255]
    return clean if clean.strip(". ") else "audio"


def _no_controls(uri: str) -> str:
    if not uri.isprintable() and any(unicodedata.category(character) in _CONTROLS for character in uri):
        raise ValueError("must not contain control characters")
    return uri


def _readable(value: Any) -> Any:
    return texts.readable(value, texts.ERROR_CHARS) if isinstance(value, str) else value


def _moment(value: Any) -> Any:
    """Refuses numbers, which pydantic would take for seconds since 1970, or since 1970 in milliseconds."""
    if isinstance(value, datetime):
        return value
    try:
        if ":" in value:
            # As a time, not as its text: where types are strict, a text from a validator is no time.
            return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        pass
    raise ValueError("write a date and time with its offset from UTC, such as 2026-05-01T12:00:00Z")


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside of the calendar") from None


#: A date and time as RFC 3339 writes it, in UTC.
Moment = Annotated[AwareDatetime, BeforeValidator(_moment), AfterValidator(_in_utc)]

#: Maximum bytes of an upload's metadata as JSON with numbers written out; as many as fit into a record.
MAX_METADATA_BYTES = 900_000


def _storable(metadata: Any) -> Any:
    return texts.storable_json(metadata) if isinstance(metadata, dict) else metadata


def _small_enough(metadata: dict[str, Any]) -> dict[str, Any]:
    length = texts.written_bytes(metadata)
    if length > MAX_METADATA_BYTES:
        raise ValueError(f"has {length} bytes as JSON with numbers written out; at most {MAX_METADATA_BYTES} are kept")
    return metadata


_LANGUAGE = re.compile("auto|[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


def _language(text: str) -> str:
    """A BCP 47 tag; the POSIX form (`de_DE`) is accepted. Names of languages are refused, since most have several."""
    tag = text.strip().replace("_", "-") or "auto"
    if not _LANGUAGE.fullmatch(tag):
        raise ValueError('write "auto", or a BCP 47 tag such as "en", "de-DE" or "pt-BR"')
    return tag


Filename = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_plain_filename)]


#: A label or a message: cleaned and cut instead of refused, so that reporting a failure cannot fail.
Reason = Annotated[str, BeforeValidator(_readable)]


#: May contain spaces, as keys of S3 and names of files do, but not end with one.
Uri = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4096, pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://\S(.*\S)?$"),
    AfterValidator(_no_controls),
]


#: A producer's own data about a call. It must not prevent the transcription: values that no store accepts become text
#: (`texts.storable_json`). Its size leaves room for the other fields of an event that carries it.
Metadata = Annotated[dict[str, Any], BeforeValidator(_storable), Field(max_length=64), AfterValidator(_small_enough)]


#: An empty text is "auto".
Language = Annotated[
    str, AfterValidator(_language), Field(json_schema_extra={"pattern": f"^(?:{_LANGUAGE.pattern})?$"})
]


Share = Annotated[float, Field(ge=0, le=1)]


#: Maximum bytes of metadata, as JSON, that `persisted` repeats; an upload may have 900 kB of it.
MAX_EVENT_METADATA_BYTES: Final = 65_536


#: The number of a run, from 1; each reprocessing begins the next.
Run = Annotated[int, Field(ge=1, le=1_000_000)]


class Data(BaseModel):
    """Base of all event payloads. Unknown fields are ignored, so that producers may be newer than this version."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


class Event(Data):
    """Payload of an event that belongs to one run of one job."""

    tenant_id: Name
    job_id: Name
    run: Run = 1


class JobEvent(Event):
    """Payload of a public event: it carries the producer's own name for the job.

    Stages leave the reference out: `schemas.jobs.transitions.advance` sets it from the job's row.
    """

    reference: Reference | None = Field(None, description="Your own name for the job, if the upload has one.")
