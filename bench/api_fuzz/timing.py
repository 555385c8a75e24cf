"""Whether an answer's time tells what exists: each route is asked about another tenant's things and about nothing's.

Both requests of a pair go over one connection, in turns, so that whatever else the machine does slows both alike.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any
from urllib.parse import quote

import aiohttp

from bench.api_fuzz.seed import KEYS
from bench.api_fuzz.site import Site
from tests.web.walk import KINDS, UNKNOWN

#: Medians count as equal within this ratio, or this many milliseconds: a query more costs 0.5 ms at least.
RATIO, APART_MS = 1.1, 0.2


@dataclass
class Compared:
    """Medians of one route, in milliseconds, with the statuses that were seen."""

    name: str
    foreign_ms: float
    unknown_ms: float
    statuses: set[tuple[int, int]]

    @property
    def is_equal(self) -> bool:
        """Whether neither status nor time tells one from the other."""
        low, high = sorted((self.foreign_ms, self.unknown_ms))
        same_status = all(one == other for one, other in self.statuses)
        return same_status and (high <= low * RATIO or high - low <= APART_MS)


def requests(document: dict[str, Any], ids: dict[str, list[str]]) -> Iterator[tuple[str, str, str, Any]]:
    """(method, path about bolt's things, the same about nothing's, body) of every route that names something."""
    for path, item in document["paths"].items():
        kind = next((kind for beginning, kind in KINDS.items() if path.startswith(beginning)), None)
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        if not names or path.startswith(("/problems", "/operator", "/webhooks")):
            continue
        foreign = unknown = path
        for name in names:
            if name == "tenant":
                theirs, nobodys = "bolt", "nope"
            else:
                kind_of = kind if name == "id" else name
                theirs, nobodys = ids[kind_of][0], UNKNOWN[kind_of]
            foreign = foreign.replace(f"{{{name}}}", quote(theirs, safe=""))
            unknown = unknown.replace(f"{{{name}}}", quote(nobodys, safe=""))
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {})
            body = next((one["example"] for one in content.values() if "example" in one), None)
            yield method.upper(), foreign, unknown, body
            if "tenant" in names and names != ["tenant"]:
                own = (foreign.replace("/bolt/", "/acme/"), unknown.replace("/nope/", "/acme/"))
                yield method.upper(), *own, body


async def compare(site: Site, count: int) -> list[Compared]:
    """Ask each route so often for either."""
    headers = {"X-API-Key": KEYS["acme"], "If-Match": "*", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(site.url, headers=headers, connector=connector) as session:
        async with session.get("/openapi.json") as answer:
            document = await answer.json()
        pairs = list(requests(document, site.ids["bolt"]))
        compared = [await _pair(session, count, *pair) for pair in pairs]
        # What differs once may be the machine's doing: it is asked again, longer.
        return [
            one if one.is_equal else await _pair(session, 3 * count, *pair)
            for one, pair in zip(compared, pairs, strict=True)
        ]


async def _pair(
    session: aiohttp.ClientSession, count: int, method: str, foreign: str, unknown: str, body: Any
) -> Compared:
    data = json.dumps(body) if body is not None else None
    times: dict[str, list[float]] = {foreign: [], unknown: []}
    statuses: dict[str, list[int]] = {foreign: [], unknown: []}
    for path, _ in zip(cycle(((foreign, unknown), (unknown, foreign))), range(count), strict=False):
        for one in path:
            began = time.perf_counter()
            async with session.request(method, one, data=data) as answer:
                await answer.read()
            times[one].append(time.perf_counter() - began)
            statuses[one].append(answer.status)
    medians = [statistics.median(times[path]) * 1000 for path in (foreign, unknown)]
    return Compared(f"{method} {foreign}", *medians, set(zip(statuses[foreign], statuses[unknown], strict=True)))


async def report(site: Site, count: int) -> list[Compared]:
    """Print what differs; the routes that do."""
    compared = await compare(site, count)
    doubtful = [one for one in compared if not one.is_equal]
    print(f"  timing: {len(compared)} pairs of {count} requests each, {len(doubtful)} differ")
    for one in doubtful:
        print(f"    {one.name}: {one.foreign_ms:.2f} ms and {one.unknown_ms:.2f} ms, {one.statuses}")
    return doubtful
