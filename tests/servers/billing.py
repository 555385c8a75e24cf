"""What the servers of providers have in common: a ledger that nothing takes back, switches for misbehaviour, and when
requests came.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web


class Switched:
    """Base of a dataclass of switches. A misbehaviour is true (until switched off) or a number (of calls)."""

    def takes(self, name: str) -> bool:
        """Whether a misbehaviour is on; a counted one is used up by asking."""
        value = getattr(self, name)
        if value is True or not value:
            return bool(value)
        setattr(self, name, value - 1)
        return True


class Ledger:
    """Charges, in a file that is only ever appended to."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        self.charges: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.by_id = {charge["id"]: charge for charge in self.charges}
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def charge(self, entry: dict[str, Any]) -> None:
        """On the disk when this returns. One write a line: a kill leaves no half of one."""
        os.write(self._file, json.dumps(entry).encode() + b"\n")
        os.fsync(self._file)
        self.charges.append(entry)
        self.by_id[entry["id"]] = entry

    def close(self) -> None:
        os.close(self._file)


class Billing:
    """A server with all of them: GET /ledger; GET, PUT /switches; GET /arrivals. A PUT replaces all switches, and ends
    stalls. Arrivals are [Unix time, call] of every request, whatever became of it, since the server was started.
    """

    def __init__(self, ledger: Path, switches: Any) -> None:
        self.ledger = Ledger(ledger)
        self.switches = switches
        self._changed = asyncio.Event()
        #: Unix time and call of every request, whatever became of it.
        self.arrivals: list[tuple[float, str]] = []

    def arrived(self, call: str) -> None:
        """A request has come."""
        self.arrivals.append((time.time(), call))

    def changed(self) -> None:
        """The switches are others: whoever was stalled is cut off."""
        self._changed.set()
        self._changed = asyncio.Event()

    def operated(self) -> list[web.RouteDef]:
        """The routes of whoever operates it."""
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
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
