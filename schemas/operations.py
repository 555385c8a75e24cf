"""Reports of failing apps by workers, and instructions of operators to skip a record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AppFailure:
    """A worker's report of an app of it that fails repeatedly."""

    worker: str
    app: str
    failures: int
    error: str
    #: Positions of the events in progress, as topic/partition/offset; the lowest unfinished first.
    places: tuple[str, ...] = ()
    #: Age of the report in seconds.
    seen_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Skip:
    """A record to be skipped: it goes to the dead letters without being handled."""

    topic: str
    partition: int
    offset: int
    reason: str
    #: Timestamp of the record, if it could be read.
    timestamp_ms: int | None = None
    #: Skip the record without unpacking its batch.
    unread: bool = False
