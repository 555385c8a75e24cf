"""What all events share: types of fields that are cleaned or refused, and the base models."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from schemas import texts
from schemas.ids import Name, Reference

#: Unicode's categories of what no URI may contain: controls, lone surrogates, line and paragraph separators.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})


def _plain_filename(name: str) -> str:
    """The last part of whatever path was sent, without control characters: a label, never a path."""
    base = posixpath.basename(name.replace("\\", "/"))
    clean = "".join(c for c in base if c.isprintable())[:255]
    return clean if clean.strip(". ") else "audio"


def _no_controls(uri: str) -> str:
    if not uri.isprintable() and any(unicodedata.category(character) in _CONTROLS for character in uri):
        raise ValueError("must not contain control characters")
    return uri


def _readable(value: Any) -> Any:
    return texts.readable(value, texts.ERROR_CHARS) if isinstance(value, str) else value


#: Bytes of an upload's metadata as JSON: whatever fits into a record, if its numbers do not grow when written out.
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
    """BCP 47, also as POSIX writes it (`de_DE`). A language's name is refused: there are several for most of them."""
    tag = text.strip().replace("_", "-") or "auto"
    if not _LANGUAGE.fullmatch(tag):
        raise ValueError('write "auto", or a BCP 47 tag such as "en", "de-DE" or "pt-BR"')
    return tag


Filename = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_plain_filename)]


#: A label or a message: cleaned and cut rather than refused, so that what says why something failed cannot itself fail.
Reason = Annotated[str, BeforeValidator(_readable)]


#: Spaces may be in it, as they are in keys of S3 and names of files, but not at its end.
Uri = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4096, pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://\S(.*\S)?$"),
    AfterValidator(_no_controls),
]


#: What a producer adds to a call for its own use. It must not keep the call from being transcribed: what no store takes
#: is kept as text (`texts.storable_json`). Its size leaves room for everything else in an event that carries it.
Metadata = Annotated[dict[str, Any], BeforeValidator(_storable), Field(max_length=64), AfterValidator(_small_enough)]


Language = Annotated[str, AfterValidator(_language), Field(json_schema_extra={"pattern": f"^{_LANGUAGE.pattern}$"})]


Share = Annotated[float, Field(ge=0, le=1)]


#: Bytes of metadata, as JSON, that `persisted` repeats at most: an upload may bring 900 kB of it.
MAX_EVENT_METADATA_BYTES: Final = 65_536


#: A run's number; every reprocessing makes the next.
Run = Annotated[int, Field(ge=1, le=1_000_000)]


class Data(BaseModel):
    """Base of every event's data. Fields we do not know are ignored, so that producers may be newer than we are."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


class Event(Data):
    """Data of an event that belongs to one run of one tenant's job."""

    tenant_id: Name
    job_id: Name
    run: Run = 1


class JobEvent(Event):
    """Data of an event that others may read: it carries the producer's own name for the job.

    Who makes one need not know the reference: `schemas.jobs.transitions.advance` puts it there from the job's row.
    """

    reference: Reference | None = Field(None, description="your own name for the job, if the upload brought one")
