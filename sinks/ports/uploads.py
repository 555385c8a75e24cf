"""The port of uploads that wait until a worker has a free slot for fetching their recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from schemas.ids import Key


class Uploads(Protocol):
    """An upload waits as a row (`Job.queued_at`), and its event is put off until it is admitted.

    Nothing else opens a job of a tenant that has a limit of open jobs (`AccountSettings.max_open_jobs`).
    """

    async def waiting_uploads(self) -> dict[str, int]:
        """Tenants that have uploads waiting, with the urgency (0 is the most urgent) of the most urgent one.
        One that is queued for a later time does not count before.
        """

    async def admit_uploads(self, held: Mapping[str, int], free: int) -> list[Key]:
        """Admit uploads to the `free` slots of a process and make their events due; their jobs, in order.

        The most urgent are first; among those, tenants take turns; of each tenant the oldest. `held` is how many slots
        of the process each tenant holds already (`fair_share`). No tenant gets more jobs open than it may have, whoever
        else admits at this moment.
        """


def fair_share(
    waiting: Iterable[Key], held: Mapping[str, int], free: int, room: Mapping[str, int] = MappingProxyType({})
) -> list[Key]:
    """Which of these jobs get one of the free slots, in this order. A tenant gets at most as many as stay free beside
    it: one tenant alone holds half of them, and there is always one for the next tenant. `room` is how many more each
    tenant with a limit of its own may get.
    """
    counts, chosen = Counter(held), []
    for key in waiting:
        taken = counts[key[0]] - held.get(key[0], 0)
        if counts[key[0]] < free and taken < room.get(key[0], free):
            counts[key[0]] += 1
            free -= 1
            chosen.append(key)
    return chosen
