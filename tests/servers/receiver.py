"""A receiver of webhooks on 127.0.0.1 that verifies each with the specification's own library, and answers as told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import orjson
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from tests.servers.hosts import listening

Answers = Callable[["Received"], Awaitable[web.StreamResponse | int]]


@dataclass(frozen=True)
class Received:
    """One request, whose signature is right."""

    path: str
    id: str
    event: dict
    timestamp: int


@dataclass
class Receiver:
    """What it has received, in order; `accepted` is what it answered with 2xx."""

    url: str = ""
    #: By path.
    secrets: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    accepted: list[Received] = field(default_factory=list)
    #: Requests whose signature the library refused.
    forged: int = 0
    answer: Answers | int = 204
    #: Requests that are being answered, and the most at the same time.
    open: int = 0
    most: int = 0

    async def receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        try:
            event = Webhook(self.secrets[request.path]).verify(body, dict(request.headers))
        except Exception:
            self.forged += 1
            return web.Response(status=401)
        assert event == orjson.loads(body)
        one = Received(request.path, request.headers["webhook-id"], event, int(request.headers["webhook-timestamp"]))
        self.received.append(one)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            answer = self.answer if isinstance(self.answer, int) else await self.answer(one)
        finally:
            self.open -= 1
        response = web.Response(status=answer, text="received") if isinstance(answer, int) else answer
        if 200 <= response.status < 300:
            self.accepted.append(one)
        return response


@contextlib.asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """The server, at `url`."""
    it = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", it.receive)
    async with listening(app) as it.url:
        yield it
