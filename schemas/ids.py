"""Deterministic identifiers: the same cause always yields the same id, so that a replay creates no duplicates."""

from __future__ import annotations

import hashlib
import re
from enum import Enum
from typing import Annotated, Final, Literal
from uuid import UUID, uuid5

from pydantic import AfterValidator, Field, StringConstraints

#: Namespace of every derived id. If it changes, every event in flight looks new.
NAMESPACE = UUID("6f1f3c0e-5d0c-5a53-9d0e-c0c0bd1a7a11")

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:@-]{0,126}[A-Za-z0-9_-])?")

_CANONICAL = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError("use 1 to 128 letters, digits and . _ : @ - (starting with a letter or digit, without '..')")
    return name


#: The name of a tenant, job or recognizer: safe in a path, a URL, a Kafka key and a log line.
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


#: A producer's own name for a job, stored and compared exactly as it is sent: spaces, slashes and umlauts are valid,
#: line breaks and other control characters are not. It is never part of a path; in a URL it must be escaped.
Reference = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]

#: Identifies a job among those of all tenants: (tenant_id, job_id).
Key = tuple[str, str]


class EveryTenant(Enum):
    """Its one member stands for all tenants, where an operator asks."""

    EVERY_TENANT = "*"


EVERY_TENANT: Final = EveryTenant.EVERY_TENANT

#: The tenant whose rows a question is about, by name, or every tenant.
Whose = str | Literal[EveryTenant.EVERY_TENANT]


def job_key(tenant_id: str, job_id: str) -> str:
    """A `Key` as text: the key of `job.status` and of the table. It is unambiguous, since no name contains a slash."""
    return f"{tenant_id}/{job_id}"


def task_key(kind: str, tenant_id: str, job_id: str, run: int, *of: str | int) -> str:
    """The key of a leased task of a run, such as `transcribe` or an enrichment's kind; `of`: the recognizer, say.

    The sweeper finds by it that a task runs (`sinks/postgres/sql/stuck_jobs.sql` composes it, too).
    """
    return "/".join([kind, tenant_id, job_id, *map(str, (run, *of))])


def canonical_uuid(text: str) -> str | None:
    """The UUID in lower case with hyphens; None for any other text."""
    if _CANONICAL.fullmatch(text):
        return text  # as almost every request names its job
    try:
        return str(UUID(text))
    except ValueError:
        return None


def event_id(cause: UUID, stage: str, index: int | str) -> UUID:
    """The id of the event `index` that `stage` produces when it handles `cause`."""
    return uuid5(cause, f"{stage}/{index}")


def terminal_id(tenant_id: str, job_id: str, run: int, topic: str) -> UUID:
    """The id of the event that ends a run. It depends on the run alone, so that it is the same if the run ends again
    after a restore, even by another path.
    """
    return uuid5(NAMESPACE, "\x1f".join([topic, tenant_id, job_id, str(run)]))


def ingress_id(tenant_id: str, source: str, ce_id: str, about: str = "") -> UUID:
    """The identity of an external producer's event. CloudEvents requires that source and id together are unique, but
    some producers use one id for all events, or a counter without a source. The subject, `about`, is therefore a part
    of it, so that another recording is another event.
    """
    parts = ["event", tenant_id, source, ce_id, *([about] if about else [])]
    return uuid5(NAMESPACE, "\x1f".join(parts))


def record_id(topic: str, partition: int, offset: int, timestamp_ms: int, value: bytes | None) -> UUID:
    """The identity of a record without a `ce_id`: its position, timestamp and value.

    A position alone is not enough: a topic that is deleted and created again starts at offset 0 again. Its records
    differ from the earlier ones in their timestamp or, where the producer sets a constant timestamp, in their value.
    """
    digest = hashlib.sha256(value or b"").hexdigest()
    return uuid5(NAMESPACE, f"record\x1f{topic}\x1f{partition}\x1f{offset}\x1f{timestamp_ms}\x1f{digest}")


def job_of_event(tenant_id: str, event: UUID) -> str:
    """The job id of an upload that has neither id nor reference."""
    return str(uuid5(event, f"job\x1f{tenant_id}"))


def job_of_reference(tenant_id: str, reference: str) -> str:
    """The job id of an upload that has a reference and no id."""
    return str(uuid5(NAMESPACE, f"reference\x1f{tenant_id}\x1f{reference}"))
