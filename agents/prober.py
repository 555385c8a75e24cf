"""Finds out what uploaded files are without trusting them: probes in worker processes that a hostile file may crash."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.audio import MAX_DURATION_MS, Probe, probe
from agents.processes import Died, Worker, begin, serve
from schemas.errors import RefusedMedia, Transient


class Prober:
    """Probes files in worker processes of its own, which live on from file to file. For an event loop."""

    def __init__(
        self,
        *,
        processes: int = 2,
        max_duration_ms: int = MAX_DURATION_MS,
        stall_s: float = 20.0,
        start_s: float = 60.0,
    ) -> None:
        """Up to `processes` files at once, each process started when first needed; one that shows no progress for
        `stall_s` is killed.
        """
        self._max_duration_ms = max_duration_ms
        self._stall_s = stall_s
        self._idle = [Worker("agents.prober", start_s=start_s) for _ in range(processes)]
        self._workers = tuple(self._idle)
        self._places = asyncio.Semaphore(processes)

    @property
    def pids(self) -> tuple[int, ...]:
        """The worker processes that are alive."""
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    async def probe(self, path: Path, name: str | None = None, declared_type: str | None = None) -> Probe:
        """What the file is; see `agents.audio.probe`.

        A file that crashes or hangs its process is tried once more in a new one, then refused. `Transient` when the
        processes were killed by someone else (out of memory, an operator), `Unavailable` when they do not start.
        """
        request = {
            "path": str(path.resolve()),
            "name": name or path.name,
            "declared_type": declared_type,
            "max_duration_ms": self._max_duration_ms,
        }
        async with self._places:
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
    """A worker process of `Prober`: `python -m agents.prober`."""
    begin()
    import av  # noqa: F401  (so that the first file does not wait for it)

    serve(_answer)


if __name__ == "__main__":
    main()
