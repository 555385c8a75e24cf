"""What services behind HTTP have in common: an account, one model, and forms with a file."""

from __future__ import annotations

from typing import Any, BinaryIO

import aiohttp

from agents.asr.pieces.http_client import Account, HTTPClient
from agents.asr.pieces.parts import Part, joined
from agents.asr.pieces.recognizer import Piece, Service
from agents.asr.protocols import Request
from schemas.words import Hypothesis


class HTTPService(Service):
    """A `Service` of one vendor's account and model."""

    def __init__(self, account: Account, model: str, **limits: float) -> None:
        """`limits` are those of `HTTPClient`."""
        self.name = account.name
        self._client = HTTPClient(account, **limits)
        self._model = model

    def hypothesis(self, request: Request, parts: list[Part]) -> Hypothesis:
        """See `Service`."""
        return joined(self.name, parts, language=request.language, model=self._model)

    async def close(self) -> None:
        """See `Service`."""
        await self._client.close()

    async def send_form(self, path: str, fields: list[tuple[str, str]], piece: Piece) -> bytes:
        """POST a form with these fields and the sound as its file; the body of a successful answer. Raises as
        `Service.ask`.
        """

        def options(sound: BinaryIO) -> dict[str, Any]:
            form = aiohttp.FormData(fields)
            form.add_field("file", sound, filename="audio.flac", content_type="audio/flac")
            return {"data": form}

        return await self._client.send(path, piece.sound, options)
