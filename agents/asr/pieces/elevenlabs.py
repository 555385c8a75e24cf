"""ElevenLabs' Scribe: `POST /v1/speech-to-text`, which answers with the transcript.

Why it is asked as a vendor without a list: a transcript can be had again by its id, but ids are only in answers, and
nothing lists them. With `webhook`, the id comes at once, and is lost as easily; the transcript then goes to the
addresses of the workspace, of which a request cannot name one of its own. So a lost answer is paid for again (see
`recognizer`): of a piece of under a minute usually, of the whole recording where speakers are asked for.

What the vendor keeps of a request is deleted as soon as its answer is stored here; a request whose answer was lost, or
whose deletion fails, is kept by the vendor as its terms say.

https://elevenlabs.io/docs/api-reference/speech-to-text/convert
"""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from typing import Annotated, Final
from urllib.parse import quote

from pydantic import BaseModel

from agents.asr.pieces.http_client import Account, Refused
from agents.asr.pieces.http_service import HTTPService
from agents.asr.pieces.parts import Number, Objects, Part, Span, Text, probability_of_log, read_json
from agents.asr.pieces.recognizer import InPieces, Piece
from agents.asr.protocols import Request
from schemas.errors import ProviderError, Transient
from schemas.words import Word

log = logging.getLogger(__name__)

URL: Final = "https://api.elevenlabs.io"

#: Seconds for a deletion: the next piece waits for it.
DELETE_S: Final = 5.0

#: Speakers that the vendor tells apart, at most.
MOST_SPEAKERS: Final = 32

#: What the vendor takes of a vocabulary: terms (more of them are billed as 20 s at least), characters and words of one.
TERMS, TERM_LENGTH, TERM_WORDS = 100, 50, 5


class HeardWord(BaseModel):
    """A word, the space between two, or a sound that is none. Times are in seconds."""

    text: Text = ""
    type: Text = "word"
    start: Number = None
    end: Number = None
    logprob: Number = None
    speaker_id: Text = ""


class Answer(BaseModel):
    """The answer to a request."""

    text: Text
    words: Annotated[list[HeardWord], Objects] = []
    #: ISO 639-3, as "eng".
    language_code: Text = ""
    transcription_id: Text = ""
    audio_duration_secs: Number = None


class Scribe(HTTPService):
    """ElevenLabs' call as a `Service`."""

    tells_speakers = True

    def __init__(self, name: str, key: str, model: str, base_url: str | None = None, **limits: float) -> None:
        """`limits` are those of `HTTPClient`. Raises `SettingsError` if the key cannot be one."""
        variables = "ELEVENLABS_API_KEY", "ELEVENLABS_BASE_URL"
        super().__init__(Account(name, base_url or URL, key, "xi-api-key", "", variables), model, **limits)

    async def opened(self) -> None:
        """See `Service`."""
        await asyncio.to_thread(_tag, "eng")

    def settings(self, request: Request) -> bytes:
        """See `Service`."""
        return repr(self._fields(request)).encode()

    async def ask(self, request: Request, piece: Piece) -> bytes:
        """See `Service`."""
        return await self.send_form("/v1/speech-to-text", self._fields(request), piece)

    def read(self, answer: bytes, span: Span) -> Part:
        """See `Service`."""
        read = read_json(Answer, answer)
        words = [
            span.word(word.text, word.start, word.end, probability_of_log(word.logprob), word.speaker_id or None)
            for word in read.words
            if word.type not in ("spacing", "audio_event")
        ]
        heard = words if read.words else [Word(text) for text in read.text.split()]
        return span.part(heard, _tag(read.language_code), read.audio_duration_secs)

    async def answered(self, answer: bytes) -> None:
        """See `Service`: deletes what the vendor keeps of the request."""
        if not (transcription := (await asyncio.to_thread(read_json, Answer, answer)).transcription_id):
            return
        path = f"/v1/speech-to-text/transcripts/{quote(transcription, safe='')}"
        try:
            await self._client.call("DELETE", path, "a deletion", timeout_s=DELETE_S)
        except (ProviderError, Transient) as exc:
            log.warning("%s keeps a transcript of ours: %s", self.name, exc)

    async def check(self) -> None:
        """See `Checked`: reads the key's user, or learns that the key is right and may not do that."""
        try:
            await self._client.call("GET", "/v1/user", "a look at its user")
        except Refused as exc:
            if exc.vendor_code != "missing_permissions":
                raise

    def _fields(self, request: Request) -> list[tuple[str, str]]:
        fields = [("model_id", self._model), ("timestamps_granularity", "word"), ("tag_audio_events", "false")]
        if request.language != "auto":
            fields.append(("language_code", request.language.partition("-")[0].lower()))
        fields.append(("diarize", "true" if request.diarize else "false"))
        if request.diarize and request.speakers is not None:
            fields.append(("num_speakers", str(min(request.speakers, MOST_SPEAKERS))))
        return [*fields, *(("keyterms", term) for term in request.vocabulary if _is_term(term))][: len(fields) + TERMS]


class ElevenLabs(InPieces):
    """Scribe as a `ChunkedRecognizer`, of which nothing is left to delete."""

    async def erase(self, provider_id: str | None, audio_url: str | None) -> str | None:
        """See `ErasingRecognizer`: requests have no id of ours, and were deleted when they were answered."""
        del provider_id, audio_url
        return None


def _is_term(term: str) -> bool:
    return len(term) <= TERM_LENGTH and len(term.split()) <= TERM_WORDS and not set(term) & set("<>{}[]\\")


@cache
def _tag(code: str) -> str:
    """BCP 47 of a code of ISO 639-3 or 639-1; "" for what is neither."""
    from langcodes import standardize_tag
    from langcodes.tag_parser import LanguageTagError

    if code in ("und", "mul", "zxx") or len(code) not in (2, 3):
        return ""
    try:
        return standardize_tag(code, macro=True)
    except LanguageTagError:
        return ""
