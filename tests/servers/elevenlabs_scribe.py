"""A local server with the part of ElevenLabs' REST protocol that transcribes; see `tests/servers/at_once.py`.

    POST   /v1/speech-to-text                    xi-api-key; a form with file, model_id ... -> the transcript
    DELETE /v1/speech-to-text/transcripts/{id}   `deleted` has the ids
    GET    /v1/user                              called by `concord doctor`

Checked: the vendor's own SDK (2.78) runs unmodified against it and reads its answers into its own models, whose fields
these are. Not checked, for want of an account: texts of errors, whether a request whose client is gone is billed (here
it is), and how the vendor rounds (here up to the second).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from tests.servers import at_once
from tests.servers.at_once import Switches, form
from tests.servers.google_speech import HeardWord

__all__ = ["KEY", "Server", "Switches"]

#: The only valid API key.
KEY = "xi-test-key-of-nobody"

_STATUS = {401: "invalid_api_key", 402: "quota_exceeded", 403: "missing_permissions", 429: "too_many_requests"}


class Server(at_once.Server):
    """Scribe."""

    def __init__(self, ledger: Any, *, key: str = KEY, **options: Any) -> None:
        super().__init__(ledger, key=key, **options)
        #: Whether the key may look at its user.
        self.restricted = False

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/speech-to-text", self.convert),
            web.delete("/v1/speech-to-text/transcripts/{id}", self.delete),
            web.get("/v1/user", self.show_user),
        ]

    def is_known(self, request: web.Request) -> bool:
        return request.headers.get("xi-api-key") == self.key

    def error(self, status: int, message: str) -> web.Response:
        detail = {"status": _STATUS.get(status, "error"), "message": message}
        return web.json_response({"detail": detail}, status=401 if status == 402 else status)

    async def show_user(self, request: web.Request) -> web.StreamResponse:
        if (refusal := await self.misbehaved(request)) is not None:
            return refusal
        if self.restricted:
            detail = {"status": "missing_permissions", "message": "The API key you used is missing user_read"}
            return web.json_response({"detail": detail}, status=401)
        return web.json_response({"user_id": "a-user"})

    async def delete(self, request: web.Request) -> web.StreamResponse:
        if not self.is_known(request) or self.switches.takes("keep"):
            return self.error(500, "the switch keep is on")
        self.deleted.append(request.match_info["id"])
        return web.json_response({"message": "deleted"})

    async def convert(self, request: web.Request) -> web.StreamResponse:
        return await self.recognized(request, lambda: form(request), _wrong)

    def answer(self, charge: dict[str, Any], words: Sequence[HeardWord]) -> dict[str, Any]:
        without, wish = self.switches.without, charge["wish"]
        text = ", ".join(word[0].title() for word in words) + "." if words else ""
        answer: dict[str, Any] = {"text": text, "transcription_id": f"transcript-of-{charge['id']}", "words": []}
        if "words" not in without:
            for number, (word, written) in enumerate(zip(words, text.split(), strict=True)):
                if number:
                    answer["words"].append({"text": " ", "type": "spacing", "start": 0, "end": 0, "logprob": 0})
                answer["words"].append(self._word(wish, number, word, written))
            answer["words"].append({"text": "(laughter)", "type": "audio_event", "start": 0, "end": 1, "logprob": 0})
        if "language" not in without:
            answer |= {"language_code": _ISO_639_3.get(wish.get("language_code", ["en"])[0], "eng")}
            answer["language_probability"] = 0.99
        if "billing" not in without:
            answer["audio_duration_secs"] = charge["billed"]
        return answer

    def _word(self, wish: dict[str, Any], number: int, word: HeardWord, written: str) -> dict[str, Any]:
        _, start_s, end_s, sure = word
        told: dict[str, Any] = {"text": written, "type": "word"}
        if "times" not in self.switches.without:
            told |= {"start": start_s, "end": end_s}
        if "confidences" not in self.switches.without:
            told["logprob"] = math.log(sure)
        if wish.get("diarize") == ["true"]:
            told["speaker_id"] = f"speaker_{number % 2}"
        return told


_ISO_639_3 = {"en": "eng", "de": "deu", "fr": "fra"}


def _wrong(wish: dict[str, Any]) -> str | None:
    """What ElevenLabs refuses."""
    return None if wish.get("model_id") else "Field required: model_id"
