"""A local server that speaks Gemini's REST protocol as far as a judge of disputed words needs it, as bad as a test
wants.

    POST /v1beta/models/{model}:generateContent    x-goog-api-key; GenerateContentRequest -> GenerateContentResponse
    GET  /v1beta/models/{model}                    what `concord doctor` asks

What was checked: the official SDK runs unmodified against it, sends these requests and reads these answers into its own
models (names of fields, finish and block reasons, usage metadata, the error envelope with RetryInfo). What was not:
that Google's service answers so. Texts of errors, and the status of a wrong key (400 with API_KEY_INVALID), are from
memory.

It judges by `pick`: the longest reading, unless told otherwise. `mode` says how it answers, for the next `times` calls
or for good:

    truncate     half of the JSON, finishReason MAX_TOKENS
    block        no candidate, promptFeedback.blockReason
    safety       a candidate without content, finishReason SAFETY
    empty        a candidate without text
    invent       a word that nobody heard, as the choice
    unknown      indexes and places that were not offered
    twice        each place twice, with different choices
    some         every second place is left out
    loop         the same entry again and again, finishReason STOP
    malformed    what is no JSON
    prose        JSON of another shape
    nonsense     200, and a body that is no answer of Gemini's
    stall        takes the request and never answers
    rate         429 with Retry-After and RetryInfo
    fail         503
    key          400, API_KEY_INVALID
    drop         accepts (and charges), then cuts the connection
    refuse       cuts the connection at once, uncharged
    echo_key     500, with the key in the message

`asked` is the ledger: every request that was accepted, with the places in it; a dropped one, too.
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

#: The only key that it takes.
KEY = "AIza-test-key-of-nobody"

#: The pause that it asks for, in seconds.
PAUSE_S = 7.0

Place = dict[str, Any]


def longest(place: Place) -> str:
    """The number of the longest reading."""
    return max(place["readings"], key=lambda n: (len(place["readings"][n]), n))


@dataclass
class GeminiServer:
    """The routes, and what came in."""

    mode: str = ""
    #: Calls that the mode lasts for; None: until it is changed.
    times: int | None = None
    pick: Callable[[Place], str] = longest
    models: tuple[str, ...] = ("gemini-3.8-flash",)
    #: Seconds that a call takes.
    delay_s: float = 0.0
    asked: list[list[Place]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def places(self) -> list[tuple[str, ...]]:
        """What was asked about, place by place: the words before it, its readings, the words after it."""
        return [(p["before"], *sorted(p["readings"].values()), p["after"]) for call in self.asked for p in call]

    def app(self) -> web.Application:
        app = web.Application(client_max_size=8 << 20)
        app.add_routes(
            [
                web.post(r"/v1beta/models/{model}:generateContent", self.generate),
                web.get("/v1beta/models/{model}", self.get),
            ]
        )
        return app

    def misbehave(self, mode: str = "", times: int | None = None) -> None:
        """Answer in this way from now on."""
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
        assert config["responseSchema"]["type"] == "OBJECT"
        places = json.loads(body["contents"][0]["parts"][0]["text"])["places"]
        self.bodies.append(body)
        self.asked.append(places)
        await asyncio.sleep(self.delay_s)
        if mode == "stall":
            await self._ended.wait()
        if mode in ("drop", "stall"):
            return cut(request)
        if mode == "nonsense":
            return web.json_response({"candidates": "none", "usageMetadata": [1]})
        return web.json_response(self._answer(places, mode) | {"usageMetadata": _usage(places)})

    async def _refused(self, request: web.Request, mode: str) -> web.StreamResponse | None:
        """What is answered before anything is charged."""
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

    def _answer(self, places: list[Place], mode: str) -> dict[str, Any]:
        id = {"responseId": f"response-{next(self._numbers)}", "modelVersion": "gemini-local"}
        if mode == "block":
            return id | {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        if mode == "safety":
            return id | {"candidates": [{"finishReason": "SAFETY", "index": 0}]}
        text, finish = _text(places, mode, self.pick)
        parts = [] if mode == "empty" else [{"text": text}]
        content = {"role": "model", "parts": parts}
        return id | {"candidates": [{"content": content, "finishReason": finish, "index": 0}]}


def _text(places: list[Place], mode: str, pick: Callable[[Place], str]) -> tuple[str, str]:
    entries = [{"id": place["id"], "choice": pick(place)} for place in places]
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


def _usage(places: list[Place]) -> dict[str, int]:
    prompt, answer, thoughts = 300 + 60 * len(places), 12 * len(places), 40
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
    """A server in this process, on a port of its own; whoever stalls is cut off when it ends."""
    server = GeminiServer()
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        server._ended.set()
        await runner.cleanup()
