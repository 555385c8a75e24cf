"""Keeps the newest status of every job (the topic `job.status`) in a Faust table, from which HTTP answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from agents.runtime.stage import TableStage
from agents.stages.spec import StageSpec
from schemas import ids, topics
from schemas.envelope import Record, decode
from schemas.events.job import JobStatus

#: The Faust table's name. Its rows are `JobStatus` as JSON objects, by `ids.job_key`. It may contain rows of an earlier
#: version, by the job id alone. They do not match any key, because a key contains a slash and a job id does not.
TABLE = "jobs"


def key_of(status: JobStatus) -> str:
    """The key of the job's row, and of its records on `job.status`."""
    return ids.job_key(status.tenant_id, status.job_id)


def newest(row_of: Callable[[str], dict[str, Any] | None], record: Record) -> JobStatus | None:
    """The status in the record if its version is higher than that of the row (`row_of` finds rows by key), else None.
    So versions only rise, whatever the order of arrival.

    A record whose key is not that of its job is ignored: an earlier version or another producer has written it, perhaps
    to a partition in which the job is not looked up.

    Raises:
        MalformedEvent: The record is not a job's status.
    """
    status = cast("JobStatus", decode(record, {topics.STATUS.name: topics.STATUS}).data)
    key = key_of(status)
    if record.key != key.encode():
        return None
    row = row_of(key)
    return status if row is None or status.version > row["version"] else None


#: The stage that keeps the table.
TABLE_STAGE = TableStage("track", topics.STATUS, TABLE, newest, key_of)

SPEC = StageSpec(name="track", inputs=(topics.STATUS,), table=TABLE_STAGE)
