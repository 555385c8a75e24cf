"""Derived identifiers: the same cause always makes the same id, so that a replay repeats nothing."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated
from uuid import UUID, uuid5

from pydantic import AfterValidator, Field, StringConstraints

#: Root of every derived id. Changing it would make every event in flight look new.
NAMESPACE = UUID("6f1f3c0e-5d0c-5a53-9d0e-c0c0bd1a7a11")

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:@-]{0,126}[A-Za-z0-9_-])?")


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError("use 1 to 128 letters, digits and . _ : @ - (starting with a letter or digit, without '..')")
    return name


#: A tenant, job, run or recognizer name that is safe in a path, a URL, a Kafka key and a log line.
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128),
    AfterValidator(_safe),
    Field(json_schema_extra={"pattern": f"^{_NAME.pattern}$"}),
]


def _printable(reference: str) -> str:
    if not reference.isprintable() or reference.isspace():
        raise ValueError("use 1 to 255 printable characters, spaces included, and not spaces alone")
    return reference


#: A producer's own name for a job, kept and compared exactly as it is sent: spaces, slashes and umlauts are fine, line
#: breaks and other control characters are not. It is never part of a path; unlike a `Name` it must be escaped in a URL.
Reference = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]

#: Names a job among all tenants': (tenant_id, job_id).
Key = tuple[str, str]


def job_key(tenant_id: str, job_id: str) -> str:
    """The same as one text: the key of `job.status` and of the table. No name contains the slash."""
    return f"{tenant_id}/{job_id}"


def canonical_uuid(text: str) -> str | None:
    """The UUID that is written here, in lower case with hyphens; None for any other text."""
    try:
        return str(UUID(text))
    except ValueError:
        return None


def event_id(cause: UUID, stage: str, index: int | str) -> UUID:
    """The id of the `index`-th event that `stage` produces when it handles `cause`."""
    return uuid5(cause, f"{stage}/{index}")


def terminal_id(tenant_id: str, job_id: str, run: int, topic: str) -> UUID:
    """The id of the event that ends a run. It names the run alone, so that it is the same if the run ends again, by
    whatever way, after a restore.
    """
    return uuid5(NAMESPACE, "\x1f".join([topic, tenant_id, job_id, str(run)]))


def ingress_id(tenant_id: str, source: str, ce_id: str, about: str = "") -> UUID:
    """The identity of a stranger's event. CloudEvents promises that source and id together are unique, and not every
    producer keeps that promise (one id for all its events, a counter without a source): what the event is `about`
    counts, too, so that another recording is another event.
    """
    parts = ["event", tenant_id, source, ce_id, *([about] if about else [])]
    return uuid5(NAMESPACE, "\x1f".join(parts))


def record_id(topic: str, partition: int, offset: int, timestamp_ms: int, value: bytes | None) -> UUID:
    """The identity of a record that names none itself: where it stands in the log, since when, and what it says.

    A place alone is not enough: a topic that is deleted and made again begins at offset 0 again. Its records differ
    from the earlier ones in their timestamp; where the producer sets that to a constant, in their value.
    """
    digest = hashlib.sha256(value or b"").hexdigest()
    return uuid5(NAMESPACE, f"record\x1f{topic}\x1f{partition}\x1f{offset}\x1f{timestamp_ms}\x1f{digest}")


def job_of_event(tenant_id: str, event: UUID) -> str:
    """The id of the job of an upload that brings no name."""
    return str(uuid5(event, f"job\x1f{tenant_id}"))


def job_of_reference(tenant_id: str, reference: str) -> str:
    """The id of the job of an upload that brings a reference and no id."""
    return str(uuid5(NAMESPACE, f"reference\x1f{tenant_id}\x1f{reference}"))
