"""A semaphore that tenants share: each waits behind its own requests only, and free slots go to tenants in turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Tenant = TypeVar("Tenant")


class FairSlots(Generic[Tenant]):
    """`slots` slots, of which one tenant holds `each` at most."""

    def __init__(self, slots: int, each: int) -> None:
        self._free, self._each = slots, each
        self._held: Counter[Tenant] = Counter()
        #: Waiting requests by tenant; the tenant whose turn it is comes first.
        self._waiting: OrderedDict[Tenant, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def held(self, tenant: Tenant) -> AsyncIterator[None]:
        """A slot, for as long as the context lasts."""
        await self.acquire(tenant)
        try:
            yield
        finally:
            self.release(tenant)

    async def acquire(self, tenant: Tenant) -> None:
        """Wait for a slot; `release` returns it."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # admitted at the same moment
                self.release(tenant)
            raise

    def release(self, tenant: Tenant) -> None:
        """Return a slot."""
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._admit()

    def _admit(self) -> None:
        for tenant in list(self._waiting):
            if not self._free:
                return
            if self._held[tenant] < self._each:
                self._admit_one(tenant)
        if self._free and any(self._held[tenant] < self._each for tenant in self._waiting):
            self._admit()

    def _admit_one(self, tenant: Tenant) -> None:
        queue = self._waiting[tenant]
        self._waiting.move_to_end(tenant)
        while queue:
            turn = queue.popleft()
            if not turn.done():
                self._free -= 1
                self._held[tenant] += 1
                turn.set_result(None)
                break
        if not queue:
            del self._waiting[tenant]
