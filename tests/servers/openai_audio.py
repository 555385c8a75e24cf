"""A local server with the part of OpenAI's REST protocol that transcribes; see `tests/servers/at_once.py`.

    POST /v1/audio/transcriptions   Authorization: Bearer; a form with file, model, ... -> the transcript
    GET  /v1/models                 called by `concord doctor`

Checked: OpenAI's own SDK (3.57) runs unmodified against it, and reads its answers into its own models; according to the
SDK's types: which model takes which format, and what the answers' fields are. Whisper's words have no punctuation, and
its language is a name ("english"), as OpenAI's documentation shows. Not checked, for want of an account: texts of
errors, and whether a request whose client is gone is billed (here it is).
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
KEY = "sk-test-key-of-nobody"

#: The vendor's limit of a file.
LIMIT_BYTES = 25 << 20

#: The names that OpenAI gives to languages, by their codes.
_NAMES = {"en": "english", "de": "german", "fr": "french"}


class Server(at_once.Server):
    """OpenAI's transcription."""

    def __init__(self, ledger: Any, *, key: str = KEY, **options: Any) -> None:
        super().__init__(ledger, key=key, **options)

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/audio/transcriptions", self.transcribe), web.get("/v1/models", self.list_models)]

    def is_known(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {self.key}"

    def error(self, status: int, message: str) -> web.Response:
        if status == 402:  # OpenAI has another status for it
            status, code = 429, "insufficient_quota"
        else:
            code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        return web.json_response({"error": error}, status=status)

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        if (refusal := await self.misbehaved(request)) is not None:
            return refusal
        data = [{"id": "whisper-1", "object": "model", "created": 0, "owned_by": "us"}]
        return web.json_response({"object": "list", "data": data})

    async def transcribe(self, request: web.Request) -> web.StreamResponse:
        return await self.recognized(request, lambda: form(request), _wrong)

    def answer(self, charge: dict[str, Any], words: Sequence[HeardWord]) -> dict[str, Any]:
        without, wish = self.switches.without, charge["wish"]
        text = ", ".join(word[0].title() for word in words) + "." if words else ""
        if wish["model"][0].startswith("gpt-"):
            # As tokens: a space and the word's first letter, the rest, the punctuation.
            tokens = [part for word in text.split() for part in (f" {word[0]}", word[1:-1], word[-1])]
            sure = [{"token": token, "logprob": math.log(0.9) / 3, "bytes": []} for token in tokens]
            asked = "logprobs" in wish.get("include[]", []) and "confidences" not in without
            usage = {"type": "tokens", "input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
            return {"text": text, "usage": usage} | ({"logprobs": sure} if asked else {})
        spoken = wish.get("language", ["en"])[0]
        times = "times" not in without
        segment = {"id": 0, "seek": 0, "start": 0.0, "end": charge["seconds"], "text": f" {text}", "tokens": []}
        segment |= {"temperature": 0.0, "compression_ratio": 1.0, "no_speech_prob": 0.0}
        answer: dict[str, Any] = {"task": "transcribe", "text": text, "duration": charge["seconds"]}
        if "confidences" not in without:
            segment["avg_logprob"] = math.log(0.9)
        if "language" not in without:
            answer["language"] = _NAMES.get(spoken, spoken)
        if "billing" not in without:
            answer["usage"] = {"type": "duration", "seconds": charge["billed"]}
        if times:
            answer["segments"] = [segment]
        if "words" not in without and "word" in wish.get("timestamp_granularities[]", []):
            answer["words"] = [
                {"word": word.title()} | ({"start": start_s, "end": end_s} if times else {})
                for word, start_s, end_s, _ in words
            ]
        return answer


def _wrong(wish: dict[str, Any]) -> str | None:
    """What OpenAI refuses."""
    model = wish.get("model", [""])[0]
    if not model:
        return "you must provide a model parameter"
    form_of_answer = wish.get("response_format", ["json"])[0]
    if model.startswith("gpt-") and form_of_answer != "json":
        return (
            f"response_format '{form_of_answer}' is not compatible with model '{model}'. Use 'json' or 'text' instead."
        )
    if wish.get("timestamp_granularities[]") and form_of_answer != "verbose_json":
        return "timestamp_granularities needs response_format verbose_json"
    if wish.get("include[]") and not model.startswith("gpt-4o"):
        return "include is not supported by this model"
    if "prompt" in wish:
        return "no prompt is expected here"
    return None
