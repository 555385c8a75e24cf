"""Derived identifiers: the same cause always makes the same id, so that a replay repeats nothing."""

from __future__ import annotations

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


def event_id(cause: UUID, stage: str, index: int | str) -> UUID:
    """The id of the `index`-th event that `stage` produces when it handles `cause`."""
    return uuid5(cause, f"{stage}/{index}")


def ingress_id(tenant_id: str, source: str, ce_id: str) -> UUID:
    """The identity of a stranger's event: CloudEvents promises that source and id together are unique."""
    return uuid5(NAMESPACE, f"event\x1f{tenant_id}\x1f{source}\x1f{ce_id}")


def record_id(topic: str, partition: int, offset: int) -> UUID:
    """The identity of a record that names none itself: where it stands in the log."""
    return uuid5(NAMESPACE, f"record\x1f{topic}\x1f{partition}\x1f{offset}")


def job_id(tenant_id: str, event: UUID) -> str:
    """The job of an upload that did not bring an id."""
    return str(uuid5(event, f"job\x1f{tenant_id}"))
