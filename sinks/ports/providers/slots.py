"""The port of limits on concurrent requests to a provider, which all workers share: slots, and a queue for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

#: Urgency (9 less the priority) from which on a request counts as bulk.
BULK: Final = 7

#: The last place in a queue that is told.
FARTHEST: Final = 1000

#: Of so many slots, one is kept free of bulk requests, so that a live upload never waits for all of them to end.
KEPT: Final = 5


@dataclass(frozen=True, slots=True)
class Traffic:
    """The load of one provider over all workers."""

    #: Requests that hold a slot, and that wait for one.
    under_way: int = 0
    queued: int = 0
    #: Calls that failed since the last one that succeeded; those that failed within a pause are not counted.
    failures: int = 0
    #: No worker calls before that time.
    paused_until: datetime | None = None
    #: Requests that a person has to decide about.
    parked: int = 0


class Slots(Protocol):
    """A request holds its slot until it ends."""

    async def acquire_slot(self, tenant_id: str, job_id: str, run: int, provider: str, slots: int) -> bool:
        """Whether the request is one of at most `slots` of its provider that are under way.

        If not, the request is queued, and `grant_slots` gives it a slot later.
        """

    async def grant_slots(self, provider: str, slots: int | None, *, overtaking: bool = False) -> Traffic:
        """Give free slots to queued requests and make their events due; the provider's load afterwards. With None, only
        the load.

        `overtaking`: while no slot is free, those that are queued take the slots of less urgent requests that have not
        begun (`begin`), which are queued again at their old place. For recognizers on our own machines only.

        The most urgent are first; among those, tenants take turns; of each tenant the oldest. A share of the slots is
        kept free of bulk (`free`). A request whose event is not scheduled yet is admitted by a later call.
        """

    async def begin(self, tenant_id: str, job_id: str, run: int, provider: str) -> bool:
        """Note that a request begins, so that it keeps its slot; False if it waits for one (again), or ended."""

    async def queue_position(self, tenant_id: str, job_id: str, run: int, provider: str) -> int | None:
        """The place of a request among those of its provider that wait, from 1; None if it does not wait.

        The order is that in which `grant_slots` gives slots; those that have a slot and have not begun are before, the
        most urgent first. At most `FARTHEST`, which also stands for later places, so that the cost does not grow with
        the queue.
        """


def free(slots: int, under_way: int, urgency: int) -> int:
    """How many slots are free for a request of this urgency."""
    kept = slots // KEPT if urgency >= BULK else 0
    return max(0, slots - kept - under_way)
