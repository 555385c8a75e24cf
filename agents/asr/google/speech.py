"""What both recognizers of Google Cloud Speech v2 share: the vendor's gRPC client, its credentials, the configuration
of requests, the reading of answers, and the translation of errors.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from agents.asr.google.credentials import load_credentials
from agents.asr.pieces.parts import Part, in_order, joined
from schemas.errors import NotAccepted, ProviderError, RateLimited, SettingsError, Transient
from schemas.words import Hypothesis, Word

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.credentials import Credentials
    from google.cloud.speech_v2 import RecognitionConfig, RecognizeResponse, SpeechAsyncClient

#: Seconds for the call of `Speech.check`.
CHECK_S = 10.0

#: OAuth's final refusals of a token (RFC 6749, 5.2). gRPC reports them as the service being unavailable.
_NO_TOKEN = ("invalid_grant", "invalid_client", "unauthorized_client")

#: Milliseconds after which a connection that delivers nothing is closed, with all data that were sent over it. Without
#: a limit the operating system retries for minutes: longer than the time in which a request is assumed to arrive.
DELIVERY_MS = 20_000

_OPTIONS = [
    # An hour of words is more than 4 MB, gRPC's default.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC sets the second as TCP_USER_TIMEOUT if the first is set. The vendor forbids more frequent pings.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", DELIVERY_MS),
]

_Answer = TypeVar("_Answer")


class Speech:
    """One model of Google Cloud Speech v2. Connects at the first call."""

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
    ) -> None:
        """`languages` are the candidates for a recording whose language is to be detected.

        `endpoint` is `host:port` (TLS) or `http://host:port` (plaintext, without credentials). By default it is the
        location's own.
        """
        self.name = name
        self.model = model
        #: The resource whose operations are listed.
        self.parent = f"projects/{project}/locations/{location}"
        self.recognizer = f"{self.parent}/recognizers/_"
        self._languages = tuple(languages)
        regional = "" if location == "global" else f"{location}-"
        self._endpoint = endpoint or f"{regional}speech.googleapis.com"
        self._credentials = credentials
        self._client: SpeechAsyncClient | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def opened(self) -> SpeechAsyncClient:
        """The client. The first call imports the SDK, which takes seconds, in a thread.

        Raises:
            NotAccepted: This was closed.
            ProviderError: The credentials cannot be used.
        """
        async with self._opening:
            if self._closed:
                raise NotAccepted(f"{self.name} is shut down")
            if self._client is None:
                try:
                    credentials = await asyncio.to_thread(_imported, self._credentials)
                except SettingsError as exc:
                    raise ProviderError(f"{self.name}: {exc}") from exc
                self._client = _client(self._endpoint, credentials)
            return self._client

    async def call(self, call: Callable[[SpeechAsyncClient], Awaitable[_Answer]], timeout_s: float) -> _Answer:
        """Make a call and return Google's answer, which may be no message of the protocol.

        `timeout_s` is the timeout that `call` sets, for the error text.

        Raises:
            RateLimited: Google asks for a pause.
            Transient: There was no answer; Google may have accepted the request.
            ProviderError: Google refuses the request or the credentials.
        """
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError

        client = await self.opened()
        try:
            return await call(client)
        except GoogleAPICallError as exc:
            raise self._translated(exc, timeout_s) from exc
        except GoogleAuthError as exc:
            raise ProviderError(f"{self.name}: the credentials do not work: {exc}") from exc

    async def connected(self, timeout_s: float) -> None:
        """Connect, if need be, before a call that bills.

        gRPC reports a request that could not be sent and one whose answer was lost with the same error. After this, a
        failure to connect is excluded.

        Raises:
            NotAccepted: There is no connection within `timeout_s` seconds.
        """
        from grpc import ChannelConnectivity as State  # type: ignore[import-untyped]

        channel = cast("Any", await self.opened()).transport.grpc_channel
        try:
            async with asyncio.timeout(timeout_s):
                while (state := channel.get_state(try_to_connect=True)) != State.READY:
                    if state in (State.TRANSIENT_FAILURE, State.SHUTDOWN):
                        raise NotAccepted(f"{self.name}: {self._endpoint} cannot be reached")
                    await channel.wait_for_state_change(state)
        except TimeoutError as exc:
            raise NotAccepted(f"{self.name}: {self._endpoint} is not reached within {timeout_s:.0f} s") from exc

    async def recognize(self, content: bytes, config: RecognitionConfig, timeout_s: float) -> RecognizeResponse:
        """Recognize less than a minute of audio in one call, which bills. Raises as `call` does."""
        from google.cloud.speech_v2 import RecognizeRequest, RecognizeResponse

        request = RecognizeRequest(recognizer=self.recognizer, config=config, content=content)
        # The generated method has neither a timeout nor a retry of its own in v2.
        answer = await self.call(lambda c: c.recognize(request=request, retry=None, timeout=timeout_s), timeout_s)
        if not isinstance(answer, RecognizeResponse):  # gRPC returns None for an unreadable answer; it is paid for
            raise ProviderError(f"{self.name} answered with what is no message of its protocol")
        return answer

    async def check(self, timeout_s: float = CHECK_S) -> None:
        """Check connection and credentials by a request without audio, which Google refuses to authorized callers only.

        Never bills. It does not find out whether the model exists and supports the language. Raises as `call` does.
        """
        from google.api_core.exceptions import InvalidArgument

        await self.opened()
        try:
            await self.recognize(b"", self.config("auto"), timeout_s)
        except ProviderError as exc:
            if not isinstance(exc.__cause__, InvalidArgument):
                raise

    async def close(self) -> None:
        """Close the connection. Later calls fail. Safe to call twice."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.transport.close()  # type: ignore[no-untyped-call]

    def config(self, language: str, *, diarize: bool = False, speakers: int | None = None) -> RecognitionConfig:
        """The configuration of a request. Imports the SDK: call `opened` first."""
        from google.cloud.speech_v2 import (
            AutoDetectDecodingConfig,
            RecognitionConfig,
            RecognitionFeatures,
            SpeakerDiarizationConfig,
        )

        features = RecognitionFeatures(
            enable_automatic_punctuation=True, enable_word_time_offsets=True, enable_word_confidence=True
        )
        if diarize:
            count = {} if speakers is None else {"min_speaker_count": speakers, "max_speaker_count": speakers}
            features.diarization_config = SpeakerDiarizationConfig(**count)
        return RecognitionConfig(
            auto_decoding_config=AutoDetectDecodingConfig(),
            model=self.model,
            language_codes=self._language_codes(language),
            features=features,
        )

    def _language_codes(self, language: str) -> list[str]:
        """Google's codes, which mostly have a region: "en" becomes "en-GB" if that is configured."""
        if language == "auto":
            return list(self._languages)
        regional = (code for code in self._languages if code.lower().startswith(f"{language.lower()}-"))
        return [next(regional, language)]

    def hypothesis(self, parts: Sequence[Part], language: str = "auto") -> Hypothesis:
        """The transcripts of consecutive parts of a recording as one. `language` is the requested one."""
        tells_language = len(self._languages) > 1
        return joined(self.name, parts, language=language, model=self.model, tells_language=tells_language)

    def _translated(self, exc: GoogleAPICallError, timeout_s: float) -> ProviderError | Transient:
        from google.api_core import exceptions as google

        reason = f"{type(exc).__name__}: {exc.message}"[:300]
        match exc:
            case google.TooManyRequests():
                return RateLimited(f"{self.name} asks for a pause ({reason})", retry_after=_retry_after(exc))
            case google.Unauthorized():
                advice = "check the file that GOOGLE_APPLICATION_CREDENTIALS names"
                return ProviderError(f"{self.name} does not accept our credentials ({reason}): {advice}")
            case google.Forbidden():
                advice = f"let them use Cloud Speech-to-Text (role Cloud Speech Client) as {self.recognizer}"
                return ProviderError(f"{self.name} does not let our credentials do this ({reason}): {advice}")
            case google.GatewayTimeout():
                return Transient(f"{self.name}: {self._endpoint} did not answer within {timeout_s:.0f} s ({reason})")
            case google.ServiceUnavailable() if any(refusal in reason for refusal in _NO_TOKEN):
                return ProviderError(f"{self.name}: no token is given for our credentials ({reason})")
            case google.ServiceUnavailable():
                message = f"{self.name}: {self._endpoint} cannot be reached or is out of order ({reason})"
                return Transient(message, retry_after=_retry_after(exc))
            case google.Aborted() | google.Cancelled():
                return Transient(f"{self.name} broke off ({reason})", retry_after=_retry_after(exc))
            case google.ClientError() | google.MethodNotImplemented():
                return ProviderError(f"{self.name} refuses the request ({reason})")
            case _:
                return Transient(f"{self.name} failed ({reason})", retry_after=_retry_after(exc))


def read(answer: Any, start_ms: int = 0, length_ms: int | None = None, *, speakers: bool = False) -> Part:
    """Reads an answer, of which any field may be missing.

    `answer` is the protobuf message of a `RecognizeResponse` or of `BatchRecognizeResults`, about audio that begins at
    `start_ms`. If its length is not known, it ends with the last word. With `speakers`, words keep speaker labels.
    """
    words: list[Word] = []
    language, end_ms = "", 0
    for result in answer.results:
        end_ms = max(end_ms, result.result_end_offset.ToMilliseconds())
        if not result.alternatives or result.channel_tag > 1:
            continue
        best = result.alternatives[0]
        language = language or _tag(result.language_code)
        new = _words(best, start_ms, length_ms, speakers)
        if any(word.speaker_label for word in best.words):
            # With diarization, a result repeats all words from the beginning: the newest result counts.
            words = _until(words, new[0].start_ms)
        words += new
    if length_ms is None:
        length_ms = max(end_ms, _last_end_ms(words))
    billed_s = answer.metadata.total_billed_duration.ToMilliseconds() / 1000 or math.ceil(length_ms / 1000)
    return Part(start_ms, length_ms, tuple(in_order(words)), language, billed_s)


def _words(alternative: Any, begin_ms: int, length_ms: int | None, speakers: bool) -> list[Word]:
    """The words of an alternative; those of its text, if it has no list of words."""
    return [_word(word, begin_ms, length_ms, speakers) for word in alternative.words] or [
        Word(text, confidence=_probability(alternative.confidence)) for text in alternative.transcript.split()
    ]


def _last_end_ms(words: Sequence[Word]) -> int:
    return max((word.end_ms or 0 for word in words), default=0)


def _until(words: list[Word], end_ms: int | None) -> list[Word]:
    """The words that start before `end_ms`, and those without a time; all of them if it is None."""
    return [word for word in words if end_ms is None or word.start_ms is None or word.start_ms < end_ms]


def _word(word: Any, begin_ms: int, length_ms: int | None, speakers: bool) -> Word:
    def time_ms(offset: Any) -> int:
        within: int = max(0, offset.ToMilliseconds())
        return begin_ms + (within if length_ms is None else min(length_ms, within))

    start = end = None
    if word.HasField("end_offset"):  # an offset of zero may be left out
        end = time_ms(word.end_offset)
    if word.HasField("start_offset") or end is not None:
        start = time_ms(word.start_offset)
        end = max(start, end if end is not None else start)
    speaker = (word.speaker_label or None) if speakers else None
    return Word(word.word.strip(), start, end, _probability(word.confidence), speaker)


def _probability(confidence: float) -> float | None:
    """The confidence; None for 0, which means that Google does not report it."""
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

    # At level DEBUG, the SDK writes every recording and every transcript to the log.
    logging.getLogger("google").setLevel(logging.INFO)
    return None if file is None else load_credentials(file)


def _client(endpoint: str, credentials: Credentials | None) -> SpeechAsyncClient:
    """A client; nothing is sent yet. gRPC binds it to the running event loop."""
    import grpc
    from google.api_core.client_options import ClientOptions
    from google.cloud.speech_v2 import SpeechAsyncClient
    from google.cloud.speech_v2.services.speech.transports import SpeechGrpcAsyncIOTransport

    if endpoint.startswith("http://"):
        plain = grpc.aio.insecure_channel(endpoint.removeprefix("http://").rstrip("/"), options=_OPTIONS)
        return SpeechAsyncClient(transport=SpeechGrpcAsyncIOTransport(channel=plain))

    def secure(*arguments: Any, **options: Any) -> Any:
        return SpeechGrpcAsyncIOTransport.create_channel(*arguments, **options | {"options": _OPTIONS})

    return SpeechAsyncClient(
        credentials=credentials,
        client_options=ClientOptions(api_endpoint=endpoint),
        transport=partial(SpeechGrpcAsyncIOTransport, channel=secure),
    )
