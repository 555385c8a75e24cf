"""Google Cloud Speech v2 by `Recognize`, in pieces: see `agents.asr.pieces.recognizer`, also for what a kill costs.

Why pieces: `Recognize` takes 10 MB or a minute at most, and `BatchRecognize` only reads Google's own storage. With a
bucket there, `batch_recognize` is the better choice. Diarization is not requested; an answer that contains it is read
correctly.
"""

from __future__ import annotations

from agents.asr.google.speech import CHECK_S, Speech, read
from agents.asr.pieces.parts import Part, Span
from agents.asr.pieces.recognizer import CLOSE_S, PARALLEL, RETRIES, InPieces, Piece, Service
from agents.asr.protocols import Request
from schemas.words import Hypothesis

#: Seconds for one call. Long, because a call whose answer comes too late is paid for.
TIMEOUT_S = 90.0


class _Recognize(Service):
    """Google's call as a `Service`."""

    def __init__(self, speech: Speech, timeout_s: float) -> None:
        self.name = speech.name
        self._speech, self._timeout_s = speech, timeout_s

    async def opened(self) -> None:
        """See `Service`."""
        await self._speech.opened()

    def settings(self, request: Request) -> bytes:
        """See `Service`."""
        config = self._speech.config(request.language)
        settings: bytes = type(config).pb(config).SerializeToString(deterministic=True)
        return b"\0".join((self._speech.recognizer.encode(), settings))

    async def ask(self, request: Request, piece: Piece) -> bytes:
        """See `Service`."""
        from google.cloud.speech_v2 import RecognizeResponse

        if not isinstance(piece.sound, bytes):
            raise TypeError("Google takes no whole recordings in a request")
        await self._speech.connected(self._timeout_s)
        answer = await self._speech.recognize(piece.sound, self._speech.config(request.language), self._timeout_s)
        return RecognizeResponse.to_json(answer, indent=None).encode()  # type: ignore[no-any-return]

    def read(self, answer: bytes, span: Span) -> Part:
        """See `Service`."""
        from google.cloud.speech_v2 import RecognizeResponse
        from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

        try:
            response = RecognizeResponse.from_json(answer.decode(), ignore_unknown_fields=True)
        except ParseError as exc:
            raise ValueError("not Google's JSON") from exc
        return read(RecognizeResponse.pb(response), span.start_ms, span.length_ms)

    def hypothesis(self, request: Request, parts: list[Part]) -> Hypothesis:
        """See `Service`."""
        return self._speech.hypothesis(parts, request.language)

    async def check(self) -> None:
        """See `Speech.check`."""
        await self._speech.check(min(CHECK_S, self._timeout_s))

    async def close(self) -> None:
        """See `Service`."""
        await self._speech.close()


class Google(InPieces):
    """Google Cloud Speech as a `ChunkedRecognizer`."""

    def __init__(
        self,
        speech: Speech,
        *,
        parallel: int = PARALLEL,
        retries: int = RETRIES,
        timeout_s: float = TIMEOUT_S,
        close_s: float = CLOSE_S,
    ) -> None:
        super().__init__(_Recognize(speech, timeout_s), parallel=parallel, retries=retries, close_s=close_s)
