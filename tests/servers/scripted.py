"""The server of the scripted recognizers: a provider that bills, and can be made to fail.

`python -m tests.servers.scripted --port 9000 --ledger ledger.jsonl`

Every POST /requests is charged, also one with a known marker: it does not deduplicate, so that a repeated submission is
visible. A charge is a line of the ledger, on the disk before the response is sent; a server that is killed and started
again with its ledger has its requests. The protocol is in `agents/asr/scripted.py`; for tests there are:

    GET /ledger            the charges: [{id, marker, provider, job_id, run, charged_at, ready_at, ...}]
    GET /arrivals          arrival times of requests: [[unix time, call], ...]
    GET /charged           the number of charges
    GET /lateness          due times of polls, and by how many seconds they were late: [[time, 0.01], ...]
    GET, PUT /switches     its misbehaviour; a PUT replaces all switches, so `{}` resets them

    delay_s       seconds from a charge until the transcript is there (0)
    poll_s        maximum seconds after which a client is told to poll again (0.2)
    lose_answer   charge, then cut the connection instead of responding
    refuse_429    refuse with 429 and Retry-After: retry_after_s (1), uncharged
    error_5xx     fail with 503 and Retry-After: retry_after_s, uncharged
    forbidden     refuse with 403, uncharged
    stall         accept the request and never respond, uncharged; waiting clients are cut off when it ends
    fail_jobs     list of job ids whose requests end in status "error"
    on            calls to which refuse_429, error_5xx, forbidden and stall apply: submit, find, poll (all)

lose_answer, refuse_429, error_5xx, forbidden and stall are true (until switched off) or a number of calls, counted
down. `tests/servers/billing.py` has more: late, listed_s, gap (the list of a marker is empty).
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from agents.asr.scripted import hear
from schemas.words import Hypothesis, adapter
from tests.servers.billing import Billing, Switched, cut


@dataclass
class Switches(Switched):
    """How the server responds; see the module."""

    delay_s: float = 0.0
    poll_s: float = 0.2
    lose_answer: bool | int = False
    refuse_429: bool | int = False
    error_5xx: bool | int = False
    forbidden: bool | int = False
    stall: bool | int = False
    retry_after_s: float = 1.0
    fail_jobs: list[str] = field(default_factory=list)
    on: list[str] = field(default_factory=lambda: ["submit", "find", "poll"])


class Server(Billing):
    """The routes."""

    def __init__(self, ledger: Path, clock: Callable[[], float] = time.time) -> None:
        super().__init__(ledger, Switches(), clock)
        #: Due times of polls and how late they were; the due time of the next poll, by request.
        self.late: list[tuple[float, float]] = []
        self._due: dict[str, float] = {}
        self._numbers = itertools.count(len(self.ledger.charges) + 1)

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.post("/requests", self.submit),
                web.get("/requests", self.find),
                web.get("/requests/{id}", self.poll),
                web.get("/charged", self.count_charges),
                web.get("/lateness", self.list_lateness),
                *self.operated(),
            ]
        )
        return app

    async def submit(self, request: web.Request) -> web.StreamResponse:
        if (answer := await self._misbehaved(request, "submit")) is not None:
            return answer
        body = await request.json()
        if not all(body.get(name) for name in ("marker", "provider", "job_id")):
            return web.json_response({"error": "marker, provider and job_id are required"}, status=422)
        if self.switches.takes("late"):
            return await self._late(request, body)
        entry = self._charge(body, self.clock())
        if self.switches.takes("lose_answer"):
            return cut(request)
        return web.json_response({"id": entry["id"]}, status=201)

    def _charge(self, body: dict[str, Any], now: float) -> dict[str, Any]:
        entry = body | {"id": f"req-{next(self._numbers)}", "charged_at": now, "ready_at": now + self.switches.delay_s}
        self.ledger.charge(entry)
        return entry

    async def _late(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        entries: list[dict[str, Any]] = []
        accepted = self.take(lambda at: entries.append(self._charge(body, at)))
        answer = self.switches.lateness()
        if answer == "cut":
            return cut(request)
        if answer == "504":
            return web.json_response({"error": "upstream request timeout"}, status=504)
        await accepted.wait()
        return web.json_response({"id": entries[0]["id"]}, status=201)

    async def find(self, request: web.Request) -> web.StreamResponse:
        if (answer := await self._misbehaved(request, "find")) is not None:
            return answer
        there = self.listed(self.ledger.charges)
        if (since := request.query.get("since")) is not None:
            there = [c for c in there if c["provider"] == request.query["provider"] and c["charged_at"] >= float(since)]
        else:
            there = [c for c in there if c["marker"] == request.query.get("marker")]
        found = self.switches.shown(there)
        return web.json_response([{"id": c["id"], "marker": c["marker"]} for c in found])

    async def poll(self, request: web.Request) -> web.StreamResponse:
        if (answer := await self._misbehaved(request, "poll")) is not None:
            return answer
        charge = self.ledger.by_id.get(request.match_info["id"])
        if charge is None:
            return web.json_response({"error": "no such request"}, status=404)
        if charge["job_id"] in self.switches.fail_jobs:
            return web.json_response({"status": "error", "message": "the recording could not be understood"})
        now = self.clock()
        if (due := self._due.pop(charge["id"], None)) is not None:
            self.late.append((due, now - due))
        if (left := charge["ready_at"] - now) > 0:
            advised = min(left, self.switches.poll_s)
            self._due[charge["id"]] = now + advised
            return web.json_response({"status": "pending", "seconds": advised})
        heard = hear(charge["provider"], charge["job_id"], charge.get("language", "auto"), charge.get("duration_ms"))
        done = adapter(Hypothesis).dump_python(heard, mode="json")
        return web.json_response({"status": "done", "hypothesis": done})

    async def count_charges(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(len(self.ledger.charges))

    async def list_lateness(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self.late)

    async def _misbehaved(self, request: web.Request, call: str) -> web.StreamResponse | None:
        """The response of a misbehaviour to this call; None if there is none."""
        self.arrived(call)
        switches = self.switches
        if call not in switches.on:
            return None
        if switches.takes("stall"):
            await self._changed.wait()
            return cut(request)
        headers = {"Retry-After": f"{switches.retry_after_s:g}"}
        if switches.takes("refuse_429"):
            return web.json_response({"error": "not so fast"}, status=429, headers=headers)
        if switches.takes("forbidden"):
            return web.json_response({"error": "you may not"}, status=403)
        if switches.takes("error_5xx"):
            return web.json_response({"error": "out of order"}, status=503, headers=headers)
        return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.servers.scripted", description="The scripted recognizers' server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True, help="file of the charges; kept if it is there")
    arguments = parser.parse_args()

    async def make() -> web.Application:
        return Server(arguments.ledger).app()

    web.run_app(make(), host=arguments.host, port=arguments.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
