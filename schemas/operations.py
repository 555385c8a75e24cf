"""What workers and operators tell each other when a record cannot be got past."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AppFailure:
    """A part of a worker that fails again and again."""

    worker: str
    app: str
    failures: int
    error: str
    #: Where it was, as topic/partition/offset; what it had not done first.
    places: tuple[str, ...] = ()
    #: Seconds since the worker said so.
    seen_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Skip:
    """A record that is to be passed over: it goes into the dead letters, and nobody handles it."""

    topic: str
    partition: int
    offset: int
    reason: str
    #: Of the record that is meant, if it could be read.
    timestamp_ms: int | None = None
    #: Its batch is not even unpacked.
    unread: bool = False
