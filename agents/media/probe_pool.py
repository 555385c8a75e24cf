"""Probes uploaded files in a pool of subprocesses, which a hostile file may crash without harm."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.media.decoding.limits import MAX_DURATION_MS
from agents.media.decoding.probe import Probe, probe
from agents.media.subprocess_worker import Worker, WorkerDied, begin, serve
from schemas.errors import RefusedMedia, Transient
from sinks.fair_slots import FairSlots


class ProbePool:
    """Probes files from within an event loop, in subprocesses that are reused."""

    def __init__(
        self,
        *,
        processes: int = 3,
        max_duration_ms: int = MAX_DURATION_MS,
        stall_s: float = 20.0,
        start_s: float = 60.0,
    ) -> None:
        """Up to `processes` files are probed at once, but one less of the same tenant.

        A process is started when first needed, within `start_s` seconds. One without progress for `stall_s` seconds is
        killed.
        """
        self._max_duration_ms = max_duration_ms
        self._stall_s = stall_s
        self._idle = [Worker("agents.media.probe_pool", start_s=start_s) for _ in range(processes)]
        self._workers = tuple(self._idle)
        self._slots: FairSlots[str] = FairSlots(processes, max(1, processes - 1))

    @property
    def pids(self) -> tuple[int, ...]:
        """The subprocesses that are alive."""
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    async def probe(
        self, path: Path, name: str | None = None, declared_type: str | None = None, *, tenant: str = ""
    ) -> Probe:
        """See `agents.media.decoding.probe.probe`. A file whose process crashes or hangs is tried once more in a new
        one.

        Raises:
            NotFound: There is no such file.
            RefusedMedia: The file cannot be transcribed, or has crashed or hung two processes.
            Transient: A process was killed from outside (by an operator, or out of memory).
            Unavailable: No process can be started.
        """
        request = {
            "path": str(path.resolve()),
            "name": name or path.name,
            "declared_type": declared_type,
            "max_duration_ms": self._max_duration_ms,
        }
        async with self._slots.held(tenant):
            worker = self._idle.pop()
            try:
                answer = await self._ask(worker, request)
                return Probe(**answer | {"notes": tuple(answer["notes"])})
            finally:
                self._idle.append(worker)

    async def _ask(self, worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(WorkerDied, TimeoutError):
            return await worker.ask(request, stall_s=self._stall_s)
        name = request["name"]
        try:
            return await worker.ask(request, stall_s=self._stall_s)
        except TimeoutError as exc:
            raise RefusedMedia(f"{name} is damaged: decoding it comes to no end") from exc
        except WorkerDied as exc:
            if exc.crashed:
                raise RefusedMedia(f"{name} is damaged: it crashes the decoder ({exc})") from exc
            raise Transient(f"probing {name} was interrupted: {exc}") from exc

    async def close(self) -> None:
        """End the subprocesses. Safe to call twice."""
        await asyncio.gather(*(worker.close() for worker in self._workers))


# What follows runs in the subprocess.


def _answer(request: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    path = Path(request.pop("path"))
    try:
        return asdict(probe(path, **request, beat=lambda: send({})))
    except (MemoryError, ArithmeticError, LookupError, ValueError) as exc:
        # Our code or PyAV cannot handle these bytes; another attempt would fail in the same way.
        raise RefusedMedia(f"{request['name']} is damaged: it cannot be decoded ({type(exc).__name__}: {exc})") from exc


def main() -> None:
    """The subprocess: `python -m agents.media.probe_pool`."""
    begin()
    import av  # noqa: F401  (imported here, so that the first request does not wait for it)

    serve(_answer)


if __name__ == "__main__":
    main()
