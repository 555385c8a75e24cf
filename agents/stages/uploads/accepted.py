"""When a producer's event was accepted, and so whether it is about a job that was deleted since."""

from __future__ import annotations

import contextlib
from datetime import datetime

from schemas import topics
from schemas.envelope import SOURCE, Record
from schemas.jobs.deletion import Deletion


def is_of_deleted(record: Record, deletion: Deletion | None) -> bool:
    """Whether the event was accepted before the job that it names was deleted: then it is about that one."""
    return deletion is not None and _accepted_ms(record) < deletion.requested_at.timestamp() * 1000


def _accepted_ms(record: Record) -> float:
    """When an event was accepted, in milliseconds since 1970. One of our own was when it was committed, and may be
    published later; of others, Kafka's time counts.
    """
    own = record.header("ce_time") if record.header("ce_source") == SOURCE else None
    if own is None or record.topic not in topics.INGRESS:
        return record.origin[-1]
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(own).timestamp() * 1000
    return record.origin[-1]
