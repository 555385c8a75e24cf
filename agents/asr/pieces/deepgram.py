"""Deepgram's API for recordings: `POST /v1/listen`, which answers with the transcript.

Why it is asked as a vendor without a list: Deepgram keeps no transcripts. `GET /v1/projects/{id}/requests` lists
requests by their tags, and so could prove that one was made and billed, but its transcript cannot be had a second time.
With `callback`, the transcript is sent to an address of ours a few times within minutes, and is lost, too, if nobody
listens. So a lost answer is paid for again (see `recognizer`): of a piece of under a minute usually, of the whole
recording where speakers are asked for. Deepgram bills seconds without a minimum, so that pieces cost no more.

https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded
"""

from __future__ import annotations

from typing import Annotated, Any, BinaryIO, Final

from pydantic import BaseModel, Field

from agents.asr.pieces.http_client import Account
from agents.asr.pieces.http_service import HTTPService
from agents.asr.pieces.parts import Number, Objects, Part, Span, Text, probability, read_json
from agents.asr.pieces.recognizer import Piece
from agents.asr.protocols import Request
from schemas.words import Word

URL: Final = "https://api.deepgram.com"

#: Terms of a vocabulary that are sent, at most (the vendor takes 500 tokens).
TERMS: Final = 100

#: Languages of which the vendor knows regions by these tags; of others only the first subtag is sent.
_REGIONAL: Final = frozenset({"en", "es", "fr", "pt", "de", "nl", "sv", "da", "ko", "th", "zh"})


class HeardWord(BaseModel):
    """A word. Times are in seconds."""

    word: Text = ""
    punctuated_word: Text = ""
    start: Number = None
    end: Number = None
    confidence: Number = None
    #: From 0, if speakers were asked for.
    speaker: Number = None


class Alternative(BaseModel):
    """One reading of the sound."""

    transcript: Text = ""
    confidence: Number = None
    words: Annotated[list[HeardWord], Objects] = []


class Channel(BaseModel):
    """The readings of one channel, the best first."""

    alternatives: Annotated[list[Alternative], Objects]
    detected_language: Text = ""


class Results(BaseModel):
    """The channels of the sound."""

    channels: Annotated[list[Channel], Objects, Field(min_length=1)]


class Metadata(BaseModel):
    """What the request was about."""

    #: Seconds, which are billed.
    duration: Number = None


class Answer(BaseModel):
    """The answer to a request."""

    results: Results
    metadata: Metadata = Metadata()


class Listen(HTTPService):
    """Deepgram's call as a `Service`."""

    tells_speakers = True

    def __init__(self, name: str, key: str, model: str, base_url: str | None = None, **limits: float) -> None:
        """`limits` are those of `HTTPClient`. Raises `SettingsError` if the key cannot be one."""
        variables = "DEEPGRAM_API_KEY", "DEEPGRAM_BASE_URL"
        super().__init__(Account(name, base_url or URL, key, "Authorization", "Token ", variables), model, **limits)

    def settings(self, request: Request) -> bytes:
        """See `Service`."""
        return repr(self._parameters(request)).encode()

    async def ask(self, request: Request, piece: Piece) -> bytes:
        """See `Service`."""

        def options(sound: BinaryIO) -> dict[str, Any]:
            return {"params": self._parameters(request), "data": sound, "headers": {"Content-Type": "audio/flac"}}

        return await self._client.send("/v1/listen", piece.sound, options)

    def read(self, answer: bytes, span: Span) -> Part:
        """See `Service`."""
        read = read_json(Answer, answer)
        channel = read.results.channels[0]
        best = channel.alternatives[0] if channel.alternatives else Alternative()
        return span.part(_words(best, span), channel.detected_language, read.metadata.duration)

    async def check(self) -> None:
        """See `Checked`: reads the key's projects."""
        await self._client.call("GET", "/v1/projects", "a look at its projects")

    def _parameters(self, request: Request) -> list[tuple[str, str]]:
        parameters = [("model", self._model), ("smart_format", "true"), ("tag", "concord")]
        if request.language == "auto":
            parameters.append(("detect_language", "true"))
        else:
            primary = request.language.partition("-")[0].lower()
            parameters.append(("language", request.language if primary in _REGIONAL else primary))
        if request.diarize:
            parameters.append(("diarize", "true"))
        # Models before Nova-3 know `keywords` only.
        name = "keyterm" if self._model.startswith(("nova-3", "flux")) else "keywords"
        return [*parameters, *((name, term) for term in request.vocabulary[:TERMS])]


def _words(best: Alternative, span: Span) -> list[Word]:
    """The words of an alternative; those of its text, if it has no list of words."""
    return [
        span.word(
            word.punctuated_word or word.word,
            word.start,
            word.end,
            probability(word.confidence),
            None if word.speaker is None else f"{word.speaker:.0f}",
        )
        for word in best.words
    ] or [Word(text, confidence=probability(best.confidence)) for text in best.transcript.split()]
