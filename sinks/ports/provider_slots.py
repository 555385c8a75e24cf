"""Who may have a place next, at a recognizer or to be fetched: the rule that every database follows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from schemas.ids import Key

#: Urgency (9 less the priority) from which on a request counts as bulk.
BULK: Final = 7

#: Of so many places, one is kept free of bulk requests, so that a live upload never waits for all of them to end.
KEPT: Final = 5


def free(slots: int, under_way: int, urgency: int) -> int:
    """How many places a request of this urgency finds free."""
    kept = slots // KEPT if urgency >= BULK else 0
    return max(0, slots - kept - under_way)


def shared(waiting: Iterable[Key], held: Mapping[str, int], free: int) -> list[Key]:
    """Which of these may have one of the free places, in this order. No tenant gets more than are free beside it, so
    that one alone has half of them, and there is always one for the next.
    """
    has, chosen = Counter(held), []
    for key in waiting:
        if has[key[0]] < free:
            has[key[0]] += 1
            free -= 1
            chosen.append(key)
    return chosen


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
