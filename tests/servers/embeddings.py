"""A local server with the part of OpenAI's REST protocol that embedding models use, which can be made to fail.

    POST /v1/embeddings    Authorization: Bearer; model, input, encoding_format -> a list of embeddings

Checked: the official SDK runs unmodified against it. Not checked: that OpenAI's service responds in the same way.

`mode` is its behaviour until it is changed:

    short        one vector less than texts
    ragged       vectors of two lengths
    nan          a number that is none (null in JSON)
    zero         a vector without a direction
    nonsense     200, and a body of another shape
    stall        accepts the request and never responds
    rate         429 with Retry-After
    quota        429, insufficient_quota
    fail         503
    key          401
    long         400, context_length_exceeded
    drop         accepts (and charges), then cuts the connection
    echo_key     500, with the key in the message

`asked` is the ledger: the texts of every request that was accepted, including dropped ones.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from agents.embeddings.scripted import bag_of_letters
from tests.servers.billing import cut
from tests.servers.hosts import listening

#: The only valid API key, and the pause that a 429 asks for, in seconds.
KEY, PAUSE_S = "sk-test-key-of-nobody", 7.0

_ERRORS = {
    "rate": (429, "rate_limit_exceeded"),
    "quota": (429, "insufficient_quota"),
    "fail": (503, None),
    "key": (401, "invalid_api_key"),
    "long": (400, "context_length_exceeded"),
    "echo_key": (500, None),
}


@dataclass
class EmbeddingServer:
    """The route, and the requests that were received."""

    mode: str = ""
    asked: list[list[str]] = field(default_factory=list)
    url: str = ""
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def embed(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        mode = self.mode if given == KEY else "key"
        if mode in _ERRORS:
            status, code = _ERRORS[mode]
            error = {"message": f"no, {given}", "type": "error", "param": None, "code": code}
            headers = {"Retry-After": f"{PAUSE_S:g}"} if status == 429 else {}
            return web.json_response({"error": error}, status=status, headers=headers)
        assert set(body) == {"model", "input", "encoding_format"}
        self.asked.append(body["input"])
        if mode == "stall":
            await self._ended.wait()
        if mode in ("drop", "stall"):
            return cut(request)
        return web.json_response(_answer(body, mode))


def _answer(body: dict[str, Any], mode: str) -> dict[str, Any]:
    vectors: list[Any] = [bag_of_letters(text) for text in body["input"]]
    match mode:
        case "nonsense":
            return {"data": "none"}
        case "short":
            vectors.pop()
        case "ragged":
            vectors[0] = vectors[0][:3]
        case "nan":
            vectors[0][0] = None
        case "zero":
            vectors[0] = [0.0] * 26
    data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
    used = sum(map(len, body["input"])) // 4
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": data[::-1], "model": body["model"], "usage": usage}


@contextlib.asynccontextmanager
async def embedding_server() -> AsyncIterator[EmbeddingServer]:
    """A server in this process on a free port; stalled requests are cut off when it ends."""
    server = EmbeddingServer()
    app = web.Application(client_max_size=8 << 20)
    app.add_routes([web.post("/v1/embeddings", server.embed)])
    async with listening(app, shutdown_s=1) as url:
        server.url = f"{url}/v1"
        try:
            yield server
        finally:
            server._ended.set()
