"""A local server with the part of ElevenLabs' REST protocol about conversations of agents, which can be made to fail.

    GET /v1/convai/conversations/{id}         xi-api-key -> the conversation, in the status that it has by now
    GET /v1/convai/conversations/{id}/audio   audio/mpeg, chunked
    GET /v1/convai/conversations              ?agent_id&call_start_after_unix&page_size&cursor -> a page, newest first

Checked: the official SDK 2.78.0 runs unmodified against it (paths, header, query, fields, paging, the stream).
Not checked, for want of an account: that ElevenLabs responds in the same way. Texts of errors are from memory, as is
that the list is ordered by the beginning of conversations.

`conversations` has what there is; `misbehave(mode, times, on=...)` says how the next calls (`get`, `audio`, `list`) go:

    cut          the connection is cut at once
    lose         the answer is cut in its middle
    rate         429 with Retry-After
    fail         503
    error        500
    key          401
    forbidden    403
    stall        no answer
    garble       200, and HTML
    mangle       200, and JSON of another shape
    echo_key     500, with the key in the message
    absent       404

`chance` and `share` make a share of all calls misbehave at random, in one of `MODES`. `calls` are the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.servers.billing import cut
from tests.servers.hosts import listening

#: The only valid API key.
KEY: Final = "xi-test-key-of-nobody"

#: The pause that a 429 asks for, in seconds.
PAUSE_S: Final = 3.0

#: What `chance` chooses from: everything that passes.
MODES: Final = ("cut", "lose", "rate", "fail", "error", "garble")

#: Turns of a conversation that suits most tests: (role, message, seconds).
TURNS: Final = (
    ("agent", "Thank you for calling Harbour Dental. How can I help you?", 0),
    ("user", "I would like to move my appointment on Tuesday.", 4),
    ("agent", "Of course. Would Thursday at ten suit you?", 8),
    ("user", "Yes, Thursday at ten is fine.", 12),
)


@dataclass
class Scripted:
    """A conversation on the server."""

    turns: Sequence[Any] = TURNS
    audio: bytes | None = None
    #: Statuses that the next requests show; then it is `status`.
    before: list[str] = field(default_factory=list)
    status: str = "done"
    agent_id: str = "agent_1"
    started: int = 1_790_000_000
    seconds: float = 16
    #: Fields that replace those of the answer; a value of `...` leaves one out.
    fields: dict[str, Any] = field(default_factory=dict)
    #: Whether the recording's stream breaks off in its middle, this many times.
    cut_audio: int = 0

    def answer(self, id: str) -> dict[str, Any]:
        """The conversation as ElevenLabs shows it."""
        status = self.before.pop(0) if self.before else self.status
        is_done = status in ("done", "processing")
        answer = self.item(id) | {
            "status": status,
            "transcript": [_turn(turn) for turn in self.turns] if is_done else [],
            "has_audio": self.audio is not None,
            "has_user_audio": self.audio is not None,
            "has_response_audio": self.audio is not None,
            "has_auxiliary_audio": False,
            "metadata": {
                "start_time_unix_secs": self.started,
                "call_duration_secs": self.seconds,
                "cost": 123,
                "main_language": "en",
                "phone_call": None,
            },
            "analysis": {"call_successful": "success", "transcript_summary": "Somebody moves an appointment."},
        }
        return {name: value for name, value in (answer | self.fields).items() if value is not ...}

    def item(self, id: str) -> dict[str, Any]:
        """The conversation in a list."""
        return {
            "agent_id": self.agent_id,
            "conversation_id": id,
            "start_time_unix_secs": self.started,
            "call_duration_secs": self.seconds,
            "message_count": len(self.turns),
            "status": self.status,
            "call_successful": "success",
        }


def _turn(turn: Any) -> Any:
    if not isinstance(turn, tuple):
        return turn
    role, message, seconds = turn
    return {"role": role, "message": message, "time_in_call_secs": seconds, "tool_calls": [], "feedback": None}


@dataclass
class ElevenLabsServer:
    """The routes, and the requests that were received."""

    conversations: dict[str, Scripted] = field(default_factory=dict)
    mode: str = ""
    #: Remaining calls of the mode; None: until it is changed.
    times: int | None = None
    #: Calls to which the mode applies.
    on: tuple[str, ...] = ()
    chance: random.Random | None = None
    share: float = 0.0
    #: Conversations of a page, at most.
    on_a_page: int = 100
    #: Requests, as (call, conversation id or agent id).
    calls: list[tuple[str, str]] = field(default_factory=list)
    #: Headers of the last request.
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> web.Application:
        app = web.Application()
        base = "/v1/convai/conversations"
        app.add_routes(
            [
                web.get(base, self.list),
                web.get(f"{base}/{{id}}", self.get),
                web.get(f"{base}/{{id}}/audio", self.audio),
            ]
        )
        return app

    def misbehave(self, mode: str = "", times: int | None = None, on: Sequence[str] = ("get", "audio", "list")) -> None:
        """Set the mode for the next calls of these kinds."""
        self.mode, self.times, self.on = mode, times, tuple(on)

    def count(self, call: str) -> int:
        """How many requests of this kind were received."""
        return sum(kind == call for kind, _ in self.calls)

    async def get(self, request: web.Request) -> web.StreamResponse:
        id, mode = request.match_info["id"], self._mode("get")
        if (answer := await self._refused(request, "get", id, mode)) is not None:
            return answer
        scripted = self.conversations.get(id)
        if scripted is None:
            return _error(404, f"Conversation with id {id} not found.", "conversation_not_found")
        return await self._json(request, scripted.answer(id), mode)

    async def list(self, request: web.Request) -> web.StreamResponse:
        query, mode = request.query, self._mode("list")
        if (answer := await self._refused(request, "list", query.get("agent_id", ""), mode)) is not None:
            return answer
        after, agent = int(query.get("call_start_after_unix", "0")), query.get("agent_id")
        there = [
            scripted.item(id)
            for id, scripted in self.conversations.items()
            if scripted.started >= after and agent in (None, scripted.agent_id)
        ]
        there.sort(key=lambda item: (-item["start_time_unix_secs"], item["conversation_id"]))
        size = min(int(query.get("page_size", "30")), self.on_a_page)
        begin = int(query.get("cursor", "0"))
        page, has_more = there[begin : begin + size], begin + size < len(there)
        cursor = str(begin + size) if has_more else None
        return await self._json(request, {"conversations": page, "next_cursor": cursor, "has_more": has_more}, mode)

    async def audio(self, request: web.Request) -> web.StreamResponse:
        id, mode = request.match_info["id"], self._mode("audio")
        if (answer := await self._refused(request, "audio", id, mode)) is not None:
            return answer
        scripted = self.conversations.get(id)
        if scripted is None or scripted.audio is None:
            return _error(404, "No audio for this conversation.", "missing_conversation_audio")
        response = web.StreamResponse(headers={"Content-Type": "audio/mpeg"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        is_cut = scripted.cut_audio > 0 or mode == "lose"
        scripted.cut_audio -= scripted.cut_audio > 0
        content = scripted.audio[: len(scripted.audio) // 2] if is_cut else scripted.audio
        with contextlib.suppress(ConnectionError):
            for begin in range(0, len(content), 1 << 16):
                await response.write(content[begin : begin + (1 << 16)])
            if is_cut:
                return _cut_off(request, response)
            await response.write_eof()
        return response

    def _mode(self, call: str) -> str:
        if self.chance is not None and self.chance.random() < self.share:
            return self.chance.choice(MODES)
        if not self.mode or call not in self.on:
            return ""
        if self.times is not None:
            self.times -= 1
            if self.times < 0:
                self.mode, self.times = "", None
        return self.mode

    async def _json(self, request: web.Request, body: Any, mode: str) -> web.StreamResponse:
        match mode:
            case "garble":
                return web.Response(text="<html>a gateway's page</html>", content_type="text/html")
            case "mangle":
                return web.json_response([{"status": 7}, "conversations"])
            case "lose":
                text = json.dumps(body).encode()
                response = web.StreamResponse(headers={"Content-Type": "application/json"})
                response.content_length = len(text)
                await response.prepare(request)
                await response.write(text[: len(text) // 2])
                return _cut_off(request, response)
        return web.json_response(body)

    async def _refused(self, request: web.Request, call: str, of: str, mode: str) -> web.StreamResponse | None:
        """The response of a request that is refused; None if it is answered."""
        self.calls.append((call, of))
        self.headers = dict(request.headers)
        given = request.headers.get("xi-api-key", "")
        if mode == "cut":
            return cut(request)
        if mode == "stall":
            await self._ended.wait()
            return cut(request)
        if given != KEY or mode == "key":
            return _error(401, "Invalid API key", "invalid_api_key")
        match mode:
            case "rate":
                answer = _error(429, "Too many requests", "too_many_concurrent_requests")
                answer.headers["Retry-After"] = f"{PAUSE_S:g}"
                return answer
            case "fail":
                return _error(503, "The service is overloaded", "system_busy")
            case "error":
                return _error(500, "Something went wrong", "internal_server_error")
            case "forbidden":
                return _error(403, "The API key you used is missing the permission convai_read", "missing_permissions")
            case "absent":
                return _error(404, f"Conversation with id {of} not found.", "conversation_not_found")
            case "echo_key":
                return _error(500, f"upstream said no to {given}", "upstream")
        return None


def _cut_off(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()  # type: ignore[attr-defined]
    return response


def _error(status: int, message: str, kind: str) -> web.Response:
    return web.json_response({"detail": {"status": kind, "message": message}}, status=status)


@contextlib.asynccontextmanager
async def elevenlabs_server() -> AsyncIterator[ElevenLabsServer]:
    """A server in this process on a free port; stalled requests are cut off when it ends."""
    server = ElevenLabsServer()
    async with listening(server.app(), shutdown_s=1) as url:
        server.url = url
        try:
            yield server
        finally:
            server._ended.set()
