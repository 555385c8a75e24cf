"""A local server with the part of Deepgram's REST protocol that transcribes recordings; see `tests/servers/at_once.py`.

    POST /v1/listen      Authorization: Token; sound -> the transcript, by the parameters of the query
    GET  /v1/projects    called by `concord doctor`

Checked: the vendor's own SDK (7.17) runs unmodified against it and reads its answers into its own models, whose fields
these are; an answer that somebody published has the same ones. Not checked, for want of an account: texts of errors,
whether a request whose client is gone is billed (here it is), and how the vendor rounds (here up to the second).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from tests.servers import at_once
from tests.servers.at_once import Switches
from tests.servers.google_speech import HeardWord

__all__ = ["KEY", "Server", "Switches"]

#: The only valid API key.
KEY = "dg-test-key-of-nobody"

_CODES = {401: "INVALID_AUTH", 402: "ASR_PAYMENT_REQUIRED", 403: "INSUFFICIENT_PERMISSIONS", 429: "TOO_MANY_REQUESTS"}


class Server(at_once.Server):
    """Deepgram's transcription of recordings."""

    def __init__(self, ledger: Any, *, key: str = KEY, **options: Any) -> None:
        super().__init__(ledger, key=key, **options)

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/listen", self.listen), web.get("/v1/projects", self.list_projects)]

    def is_known(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Token {self.key}"

    def error(self, status: int, message: str) -> web.Response:
        body = {"err_code": _CODES.get(status, "Bad Request"), "err_msg": message, "request_id": "a-request"}
        return web.json_response(body, status=status)

    async def list_projects(self, request: web.Request) -> web.StreamResponse:
        if (refusal := await self.misbehaved(request)) is not None:
            return refusal
        return web.json_response({"projects": [{"project_id": "a-project", "name": "ours"}]})

    async def listen(self, request: web.Request) -> web.StreamResponse:
        async def read() -> tuple[dict[str, Any], bytes]:
            return {name: request.query.getall(name) for name in request.query}, await request.read()

        return await self.recognized(request, read, _wrong)

    def answer(self, charge: dict[str, Any], words: Sequence[HeardWord]) -> dict[str, Any]:
        without, wish = self.switches.without, charge["wish"]
        text = ", ".join(word[0].title() for word in words) + "." if words else ""
        alternative: dict[str, Any] = {"transcript": text}
        if "confidences" not in without:
            alternative["confidence"] = 0.9
        if "words" not in without:
            alternative["words"] = [
                self._word(wish, number, *word, written)
                for number, (word, written) in enumerate(zip(words, text.split(), strict=True))
            ]
        channel: dict[str, Any] = {"alternatives": [alternative]}
        if wish.get("detect_language") == ["true"] and "language" not in without:
            channel |= {"detected_language": "en", "language_confidence": 0.99}
        metadata: dict[str, Any] = {"transaction_key": "deprecated", "request_id": charge["id"], "channels": 1}
        metadata |= {"sha256": charge["sha256"], "created": "2026-11-30T12:00:00.000Z", "models": ["a-model"]}
        if "billing" not in without:
            metadata["duration"] = charge["billed"]
        return {"metadata": metadata, "results": {"channels": [channel]}}

    def _word(
        self, wish: dict[str, Any], number: int, text: str, start_s: float, end_s: float, sure: float, written: str
    ) -> dict[str, Any]:
        word: dict[str, Any] = {"word": text, "punctuated_word": written}
        if "times" not in self.switches.without:
            word |= {"start": start_s, "end": end_s}
        if "confidences" not in self.switches.without:
            word["confidence"] = sure
        if wish.get("diarize") == ["true"]:
            word |= {"speaker": number % 2, "speaker_confidence": 0.5}
        return word


def _wrong(wish: dict[str, Any]) -> str | None:
    """What Deepgram refuses."""
    if "language" in wish and "detect_language" in wish:
        return "language and detect_language exclude each other"
    if "keyterm" in wish and not wish.get("model", [""])[0].startswith("nova-3"):
        return "Keyterm prompting is only available with Nova-3"
    return None
