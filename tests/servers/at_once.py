"""What local servers of vendors share that answer a POST of sound with its transcript: charges, and misbehaviour.

Words come from the function `hear`, by default `google_speech.bursts`: a word for every sound between silences, named
after its pitch ("f440"), so that a transcript shows which sounds were sent, at which times, and whether one was sent
twice. Every request that is recognized is a line of the ledger, on the disk before the response: {id, sha256, heard,
seconds, billed, charged_at, wish, lost}. The server does not deduplicate. Switches, each true (until switched off) or a
number of calls unless it is a time or a list:

    delay_s          seconds from the charge to the response (0)
    refuse_429       429, with Retry-After: retry_after_s (1) unless that is 0; uncharged
    unavailable      503, uncharged
    internal         500, uncharged
    unauthenticated  401, as for a wrong key; uncharged
    forbidden        403, uncharged
    broke            402 (or the vendor's own), as for an account without credit; uncharged
    too_large        413, uncharged
    stall            accept the request and never respond, uncharged
    lose_answer      charge, then cut the connection instead of responding
    half             charge, then send half a response and cut the connection
    garbage          charge, then respond with a page that is no JSON
    mangle           charge, then respond with JSON that is no transcript
    echo_key         500, with the key in its text; uncharged
    keep             deletions fail with 500
    without          list of omitted parts of responses: words, times, confidences, language, billing

and `late` of `tests/servers/billing.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from tests.servers.billing import Billing, Switched, cut, half
from tests.servers.google_speech import Hear, HeardWord, bursts


@dataclass
class Switches(Switched):
    """How the server responds; see the module."""

    delay_s: float = 0.0
    refuse_429: bool | int = False
    unavailable: bool | int = False
    internal: bool | int = False
    unauthenticated: bool | int = False
    forbidden: bool | int = False
    broke: bool | int = False
    too_large: bool | int = False
    stall: bool | int = False
    lose_answer: bool | int = False
    half: bool | int = False
    garbage: bool | int = False
    mangle: bool | int = False
    echo_key: bool | int = False
    keep: bool | int = False
    retry_after_s: float = 1.0
    without: list[str] = field(default_factory=list)


#: Switches that refuse a request, with their HTTP status.
_REFUSALS = {
    "unavailable": 503,
    "internal": 500,
    "unauthenticated": 401,
    "forbidden": 403,
    "broke": 402,
    "too_large": 413,
}


class Server(Billing):
    """The routes that are the same for all; a vendor's server adds its own. `key` is the only valid API key."""

    def __init__(self, ledger: Path, *, key: str, hear: Hear = bursts, clock: Callable[[], float] = time.time) -> None:
        super().__init__(ledger, Switches(), clock)
        self.key, self.hear = key, hear
        self.calls = self.in_flight = self.most_in_flight = 0
        #: What was asked for, of the newest request that was recognized.
        self.asked: dict[str, Any] = {}
        self.deleted: list[str] = []

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.add_routes([*self.routes(), *self.operated()])
        return app

    def charges(self) -> Counter[str]:
        """How often each sound was charged."""
        return Counter(charge["sha256"] for charge in self.ledger.charges)

    # What a vendor's server says in its own way.

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    def is_known(self, request: web.Request) -> bool:
        """Whether the request has the key."""
        raise NotImplementedError

    def error(self, status: int, message: str) -> web.Response:
        raise NotImplementedError

    def answer(self, charge: dict[str, Any], words: Sequence[HeardWord]) -> dict[str, Any]:
        raise NotImplementedError

    # What is the same.

    async def recognized(
        self, request: web.Request, read: Callable[[], Any], refuses: Callable[[dict[str, Any]], str | None]
    ) -> web.StreamResponse:
        """The response to sound. `read` gets what is asked for and the sound; `refuses` says what is wrong with it."""
        self.arrived("recognize")
        self.calls += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if (refusal := await self.misbehaved(request)) is not None:
                return refusal
            wish, sound = await read()
            if wrong := refuses(wish):
                return self.error(400, wrong)
            return await self._recognized(request, wish, sound)
        finally:
            self.in_flight -= 1

    async def misbehaved(self, request: web.Request) -> web.StreamResponse | None:
        """The response of a misbehaviour, or to a wrong key; None if there is none."""
        switches = self.switches
        if switches.takes("stall"):
            await self._changed.wait()
            return cut(request)
        if not self.is_known(request):
            return self.error(401, "Invalid credentials.")
        if switches.takes("refuse_429"):
            refusal = self.error(429, "Too many requests")
            if switches.retry_after_s:
                refusal.headers["Retry-After"] = f"{switches.retry_after_s:g}"
            return refusal
        if switches.takes("echo_key"):
            return self.error(500, f"upstream said no to {self.key}")
        for name, status in _REFUSALS.items():
            if switches.takes(name):
                return self.error(status, f"the switch {name} is on")
        return None

    async def _recognized(self, request: web.Request, wish: dict[str, Any], sound: bytes) -> web.StreamResponse:
        decoded = await asyncio.to_thread(_decoded, sound)
        if decoded is None:
            return self.error(400, "the sound cannot be decoded")
        samples, rate = decoded
        words = await asyncio.to_thread(self.hear, samples, rate)
        charge = {
            "id": f"request-{len(self.ledger.charges) + 1}",
            "sha256": hashlib.sha256(sound).hexdigest(),
            "heard": " ".join(word[0] for word in words),
            "seconds": len(samples) / rate,
            "billed": math.ceil(len(samples) / rate),
            "wish": wish,
        }
        if self.switches.takes("late"):
            return await self._late(request, charge, words)
        self._charge(charge, self.clock())
        await asyncio.sleep(self.switches.delay_s)
        if self.switches.takes("lose_answer"):
            return cut(request)
        if self.switches.takes("garbage"):
            return web.Response(text="<html>a gateway's page</html>", content_type="text/html")
        if self.switches.takes("mangle"):
            return web.json_response({"text": 7, "results": {"channels": "none"}})
        if self.switches.takes("half"):
            return await half(request, self.answer(charge, words))
        return web.json_response(self.answer(charge, words))

    def _charge(self, charge: dict[str, Any], at: float) -> None:
        charge["charged_at"] = at
        charge["id"] = f"request-{len(self.ledger.charges) + 1}"
        self.asked = charge["wish"]
        self.ledger.charge(charge)

    async def _late(
        self, request: web.Request, charge: dict[str, Any], words: Sequence[HeardWord]
    ) -> web.StreamResponse:
        accepted = self.take(lambda at: self._charge(charge, at))
        match self.switches.lateness():
            case "cut":
                return cut(request)
            case "504":
                return self.error(504, "upstream request timeout")
        await accepted.wait()
        return web.json_response(self.answer(charge, words))


def _decoded(sound: bytes) -> tuple[np.ndarray, int] | None:
    """Mono samples, -1 to 1, and their rate; None if there is no sound."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(io.BytesIO(sound)) as file:
            rate = file.streams.audio[0].rate
            parts = [frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]
    except (FFmpegError, IndexError):
        return None
    return np.concatenate(parts).astype(np.float32) / 32768 if parts else np.zeros(0, np.float32), rate


async def form(request: web.Request) -> tuple[dict[str, Any], bytes]:
    """The fields of a form, each a list of texts, and the content of its file."""
    fields: dict[str, list[str]] = {}
    content = b""
    for name, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            content = value.file.read()
        else:
            fields.setdefault(name, []).append(str(value))
    return fields, content
