"""Who may have a place at a recognizer next: the rule that every database follows. Pure."""

from __future__ import annotations

from typing import Final

#: Urgency (9 less the priority) from which on a request counts as bulk.
BULK: Final = 7

#: Of so many places, one is kept free of bulk requests, so that a live upload never waits for all of them to end.
KEPT: Final = 5


def free(slots: int, under_way: int, urgency: int) -> int:
    """How many places a request of this urgency finds free."""
    kept = slots // KEPT if urgency >= BULK else 0
    return max(0, slots - kept - under_way)


#: Failures in a row after which all workers pause, and the longest pause, in seconds, that nobody asked for.
TOLERATED: Final = 5
LONGEST_S: Final = 60.0


def pause_s(failures: int, retry_after: float | None) -> float:
    """Seconds of pause after so many failures in a row: doubling from the fifth on, and never less than the provider
    asks for. (Who says "a second" for ten minutes is not asked six hundred times.)

    What fails while a pause is on was under way when it began, and is none of them: it only says the same again.
    """
    own = min(LONGEST_S, 2.0 ** (failures - TOLERATED)) if failures >= TOLERATED else 0.0
    return max(own, retry_after or 0.0)
