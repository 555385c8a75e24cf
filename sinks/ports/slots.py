"""The port of a bound on what is done at once, which tenants share; see `sinks.fair_slots.FairSlots`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Slots(Protocol):
    """Bounds what is done at once, in all and for each tenant."""

    def held(self, tenant: str, /) -> AbstractAsyncContextManager[None]:
        """A slot, for as long as the context lasts."""
