"""Work that outlives its event: it goes on in this process under a lease, and any worker may take it over when the
lease runs out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from schemas.errors import Unavailable
from sinks.ports.leases import Leases

log = logging.getLogger(__name__)

#: Seconds that a lease lasts; it is renewed at a third of that.
LEASE_S = 9.0

#: Seconds for which the result of work that nobody asked about again is kept.
KEEP_S = 600.0


T = TypeVar("T")

Make = Callable[[Callable[[float], None]], Awaitable[Any]]


@dataclass(slots=True)
class _Piece:
    task: asyncio.Task[Any]
    shares: Sequence[str]
    progress: float = 0.0
    done_at: float | None = None


@dataclass
class LeasedTasks:
    """Up to `limit` pieces of work at once in this process, each under its key's lease."""

    database: Leases
    #: Names this process among all workers.
    holder: str
    limit: int = 2
    _pieces: dict[str, _Piece] = field(default_factory=dict)
    _renewing: asyncio.Task[None] | None = None
    #: Set whenever work ends.
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(
        self, key: str, make: Make, wait_s: float, *, eager: bool = False, shares: Sequence[str] = ()
    ) -> Any | None:
        """The result of the work, if it is there within `wait_s`; None while it goes on, here or elsewhere, or waits
        for a place.

        `make` is called with a function that takes the progress, 0 to 1. What the work raises is raised here, once. An
        eager piece begins without asking for the lease, which is asked for when it turns out to be long: for work that
        is mostly short.

        `shares` names whose work it is (a tenant, a host). No share may hold more places than are free beside it, so
        that one has half of them at most, several have less, and there is always one for somebody else.
        """
        piece = self._pieces.get(key)
        if piece is None:
            began = time.monotonic()
            if not await self._has_place(shares, 0 if eager else wait_s) or not (eager or await self._leased(key)):
                return None
            wait_s = max(0.0, wait_s - (time.monotonic() - began))
            piece = self._pieces.get(key)
        if piece is None:
            if self.full(shares):  # others began while the lease was asked for
                await self._let_go(key)
                return None
            piece = self._start(key, make, shares)
        await asyncio.wait([piece.task], timeout=wait_s)
        if not piece.task.done():
            if eager and not await self._leased(key):
                self._drop(key)
            return None
        self._pieces.pop(key, None)
        if not eager:
            await self._let_go(key)
        return None if piece.task.cancelled() else piece.task.result()

    def progress(self, key: str) -> float | None:
        """How far the work is, if it goes on here."""
        piece = self._pieces.get(key)
        return piece.progress if piece else None

    @property
    def free(self) -> int:
        """Places that nobody has."""
        return max(0, self.limit - sum(piece.done_at is None for piece in self._pieces.values()))

    @property
    def held(self) -> Counter[str]:
        """How many places each share has."""
        return Counter(share for piece in self._pieces.values() if piece.done_at is None for share in piece.shares)

    def full(self, shares: Sequence[str] = ()) -> bool:
        """Whether there is no place for work of these shares."""
        free, held = self.free, self.held if shares else Counter[str]()
        return free <= 0 or any(held[share] >= free for share in shares)

    async def _has_place(self, shares: Sequence[str], wait_s: float) -> bool:
        """Whether there is a place within so many seconds. Work that stands by here begins as soon as other work ends,
        not at its next look.
        """
        if not wait_s:
            return not self.full(shares)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self.full(shares):
                    self._freed.clear()
                    await self._freed.wait()
        return not self.full(shares)

    async def _leased(self, key: str) -> bool:
        return await self.database.lease(key, self.holder, LEASE_S)

    def _drop(self, key: str) -> None:
        piece = self._pieces.pop(key, None)
        if piece is not None:
            piece.task.cancel()

    def _start(self, key: str, make: Make, shares: Sequence[str]) -> _Piece:
        async def work() -> Any:
            return await make(lambda share: setattr(piece, "progress", max(0.0, min(1.0, share))))

        piece = _Piece(asyncio.create_task(work(), name=key), shares)
        piece.task.add_done_callback(lambda task: self._finished(piece, task))
        self._pieces[key] = piece
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        return piece

    def _finished(self, piece: _Piece, task: asyncio.Task[Any]) -> None:
        piece.done_at = time.monotonic()
        self._freed.set()
        if not task.cancelled():
            task.exception()  # seen: it is raised to whoever asks next, and must not be reported as lost

    async def _renew(self) -> None:
        while self._pieces:
            await asyncio.sleep(LEASE_S / 3)
            for key, piece in list(self._pieces.items()):
                await self._renew_one(key, piece)

    async def _renew_one(self, key: str, piece: _Piece) -> None:
        if piece.done_at is not None:
            if time.monotonic() - piece.done_at > KEEP_S:
                self._pieces.pop(key, None)
            return
        with contextlib.suppress(Unavailable):
            if not await self._leased(key):
                log.warning("lost the lease of %s; another worker has it", key)
                self._drop(key)

    async def _let_go(self, key: str) -> None:
        with contextlib.suppress(Unavailable):
            await self.database.release(key, self.holder)

    async def close(self) -> None:
        """Stop everything and hand it back: the leases are free at once for another worker."""
        if self._renewing is not None:  # first: a renewal would take a lease that was given back, for `LEASE_S` seconds
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        for key, piece in list(self._pieces.items()):
            piece.task.cancel()
            await self._let_go(key)
        await asyncio.gather(*(piece.task for piece in self._pieces.values()), return_exceptions=True)
        self._pieces.clear()


async def each(items: Iterable[T], do: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Do all items, so many at a time. The first thing that is raised ends the others, and is raised."""
    left = iter(items)

    async def caller() -> None:
        for item in left:
            await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(caller())
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
