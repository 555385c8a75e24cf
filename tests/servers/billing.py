"""Base of the test servers of providers: an append-only ledger of charges, switches for misbehaviour, arrival times.

Switches that all servers have, each true or a number of calls unless it is a time or a size:

    late          a submission is received, and accepted and charged only `late_s` (12) later; `late_answer` is its
                  response: "slow" (at that time), "cut" or "504" (immediately), or each of a list in turn
    listed_s      seconds after its charge at which a request is listed (0)
    page          maximum requests on a page of the list (200, or the vendor's maximum)
    gap           a page of the list omits the request in its middle, as if it had moved to another page
    repeat        a page of the list contains its first request twice
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

_Entry = TypeVar("_Entry")


@dataclass(kw_only=True)
class Switched:
    """Base of a dataclass of switches. A misbehaviour is true (until switched off) or a number (of calls)."""

    late: bool | int = False
    late_s: float = 12.0
    late_answer: str | list[str] = "slow"
    listed_s: float = 0.0
    page: int = 200
    gap: bool | int = False
    repeat: bool | int = False

    def lateness(self) -> str:
        """The response to the next late submission."""
        if isinstance(self.late_answer, str):
            return self.late_answer
        self.late_answer.append(self.late_answer.pop(0))
        return self.late_answer[-1]

    def shown(self, page: Sequence[_Entry]) -> list[_Entry]:
        """A page of the list after the switches `gap` and `repeat`."""
        entries = list(page)
        if entries and self.takes("gap"):
            del entries[len(entries) // 2]
        if entries and self.takes("repeat"):
            entries.insert(0, entries[0])
        return entries

    def takes(self, name: str) -> bool:
        """Whether a misbehaviour applies to this call; one with a number is counted down."""
        value = getattr(self, name)
        if value is True or not value:
            return bool(value)
        setattr(self, name, value - 1)
        return True


class Ledger:
    """Charges in an append-only file."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        self.charges: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.by_id = {charge["id"]: charge for charge in self.charges}
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def charge(self, entry: dict[str, Any]) -> None:
        """Write a charge to the disk. Each line is one write, so that a kill leaves no partial line."""
        os.write(self._file, json.dumps(entry).encode() + b"\n")
        os.fsync(self._file)
        self.charges.append(entry)
        self.by_id[entry["id"]] = entry

    def close(self) -> None:
        os.close(self._file)


class Billing:
    """A server with GET /ledger; GET, PUT /switches; GET /arrivals. A PUT replaces all switches, and ends stalls.
    Arrivals are [Unix time, call] of every request since the server was started, whatever its result.
    """

    def __init__(self, ledger: Path, switches: Any, clock: Callable[[], float] = time.time) -> None:
        self.ledger = Ledger(ledger)
        self.switches = switches
        #: Returns Unix time; a test may pass its own clock.
        self.clock = clock
        #: Late submissions: the time at which each is accepted, and the function that accepts it.
        self._pending: list[tuple[float, Callable[[float], None]]] = []
        self._changed = asyncio.Event()
        #: Unix time and call of every request, whatever its result.
        self.arrivals: list[tuple[float, str]] = []

    def arrived(self, call: str) -> None:
        """Record the arrival of a request."""
        self.arrivals.append((time.time(), call))
        self.accept()

    def accept(self) -> None:
        """Accept the late submissions whose time has come."""
        now = self.clock()
        due = [submission for submission in self._pending if submission[0] <= now]
        self._pending = [submission for submission in self._pending if submission[0] > now]
        for at, accepting in due:
            accepting(at)

    def take(self, accepting: Callable[[float], None]) -> asyncio.Event:
        """Accept a submission `late_s` from now; the event is set when it is accepted. A kill loses it."""
        accepted = asyncio.Event()

        def then(at: float) -> None:
            accepting(at)
            accepted.set()

        self._pending.append((self.clock() + self.switches.late_s, then))
        if self.clock is time.time:
            asyncio.get_running_loop().call_later(self.switches.late_s + 0.001, self.accept)
        return accepted

    def listed(self, charges: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The charges that are listed by now."""
        return [charge for charge in charges if charge["charged_at"] <= self.clock() - self.switches.listed_s]

    def changed(self) -> None:
        """Cut off the stalled requests, after a change of the switches."""
        self._changed.set()
        self._changed = asyncio.Event()

    def operated(self) -> list[web.RouteDef]:
        """The routes for tests."""
        return [
            web.get("/ledger", self._list_charges),
            web.get("/switches", self._get_switches),
            web.put("/switches", self._put_switches),
            web.get("/arrivals", self._list_arrivals),
        ]

    async def _list_charges(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self.ledger.charges)

    async def _list_arrivals(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self.arrivals)

    async def _get_switches(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(asdict(self.switches))

    async def _put_switches(self, request: web.Request) -> web.StreamResponse:
        kind = type(self.switches)
        try:
            self.switches = kind(**await request.json())
        except TypeError as exc:
            return web.json_response({"error": f"{exc}; there are {', '.join(asdict(kind()))}"}, status=422)
        self.changed()
        return web.json_response(asdict(self.switches))


def cut(request: web.Request) -> web.StreamResponse:
    """Close the connection without a response."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def half(request: web.Request, answer: Any) -> web.StreamResponse:
    """Send the headers and half of a response, then close the connection."""
    body = json.dumps(answer).encode()
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return cut(request)
