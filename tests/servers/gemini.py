"""A local server with the part of Gemini's REST protocol that the adjudicator uses, which can be made to fail.

    POST /v1beta/models/{model}:generateContent    x-goog-api-key; GenerateContentRequest -> GenerateContentResponse
    GET  /v1beta/models/{model}                    called by `concord doctor`

Checked: the official SDK runs unmodified against it, sends these requests and reads these responses into its own models
(names of fields, finish and block reasons, usage metadata, the error envelope with RetryInfo). Not checked: that
Google's service responds in the same way. Texts of errors, and the status of a wrong key (400 with API_KEY_INVALID),
are from memory.

It chooses a reading by `pick`, by default the longest one; what else is asked (with `responseJsonSchema`) it answers
with `reply`, a function of the request's texts, and has in `texts`. `mode` is its behaviour for the next `times` calls,
or until it is changed:

    truncate     half of the JSON, finishReason MAX_TOKENS
    block        no candidate, promptFeedback.blockReason
    safety       a candidate without content, finishReason SAFETY
    empty        a candidate without text
    invent       a word of no recognizer as the choice
    unknown      indexes and spans that were not offered
    twice        each span twice, with different choices
    some         every second span is left out
    loop         the same entry again and again, finishReason STOP
    malformed    text that is not JSON
    prose        JSON of another shape
    nonsense     200, and a body of another shape
    stall        accepts the request and never responds
    rate         429 with Retry-After and RetryInfo
    fail         503
    key          400, API_KEY_INVALID
    drop         accepts (and charges), then cuts the connection
    break        streams most of the answer, then cuts the connection
    refuse       cuts the connection at once, uncharged
    echo_key     500, with the key in the message

`asked` is the ledger: the disputed spans of every request that was accepted, including dropped ones.
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
from tests.servers.openai import Asked, spoiled, title

#: The only valid API key.
KEY = "AIza-test-key-of-nobody"

#: The pause that a 429 asks for, in seconds.
PAUSE_S = 7.0

Span = dict[str, Any]


def longest(span: Span) -> str:
    """The number of the longest reading."""
    return max(span["readings"], key=lambda n: (len(span["readings"][n]), n))


@dataclass
class GeminiServer:
    """The routes, and the requests that were received."""

    mode: str = ""
    #: Remaining calls of the mode; None: until it is changed.
    times: int | None = None
    pick: Callable[[Span], str] = longest
    reply: Callable[[Asked], Any] = title
    models: tuple[str, ...] = ("gemini-3.8-flash",)
    #: Duration of a call in seconds.
    delay_s: float = 0.0
    asked: list[list[Span]] = field(default_factory=list)
    texts: list[Asked] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def spans(self) -> list[tuple[str, ...]]:
        """The spans of all requests: the words before, the readings, the words after."""
        return [(p["before"], *sorted(p["readings"].values()), p["after"]) for call in self.asked for p in call]

    def app(self) -> web.Application:
        app = web.Application(client_max_size=8 << 20)
        app.add_routes(
            [
                web.post(r"/v1beta/models/{model}:generateContent", self.generate),
                web.post(r"/v1beta/models/{model}:streamGenerateContent", self.generate),
                web.get("/v1beta/models/{model}", self.get),
            ]
        )
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

    async def get(self, request: web.Request) -> web.StreamResponse:
        if (answer := await self._refused(request, self._mode())) is not None:
            return answer
        return web.json_response({"name": f"models/{request.match_info['model']}", "version": "001"})

    async def generate(self, request: web.Request) -> web.StreamResponse:
        body, mode = await request.json(), self._mode()
        if (answer := await self._refused(request, mode)) is not None:
            return answer
        assert set(body) <= {"contents", "systemInstruction", "generationConfig"}, set(body)
        config = body["generationConfig"]
        assert config["responseMimeType"] == "application/json"
        content = body["contents"][0]["parts"][0]["text"]
        is_text = "responseJsonSchema" in config
        assert is_text or config["responseSchema"]["type"] == "OBJECT"
        spans = [] if is_text else json.loads(content)["places"]
        self.bodies.append(body)
        if is_text:
            self.texts.append((body["systemInstruction"]["parts"][0]["text"], content))
        else:
            self.asked.append(spans)
        await asyncio.sleep(self.delay_s)
        if mode == "stall":
            await self._ended.wait()
        if mode in ("drop", "stall"):
            return cut(request)
        if mode == "nonsense":
            return web.json_response({"candidates": "none", "usageMetadata": [1]})
        said = self._said(self.texts[-1], mode) if is_text else _text(spans, mode, self.pick)
        whole = self._answer(*said, mode) | {"usageMetadata": _usage(spans)}
        if request.path.endswith(":streamGenerateContent"):
            return await _streamed(request, whole, mode)
        return web.json_response(whole)

    def _said(self, asked: Asked, mode: str) -> tuple[str, str]:
        reply = self.reply(asked)
        text, finish = spoiled(reply if isinstance(reply, str) else json.dumps(reply), mode)
        return text or "", {"stop": "STOP", "length": "MAX_TOKENS"}[finish]

    async def _refused(self, request: web.Request, mode: str) -> web.StreamResponse | None:
        """The response of a request that is refused, uncharged; None if it is accepted."""
        if mode == "refuse":
            return cut(request)
        if request.headers.get("x-goog-api-key") != KEY or mode == "key":
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
            return _error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", info)
        if request.match_info["model"] not in self.models:
            return _error(404, "NOT_FOUND", f"models/{request.match_info['model']} is not found for API version v1beta")
        if mode == "rate":
            info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{PAUSE_S:g}s"}
            answer = _error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", info)
            answer.headers["Retry-After"] = f"{PAUSE_S:g}"
            return answer
        if mode == "fail":
            return _error(503, "UNAVAILABLE", "The model is overloaded.")
        if mode == "echo_key":
            return _error(500, "INTERNAL", f"upstream said no to {request.headers['x-goog-api-key']}")
        return None

    def _answer(self, text: str, finish: str, mode: str) -> dict[str, Any]:
        id = {"responseId": f"response-{next(self._numbers)}", "modelVersion": "gemini-local"}
        if mode == "block":
            return id | {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        if mode == "safety":
            return id | {"candidates": [{"finishReason": "SAFETY", "index": 0}]}
        parts = [] if mode == "empty" else [{"text": text}]
        content = {"role": "model", "parts": parts}
        return id | {"candidates": [{"content": content, "finishReason": finish, "index": 0}]}


async def _streamed(request: web.Request, whole: dict[str, Any], mode: str) -> web.StreamResponse:
    """The answer in pieces of 16 characters, the last of which has the end; `break` cuts the connection before that."""
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(request)
    candidates = whole.get("candidates") or [{}]
    parts = candidates[0].get("content", {}).get("parts") or [{"text": ""}]
    text = parts[0]["text"]
    for at in range(0, len(text) - 16, 16):
        content = {"role": "model", "parts": [{"text": text[at : at + 16]}]}
        piece = {"responseId": whole["responseId"], "candidates": [{"content": content, "index": 0}]}
        await stream.write(b"data: %b\r\n\r\n" % json.dumps(piece).encode())
    if mode == "break":
        return cut(request)
    rest = text[(max(0, len(text) - 1) // 16) * 16 :] if len(text) > 16 else text
    if "content" in candidates[0]:
        candidates[0]["content"]["parts"] = [{"text": rest}] if rest else []
    await stream.write(b"data: %b\r\n\r\n" % json.dumps(whole).encode())
    return stream


def _text(spans: list[Span], mode: str, pick: Callable[[Span], str]) -> tuple[str, str]:
    entries = [{"id": span["id"], "choice": pick(span)} for span in spans]
    whole = json.dumps({"answers": entries})
    match mode:
        case "truncate":
            return whole[: len(whole) // 2], "MAX_TOKENS"
        case "invent":
            entries = [entry | {"choice": "hippopotamus", "text": "hippopotamus"} for entry in entries]
        case "unknown":
            entries = [entry | {"choice": "99"} for entry in entries] + [{"id": "p999", "choice": "1"}]
        case "twice":
            entries += [entry | {"choice": "neither"} for entry in entries]
        case "some":
            entries = entries[::2]
        case "loop":
            entries = entries[:1] * 5000
        case "malformed":
            return "Here is the JSON: ```{answers", "STOP"
        case "prose":
            return json.dumps({"answers": "the first one, I think", "hippopotamus": True}), "STOP"
    return json.dumps({"answers": entries}), "STOP"


def _usage(spans: list[Span]) -> dict[str, int]:
    prompt, answer, thoughts = 300 + 60 * len(spans), 12 * len(spans), 40
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": answer,
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": prompt + answer + thoughts,
    }


def _error(code: int, status: str, message: str, *details: dict[str, Any]) -> web.Response:
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return web.json_response({"error": error}, status=code)


@contextlib.asynccontextmanager
async def gemini_server() -> AsyncIterator[GeminiServer]:
    """A server in this process on a free port; stalled requests are cut off when it ends."""
    server = GeminiServer()
    async with listening(server.app(), shutdown_s=1) as server.url:
        try:
            yield server
        finally:
            server._ended.set()
