"""Google Cloud Speech v2, through the vendor's own gRPC client: the recording goes up in pieces of under a minute, each
by one `Recognize`, several at a time.

Why pieces: `Recognize` takes 10 MB or a minute, `BatchRecognize` only what already lies in Google's own storage.

What it promises about money: the answer to each piece is kept under the piece's content before its lane asks for
another, so a restart sends only what was not answered. What it cannot promise: `Recognize` has neither an idempotency
key nor a list of past requests. A call that was in flight when this process was killed, or whose answer was lost on the
way, is sent, and billed, a second time: at most `PARALLEL` pieces a recording and kill, each under a minute, and one
for a lost answer. An orderly end waits for the calls in flight and loses none.

Nobody is told apart: Google numbers the speakers of each piece anew, and numbers that change their meaning every minute
are worse than none. Diarization is therefore not asked for; an answer that has it all the same is read rightly.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.providers import Answers, Request, Turns
from agents.providers.pieces import Cutter, Flac
from schemas.errors import Paused, ProviderError, RateLimited, SettingsError, Transient
from schemas.words import Hypothesis, Word

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.credentials import Credentials
    from google.cloud.speech_v2 import RecognitionConfig, RecognizeResponse, SpeechAsyncClient

#: Pieces of one recording that are with Google at once.
PARALLEL = 4
#: Seconds for one call. Long, because an answer that comes too late was paid for.
TIMEOUT_S = 90.0
#: How often a piece is tried again: half a minute of outage; the stage tries thrice more. Not without end, because
#: whoever loses our answers may be charging for them.
RETRIES = 5
#: Seconds between two tries at most, where Google does not say.
LONGEST_PAUSE_S = 60.0
#: Seconds that closing waits for calls in flight: what is left of a worker's ten.
CLOSE_S = 6.0
#: Seconds for the call that `check` makes.
CHECK_S = 10.0

#: What OAuth calls a final no (RFC 6749, 5.2). gRPC reports it as the service being unavailable.
_NO_TOKEN = ("invalid_grant", "invalid_client", "unauthorized_client")


class Google:
    """A `PiecewiseRecognizer`: one model of Google Cloud Speech v2."""

    def __init__(
        self,
        name: str,
        *,
        project: str,
        location: str = "global",
        model: str = "long",
        languages: Sequence[str] = ("en-US",),
        endpoint: str | None = None,
        credentials: Path | None = None,
        parallel: int = PARALLEL,
        retries: int = RETRIES,
        timeout_s: float = TIMEOUT_S,
        close_s: float = CLOSE_S,
    ) -> None:
        """`languages` are what a recording may be in that nobody named a language for. `endpoint` is `host:port` (TLS)
        or `http://host:port` (plaintext, without credentials); the location's own if not given.
        """
        self.name = name
        self._recognizer = f"projects/{project}/locations/{location}/recognizers/_"
        self._model, self._languages = model, tuple(languages)
        regional = "" if location == "global" else f"{location}-"
        self._endpoint = endpoint or f"{regional}speech.googleapis.com"
        self._credentials = credentials
        self._parallel, self._retries = parallel, retries
        self._timeout_s, self._close_s = timeout_s, close_s
        self._client: SpeechAsyncClient | None = None
        self._opening = asyncio.Lock()
        self._lanes: set[asyncio.Task[None]] = set()
        self._closed = False

    async def transcribe_pieces(
        self, audio: Path, request: Request, progress: Callable[[float], None], answers: Answers, turns: Turns
    ) -> Hypothesis:
        """See `PiecewiseRecognizer`. Cancelling it gives up the calls in flight."""
        await self._opened()
        config = self._config(request)
        heard: list[_Heard] = []
        async with Cutter(audio) as cutter:
            stop = asyncio.Event()

            async def lane() -> None:
                try:
                    while not stop.is_set() and (piece := await self._next(cutter)) is not None:
                        heard.append(await self._heard(piece, config, answers, turns))
                        if request.duration_ms:
                            progress(min(0.99, sum(h.length_ms for h in heard) / request.duration_ms))
                finally:
                    stop.set()  # nothing is left, or this failed: then the others finish what they pay for, and no more

            lanes = [asyncio.create_task(lane()) for _ in range(self._parallel)]
            self._lanes.update(lanes)
            for task in lanes:
                task.add_done_callback(self._lanes.discard)
            failures = [f for f in await asyncio.gather(*lanes, return_exceptions=True) if f is not None]
        if failures:
            # Of several, the one that counts most: a final no, then what may be billed.
            raise min(failures, key=lambda f: (isinstance(f, Transient), isinstance(f, RateLimited)))
        progress(1.0)
        return self._whole(sorted(heard, key=lambda h: h.start_ms), request)

    async def check(self) -> None:
        """Raise what a recording would meet, if Google cannot be reached or lets us not in. Bills nothing.

        It asks to recognize no sound at all: that is refused, but only to those who may ask. Whether the model is
        there and knows the language, it does not find out.
        """
        await self._call(b"", self._config(None), min(CHECK_S, self._timeout_s), empty=True)

    async def close(self) -> None:
        """See `PiecewiseRecognizer`."""
        self._closed = True
        if self._lanes:
            _, late = await asyncio.wait(self._lanes, timeout=self._close_s)
            for task in late:
                task.cancel()
        client, self._client = self._client, None
        if client is not None:
            await client.transport.close()  # type: ignore[no-untyped-call]

    async def _next(self, cutter: Cutter) -> Flac | None:
        if self._closed:
            raise Transient(f"{self.name} is shut down")
        return await cutter.next()

    async def _heard(self, piece: Flac, config: RecognitionConfig, answers: Answers, turns: Turns) -> _Heard:
        """What Google hears in the piece, or heard when it was asked before."""
        from google.cloud.speech_v2 import RecognizeResponse

        if piece.silent:
            return _Heard(piece.start_ms, piece.length_ms)
        key = self._key(piece, config)
        response = _kept(await answers.get(key))
        if response is None:
            response = await self._asked(piece, config, turns)
            await answers.put(key, RecognizeResponse.to_json(response, indent=None).encode())
            await turns.worked()
        return _read(response, piece)

    def _key(self, piece: Flac, config: RecognitionConfig) -> str:
        """What was asked, in a name: an answer is good for exactly that."""
        settings = type(config).pb(config).SerializeToString(deterministic=True)
        return hashlib.sha256(b"\0".join((self._recognizer.encode(), settings, piece.content))).hexdigest()

    async def _asked(self, piece: Flac, config: RecognitionConfig, turns: Turns) -> RecognizeResponse:
        """One piece's answer, tried again where that may help."""
        attempt = 0
        lost: Transient | None = None  # what may have been billed all the same counts, whatever pause comes after it
        while True:
            try:
                await turns.wait()
            except Paused as pause:
                raise lost or pause from None
            if self._closed:
                raise Transient(f"{self.name} is shut down")
            try:
                return await self._call(piece.content, config, self._timeout_s)
            except Transient as exc:
                await turns.failed(exc)
                lost = lost if isinstance(exc, RateLimited) else exc
                if attempt >= self._retries or self._closed:
                    raise lost or exc from None
                if exc.retry_after is None:
                    await asyncio.sleep(random.uniform(0.5, 1.0) * min(2.0**attempt, LONGEST_PAUSE_S))  # noqa: S311
                attempt += 1

    async def _call(
        self, content: bytes, config: RecognitionConfig, timeout_s: float, *, empty: bool = False
    ) -> RecognizeResponse:
        from google.api_core.exceptions import GoogleAPICallError, InvalidArgument
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.speech_v2 import RecognizeRequest, RecognizeResponse

        client = await self._opened()
        request = RecognizeRequest(recognizer=self._recognizer, config=config, content=content)
        try:
            # The generated method has neither a timeout nor a retry of its own in v2.
            answer = await client.recognize(request=request, retry=None, timeout=timeout_s)
        except GoogleAPICallError as exc:
            if empty and isinstance(exc, InvalidArgument):
                return RecognizeResponse()
            raise self._translated(exc, timeout_s) from exc
        except GoogleAuthError as exc:
            raise ProviderError(f"{self.name}: the credentials do not work: {exc}") from exc
        if not isinstance(answer, RecognizeResponse):  # gRPC gives None for what it cannot read; and it is paid for
            raise ProviderError(f"{self.name} answered with what is no message of its protocol")
        return answer

    def _translated(self, exc: GoogleAPICallError, timeout_s: float) -> ProviderError | Transient:
        from google.api_core import exceptions as google

        said = f"{type(exc).__name__}: {exc.message}"[:300]
        match exc:
            case google.TooManyRequests():
                return RateLimited(f"{self.name} asks for a pause ({said})", retry_after=_retry_after(exc))
            case google.Unauthorized():
                advice = "check the file that GOOGLE_APPLICATION_CREDENTIALS names"
                return ProviderError(f"{self.name} does not accept our credentials ({said}): {advice}")
            case google.Forbidden():
                advice = f"let them use Cloud Speech-to-Text (role Cloud Speech Client) as {self._recognizer}"
                return ProviderError(f"{self.name} does not let our credentials do this ({said}): {advice}")
            case google.GatewayTimeout():
                return Transient(f"{self.name}: {self._endpoint} did not answer within {timeout_s:.0f} s ({said})")
            case google.ServiceUnavailable() if any(no in said for no in _NO_TOKEN):
                return ProviderError(f"{self.name}: our credentials are good for no token ({said})")
            case google.ServiceUnavailable():
                message = f"{self.name}: {self._endpoint} cannot be reached or is out of order ({said})"
                return Transient(message, retry_after=_retry_after(exc))
            case google.Aborted() | google.Cancelled():
                return Transient(f"{self.name} broke off ({said})", retry_after=_retry_after(exc))
            case google.ClientError() | google.MethodNotImplemented():
                return ProviderError(f"{self.name} refuses ({said})")
            case _:
                return Transient(f"{self.name} failed ({said})", retry_after=_retry_after(exc))

    async def _opened(self) -> SpeechAsyncClient:
        async with self._opening:
            if self._closed:
                raise Transient(f"{self.name} is shut down")
            if self._client is None:
                try:
                    credentials = await asyncio.to_thread(_imported, self._credentials)
                except SettingsError as exc:
                    raise ProviderError(f"{self.name}: {exc}") from exc
                self._client = _client(self._endpoint, credentials)
            return self._client

    def _config(self, request: Request | None) -> RecognitionConfig:
        from google.cloud.speech_v2 import AutoDetectDecodingConfig, RecognitionConfig, RecognitionFeatures

        features = RecognitionFeatures(
            enable_automatic_punctuation=True, enable_word_time_offsets=True, enable_word_confidence=True
        )
        return RecognitionConfig(
            auto_decoding_config=AutoDetectDecodingConfig(),
            model=self._model,
            language_codes=self._wanted(request.language if request is not None else "auto"),
            features=features,
        )

    def _wanted(self, language: str) -> list[str]:
        """What Google calls a language: mostly with a region, so "en" is taken for a configured "en-GB"."""
        if language == "auto":
            return list(self._languages)
        full = (known for known in self._languages if known.lower().startswith(f"{language.lower()}-"))
        return [next(full, language)]

    def _whole(self, heard: Sequence[_Heard], request: Request) -> Hypothesis:
        """The pieces' words, one after the other."""
        words = tuple(word for piece in heard for word in piece.words)
        confidences = [word.confidence for word in words if word.confidence is not None]
        languages = Counter(piece.language for piece in heard for _ in piece.words if piece.language)
        asked = None if request.language == "auto" else request.language
        billed = [piece.billed_s for piece in heard if piece.billed_s is not None]
        return Hypothesis(
            provider=self.name,
            words=words,
            language=asked or (languages.most_common(1)[0][0] if languages else None),
            duration_ms=heard[-1].start_ms + heard[-1].length_ms if heard else 0,
            confidence=round(sum(confidences) / len(confidences), 4) if confidences else None,
            model=self._model,
            # What the recording costs: each piece counted once, however often a lost answer had it sent again.
            details={"requests": len(billed), "billed_seconds": math.ceil(sum(billed))},
        )


@dataclass(frozen=True, slots=True)
class _Heard:
    """One piece's answer, in the recording's own time."""

    start_ms: int
    length_ms: int
    words: tuple[Word, ...] = ()
    #: BCP 47; "" if not told.
    language: str = ""
    #: Seconds that Google bills for it; None for silence, which is not sent.
    billed_s: float | None = None


def _kept(answer: bytes | None) -> RecognizeResponse | None:
    """An answer from the store. One that cannot be read is none."""
    from google.cloud.speech_v2 import RecognizeResponse
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

    if answer is None:
        return None
    try:
        return RecognizeResponse.from_json(answer.decode(), ignore_unknown_fields=True)  # type: ignore[no-any-return]
    except (ParseError, UnicodeDecodeError):
        return None


def _read(response: RecognizeResponse, piece: Flac) -> _Heard:
    """The words of an answer, whatever it leaves out."""
    message: Any = type(response).pb(response)
    words: list[Word] = []
    language = ""
    for result in message.results:
        if not result.alternatives or result.channel_tag > 1:
            continue
        best = result.alternatives[0]
        language = language or _tag(result.language_code)
        new = [_word(word, piece) for word in best.words] or [
            Word(text, confidence=_probability(best.confidence)) for text in best.transcript.split()
        ]
        if any(word.speaker_label for word in best.words) and (first := new[0].start_ms) is not None:
            # With speakers, a result has all words from the beginning again: the newest is right.
            words = [word for word in words if word.start_ms is None or word.start_ms < first]
        words += new
    billed = message.metadata.total_billed_duration
    billed_s = billed.ToMilliseconds() / 1000 or math.ceil(piece.length_ms / 1000)
    return _Heard(piece.start_ms, piece.length_ms, tuple(_in_order(words)), language, billed_s)


def _word(word: Any, piece: Flac) -> Word:
    start = end = None
    if word.HasField("end_offset"):  # an offset of zero may be left out
        end = piece.start_ms + min(piece.length_ms, max(0, word.end_offset.ToMilliseconds()))
    if word.HasField("start_offset") or end is not None:
        start = piece.start_ms + min(piece.length_ms, max(0, word.start_offset.ToMilliseconds()))
        end = max(start, end if end is not None else start)
    return Word(word.word.strip(), start, end, _probability(word.confidence))


def _in_order(words: Sequence[Word]) -> Iterator[Word]:
    """Without empty words, and with starts that never go back."""
    last = 0
    for word in words:
        if not word.text:
            continue
        if word.start_ms is None or word.end_ms is None:
            yield word
            continue
        last = max(last, word.start_ms)
        yield Word(word.text, last, max(last, word.end_ms), word.confidence)


def _probability(confidence: float) -> float | None:
    """Zero is Google's way of not saying."""
    return round(min(1.0, confidence), 4) if confidence > 0 else None


def _tag(code: str) -> str:
    """BCP 47 in its usual case: "en-us" is "en-US"."""
    language, *rest = code.split("-")
    return "-".join(
        [
            language.lower(),
            *(part.upper() if len(part) == 2 else part.title() if len(part) == 4 else part for part in rest),
        ]
    )


def _retry_after(exc: GoogleAPICallError) -> float | None:
    """Seconds, from the error's `RetryInfo`."""
    from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]

    pauses = [d.retry_delay.ToMilliseconds() / 1000 for d in exc.details if isinstance(d, RetryInfo)]
    return max(0.0, *pauses, 0.0) or None if pauses else None


def _imported(file: Path | None) -> Credentials | None:
    """Import the SDK, which takes seconds, and read the credentials. In a thread."""
    import google.cloud.speech_v2  # noqa: F401

    # At DEBUG it writes every recording and every transcript into the log.
    logging.getLogger("google").setLevel(logging.INFO)
    return None if file is None else load_credentials(file)


def load_credentials(file: Path) -> Credentials:
    """The credentials in a file as the Google Cloud console and `gcloud` write it.

    Raises `SettingsError` without a word of the file in it.
    """
    from google.auth.exceptions import GoogleAuthError

    try:
        kind, info = _parsed(file)
        match kind:
            case "service_account":
                from google.oauth2 import service_account

                return service_account.Credentials.from_service_account_info(info)  # type: ignore[no-any-return,no-untyped-call]
            case "authorized_user":
                from google.oauth2 import credentials

                return credentials.Credentials.from_authorized_user_info(info)  # type: ignore[no-any-return,no-untyped-call]
            case "external_account":
                from google.auth import identity_pool

                return identity_pool.Credentials.from_info(info)  # type: ignore[no-any-return,no-untyped-call]
    except (OSError, ValueError, KeyError, GoogleAuthError) as exc:
        problem = f"{file} cannot be used ({exc.strerror if isinstance(exc, OSError) else type(exc).__name__})"
        raise SettingsError(f"GOOGLE_APPLICATION_CREDENTIALS: {problem}") from None
    known = "service_account, authorized_user or external_account"
    raise SettingsError(f"GOOGLE_APPLICATION_CREDENTIALS: {file} is no key file: its type is not {known}")


def _parsed(file: Path) -> tuple[str, dict[str, Any]]:
    info = json.loads(file.read_bytes())
    return (str(info.get("type")), info) if isinstance(info, dict) else ("", {})


def _client(endpoint: str, credentials: Credentials | None) -> SpeechAsyncClient:
    """A client; nothing is sent yet. In the event loop, which gRPC ties it to."""
    import grpc  # type: ignore[import-untyped]
    from google.api_core.client_options import ClientOptions
    from google.cloud.speech_v2 import SpeechAsyncClient
    from google.cloud.speech_v2.services.speech.transports import SpeechGrpcAsyncIOTransport

    if endpoint.startswith("http://"):
        channel = grpc.aio.insecure_channel(endpoint.removeprefix("http://").rstrip("/"))
        return SpeechAsyncClient(transport=SpeechGrpcAsyncIOTransport(channel=channel))
    return SpeechAsyncClient(credentials=credentials, client_options=ClientOptions(api_endpoint=endpoint))
