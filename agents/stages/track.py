"""The newest state of every job, by version: what `job.status` says, kept in a table that anyone may look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from agents.runtime.stage import TableStage
from agents.stages.spec import StageSpec
from schemas import ids, topics
from schemas.envelope import Record, decode
from schemas.events.job import JobStatus

#: The Faust table's name; its rows are `JobStatus` as JSON objects, by `ids.job_key`. Rows that an earlier version
#: keyed by the job id alone are still in it, and found by nobody: no id contains a slash.
TABLE = "jobs"


def key_of(status: JobStatus) -> str:
    """The key of a job's row, and of its records on `job.status`."""
    return ids.job_key(status.tenant_id, status.job_id)


def newest(known: Callable[[str], dict[str, Any] | None], record: Record) -> JobStatus | None:
    """The status in the record if it is newer than what is known by its key, else None: versions only rise, whatever
    the order of arrival. What stands under another key than its own was written by an earlier version, or a stranger,
    and lies in a partition where nobody looks for it.

    Raises `MalformedEvent` for a record that is none.
    """
    status = cast("JobStatus", decode(record, {topics.STATUS.name: topics.STATUS}).data)
    key = key_of(status)
    if record.key != key.encode():
        return None
    row = known(key)
    return status if row is None or status.version > row["version"] else None


#: How the table is kept.
TABLE_STAGE = TableStage("track", topics.STATUS, TABLE, newest, key_of)

SPEC = StageSpec(name="track", inputs=(topics.STATUS,), table=TABLE_STAGE)
