"""A local server with the part of OpenAI's REST protocol that text models use, which can be made to fail.

    POST /v1/chat/completions    Authorization: Bearer; messages, model, response_format -> a chat completion
    GET  /v1/models              called by `concord doctor`

Checked: the official SDK runs unmodified against it, sends these requests and reads these responses into its own
models. Not checked: that OpenAI's service, or another, responds in the same way. Texts of errors are from memory.

It answers with `reply`, a function of the request's texts. `mode` is its behaviour for the next `times` calls, or until
it is changed:

    truncate     half of the JSON, finish_reason length
    filter       no content, finish_reason content_filter
    refusal      a refusal in place of content
    empty        no content, finish_reason stop
    malformed    text that is not JSON
    prose        JSON of another shape
    nonsense     200, and a body of another shape
    stall        accepts the request and never responds
    rate         429 with Retry-After
    quota        429, insufficient_quota
    fail         503
    error        500
    key          401
    drop         accepts (and charges), then cuts the connection
    break        streams half of the answer, then cuts the connection
    refuse       cuts the connection at once, uncharged
    echo_key     500, with the key in the message

`refuses` names parameters that it does not take. `asked` is the ledger: the texts of every request that was accepted,
including dropped ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.servers.billing import cut
from tests.servers.hosts import listening

#: The only valid API key.
KEY = "sk-test-key-of-nobody"

#: The pause that a 429 asks for, in seconds.
PAUSE_S = 7.0

#: What is asked: the instructions and the content.
Asked = tuple[str, str]

#: What `prose` answers.
PROSE = {"answer": "I would say so", "hippopotamus": True}


def title(_: Asked) -> Any:
    """An answer that titles a call."""
    return {"title": "A call", "description": "Somebody calls."}


@dataclass
class OpenAIServer:
    """The routes, and the requests that were received."""

    mode: str = ""
    #: Remaining calls of the mode; None: until it is changed.
    times: int | None = None
    #: The answer, as JSON or as the text itself.
    reply: Callable[[Asked], Any] = title
    refuses: set[str] = field(default_factory=set)
    models: tuple[str, ...] = ("gpt-local",)
    #: Duration of a call in seconds.
    delay_s: float = 0.0
    #: Seconds between two pieces of a stream.
    piece_s: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=8 << 20)
        app.add_routes([web.post("/v1/chat/completions", self.complete), web.get("/v1/models", self.list_models)])
        return app

    def misbehave(self, mode: str = "", times: int | None = None) -> None:
        """Set the mode for the next calls."""
        self.mode, self.times = mode, times

    def _mode(self) -> str:
        if self.times is not None:
            self.times -= 1
            if self.times < 0:
                self.mode, self.times = "", None
        return self.mode

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        if (answer := _refused(request, self._mode())) is not None:
            return answer
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "us"} for name in self.models]
        return web.json_response({"object": "list", "data": data})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body, mode = await request.json(), self._mode()
        if (answer := _refused(request, mode)) is not None:
            return answer
        if body["model"] not in self.models:
            return _error(404, f"The model `{body['model']}` does not exist", code="model_not_found")
        if refused := next((name for name in sorted(self.refuses) if name in body), None):
            return _error(400, f"Unsupported parameter: '{refused}'", code="unsupported_parameter", param=refused)
        system, user = body["messages"]
        assert (system["role"], user["role"]) == ("system", "user")
        asked = system["content"], user["content"]
        self.bodies.append(body)
        self.asked.append(asked)
        await asyncio.sleep(self.delay_s)
        if mode == "stall":
            await self._ended.wait()
        if mode in ("drop", "stall"):
            return cut(request)
        if mode == "nonsense":
            return web.json_response({"choices": "none", "usage": [1]})
        completion = self._completion(asked, mode)
        return await self._stream(request, body, completion) if body.get("stream") else web.json_response(completion)

    async def _stream(
        self, request: web.Request, body: dict[str, Any], completion: dict[str, Any]
    ) -> web.StreamResponse:
        """The same, in pieces of 16 characters; `break` cuts the connection in the middle."""
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        choice = completion["choices"][0]
        message, common = choice["message"], {name: completion[name] for name in ("id", "created", "model")}
        common |= {"object": "chat.completion.chunk"}
        text = message["content"] or ""
        deltas: list[dict[str, Any]] = [{"content": text[at : at + 16]} for at in range(0, len(text), 16)]
        if message["refusal"]:
            deltas = [{"refusal": message["refusal"]}]
        for n, delta in enumerate(deltas):
            await self._piece(stream, common | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            await asyncio.sleep(self.piece_s)
            if self.mode == "break" and n == len(deltas) // 2:
                return cut(request)
        end = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
        await self._piece(stream, common | {"choices": [end]})
        if (body.get("stream_options") or {}).get("include_usage"):
            await self._piece(stream, common | {"choices": [], "usage": completion["usage"]})
        await stream.write(b"data: [DONE]\n\n")
        return stream

    async def _piece(self, stream: web.StreamResponse, chunk: dict[str, Any]) -> None:
        await stream.write(b"data: %b\n\n" % json.dumps(chunk).encode())

    def _completion(self, asked: Asked, mode: str) -> dict[str, Any]:
        reply = self.reply(asked)
        content, finish = spoiled(reply if isinstance(reply, str) else json.dumps(reply), mode)
        if mode == "filter":
            content, finish = None, "content_filter"
        message = {"role": "assistant", "content": content, "refusal": None}
        if mode == "refusal":
            message |= {"content": None, "refusal": "I'm sorry, I cannot assist with that request."}
        prompt, answer = sum(map(len, asked)) // 4, len(content or "") // 4
        return {
            "id": f"chatcmpl-{next(self._numbers)}",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": "gpt-local",
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
        }


def spoiled(text: str, mode: str) -> tuple[str | None, str]:
    """The text of an answer in a mode, and why it ends, in OpenAI's words."""
    match mode:
        case "truncate":
            return text[: len(text) // 2], "length"
        case "empty":
            return None, "stop"
        case "malformed":
            return "Here is the JSON: ```{answers", "stop"
        case "prose":
            return json.dumps(PROSE), "stop"
    return text, "stop"


def _refused(request: web.Request, mode: str) -> web.StreamResponse | None:
    """The response of a request that is refused, uncharged; None if it is accepted."""
    if mode == "refuse":
        return cut(request)
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if given != KEY or mode == "key":
        return _error(401, f"Incorrect API key provided: {given}.", code="invalid_api_key")
    if mode == "rate":
        answer = _error(429, "Rate limit reached for requests", code="rate_limit_exceeded")
        answer.headers["Retry-After"] = f"{PAUSE_S:g}"
        return answer
    if mode == "quota":
        return _error(429, "You exceeded your current quota.", code="insufficient_quota")
    if mode == "fail":
        return _error(503, "The engine is currently overloaded.")
    if mode == "error":
        return _error(500, "The server had an error.")
    if mode == "echo_key":
        return _error(500, f"upstream said no to {given}")
    return None


def _error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return web.json_response({"error": error}, status=status)


@contextlib.asynccontextmanager
async def openai_server() -> AsyncIterator[OpenAIServer]:
    """A server in this process on a free port; stalled requests are cut off when it ends."""
    server = OpenAIServer()
    async with listening(server.app(), shutdown_s=1) as url:
        server.url = f"{url}/v1"
        try:
            yield server
        finally:
            server._ended.set()
