"""The newest state of every job, by version: what `job.status` says, kept in a table that anyone may look into."""

from __future__ import annotations

from typing import Any, cast

from schemas import topics
from schemas.events import JobStatus
from schemas.messages import Record, decode

#: The Faust table's name; its rows are `JobStatus` as JSON objects, by job id.
TABLE = "jobs"


def newest(known: dict[str, Any] | None, record: Record) -> JobStatus | None:
    """The status in the record if it is newer than what is known, else None: versions only rise, whatever the order of
    arrival.

    Raises `MalformedEvent` for a record that is none.
    """
    status = cast("JobStatus", decode(record, {topics.STATUS.name: topics.STATUS}).data)
    return status if known is None or status.version > known["version"] else None
