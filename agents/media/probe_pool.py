"""Finds out what uploaded files are without trusting them: probes in worker processes that a hostile file may crash."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.media.decoding.decoder import MAX_DURATION_MS, Probe, probe
from agents.media.subprocess_worker import Died, Worker, begin, serve
from schemas.errors import RefusedMedia, Transient


class _Places:
    """Places for tenants in turn: whoever has the fewest is next, of equals the oldest. One place is left for others by
    a tenant that would take all.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._most = max(1, count - 1)
        self._held: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def taken(self, tenant: str) -> AsyncIterator[None]:
        """A place for as long as the context lasts."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((tenant, turn))
        self._give()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # given, and gone before it knew
                self._leave(tenant)
            raise
        try:
            yield
        finally:
            self._leave(tenant)

    def _leave(self, tenant: str) -> None:
        self._free += 1
        self._held[tenant] -= 1
        self._give()

    def _give(self) -> None:
        self._waiting = [one for one in self._waiting if not one[1].done()]
        while self._free and (may := [one for one in self._waiting if self._held[one[0]] < self._most]):
            first = min(may, key=lambda one: self._held[one[0]])
            self._waiting.remove(first)
            self._held[first[0]] += 1
            self._free -= 1
            first[1].set_result(None)


class ProbePool:
    """Probes files in worker processes of its own, which live on from file to file. For an event loop."""

    def __init__(
        self,
        *,
        processes: int = 3,
        max_duration_ms: int = MAX_DURATION_MS,
        stall_s: float = 20.0,
        start_s: float = 60.0,
    ) -> None:
        """Up to `processes` files at once, each process started when first needed; one that shows no progress for
        `stall_s` is killed. A tenant has all but one of them at most.
        """
        self._max_duration_ms = max_duration_ms
        self._stall_s = stall_s
        self._idle = [Worker("agents.media.probe_pool", start_s=start_s) for _ in range(processes)]
        self._workers = tuple(self._idle)
        self._places = _Places(processes)

    @property
    def pids(self) -> tuple[int, ...]:
        """The worker processes that are alive."""
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    async def probe(
        self, path: Path, name: str | None = None, declared_type: str | None = None, *, tenant: str = ""
    ) -> Probe:
        """What the file is; see `agents.media.decoding.decoder.probe`.

        A file that crashes or hangs its process is tried once more in a new one, then refused. `Transient` when the
        processes were killed by someone else (out of memory, an operator), `Unavailable` when they do not start.
        """
        request = {
            "path": str(path.resolve()),
            "name": name or path.name,
            "declared_type": declared_type,
            "max_duration_ms": self._max_duration_ms,
        }
        async with self._places.taken(tenant):
            worker = self._idle.pop()
            try:
                answer = await self._asked(worker, request)
                return Probe(**answer | {"notes": tuple(answer["notes"])})
            finally:
                self._idle.append(worker)

    async def _asked(self, worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(Died, TimeoutError):
            return await worker.ask(request, stall_s=self._stall_s)
        name = request["name"]
        try:
            return await worker.ask(request, stall_s=self._stall_s)
        except TimeoutError as exc:
            raise RefusedMedia(f"{name} is damaged: decoding it comes to no end") from exc
        except Died as exc:
            if exc.crashed:
                raise RefusedMedia(f"{name} is damaged: it crashes the decoder ({exc})") from exc
            raise Transient(f"probing {name} was interrupted: {exc}") from exc

    async def close(self) -> None:
        """End the worker processes. Safe to call twice."""
        await asyncio.gather(*(worker.close() for worker in self._workers))


def _answer(request: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    path = Path(request.pop("path"))
    try:
        return asdict(probe(path, **request, beat=lambda: tell({})))
    except (MemoryError, ArithmeticError, LookupError, ValueError) as exc:
        # Ours or PyAV's stumbling over its bytes: the same again next time.
        raise RefusedMedia(f"{request['name']} is damaged: it cannot be decoded ({type(exc).__name__}: {exc})") from exc


def main() -> None:
    """A worker process of `ProbePool`: `python -m agents.media.probe_pool`."""
    begin()
    import av  # noqa: F401  (so that the first file does not wait for it)

    serve(_answer)


if __name__ == "__main__":
    main()
