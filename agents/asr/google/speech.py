"""Google Cloud Speech v2 as far as pieces and whole recordings have it in common: the vendor's own gRPC client and its
credentials, what is asked for, how answers are read, and what its errors mean.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from schemas.errors import NotAccepted, ProviderError, RateLimited, SettingsError, Transient
from schemas.words import Hypothesis, Word

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.credentials import Credentials
    from google.cloud.speech_v2 import RecognitionConfig, RecognizeResponse, SpeechAsyncClient

#: Seconds for the call that `Speech.check` makes.
CHECK_S = 10.0

#: What OAuth calls a final no (RFC 6749, 5.2). gRPC reports it as the service being unavailable.
_NO_TOKEN = ("invalid_grant", "invalid_client", "unauthorized_client")

#: Milliseconds after which a connection that delivers nothing is given up, with what was sent over it: else the system
#: goes on trying for minutes, longer than a request is thought to be able to arrive.
DELIVERY_MS = 20_000

_OPTIONS = [
    # An hour of words is more than the 4 MB that gRPC takes by itself.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC gives the second to the system as TCP_USER_TIMEOUT, if the first is set; more pings the vendor forbids.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", DELIVERY_MS),
]

_Answer = TypeVar("_Answer")


class Speech:
    """One model of Google Cloud Speech v2, connected when it is first asked."""

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
        """`languages` are what a recording may be in that nobody named a language for. `endpoint` is `host:port` (TLS)
        or `http://host:port` (plaintext, without credentials); the location's own if not given.
        """
        self.name = name
        self.model = model
        #: Where operations are listed.
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
        """The client; importing the SDK, which takes seconds, is done when this returns."""
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

    async def call(self, what: Callable[[SpeechAsyncClient], Awaitable[_Answer]], timeout_s: float) -> _Answer:
        """What Google answers, which is not checked; every failure is `Transient`, `RateLimited` or `ProviderError`.

        `timeout_s` is what `what` gives its call, for the message.
        """
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError

        client = await self.opened()
        try:
            return await what(client)
        except GoogleAPICallError as exc:
            raise self._translated(exc, timeout_s) from exc
        except GoogleAuthError as exc:
            raise ProviderError(f"{self.name}: the credentials do not work: {exc}") from exc

    async def connected(self, timeout_s: float) -> None:
        """Connect, if need be, before a call that bills. Raises `NotAccepted`: gRPC itself reports alike that a request
        could not be sent, and that its answer was lost.
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
        """One call, which bills, about less than a minute of sound."""
        from google.cloud.speech_v2 import RecognizeRequest, RecognizeResponse

        request = RecognizeRequest(recognizer=self.recognizer, config=config, content=content)
        # The generated method has neither a timeout nor a retry of its own in v2.
        answer = await self.call(lambda c: c.recognize(request=request, retry=None, timeout=timeout_s), timeout_s)
        if not isinstance(answer, RecognizeResponse):  # gRPC gives None for what it cannot read; and it is paid for
            raise ProviderError(f"{self.name} answered with what is no message of its protocol")
        return answer

    async def check(self, timeout_s: float = CHECK_S) -> None:
        """Raise what a recording would meet, if Google cannot be reached or lets us not in. Bills nothing.

        It asks to recognize no sound at all: that is refused, but only to those who may ask. Whether the model is
        there and knows the language, it does not find out.
        """
        from google.api_core.exceptions import InvalidArgument

        await self.opened()
        try:
            await self.recognize(b"", self.config("auto"), timeout_s)
        except ProviderError as exc:
            if not isinstance(exc.__cause__, InvalidArgument):
                raise

    async def close(self) -> None:
        """Close the connection; nothing can be asked afterwards. Safe to call twice."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.transport.close()  # type: ignore[no-untyped-call]

    def config(self, language: str, *, diarize: bool = False) -> RecognitionConfig:
        """What is asked for in every request. Once `opened`."""
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
            features.diarization_config = SpeakerDiarizationConfig()
        return RecognitionConfig(
            auto_decoding_config=AutoDetectDecodingConfig(),
            model=self.model,
            language_codes=self._wanted(language),
            features=features,
        )

    def _wanted(self, language: str) -> list[str]:
        """What Google calls a language: mostly with a region, so "en" is taken for a configured "en-GB"."""
        if language == "auto":
            return list(self._languages)
        full = (known for known in self._languages if known.lower().startswith(f"{language.lower()}-"))
        return [next(full, language)]

    def hypothesis(self, heard: Sequence[Heard], language: str = "auto") -> Hypothesis:
        """The words of parts of a recording, one after the other. `language` is what was asked for."""
        words = tuple(word for part in heard for word in part.words)
        confidences = [word.confidence for word in words if word.confidence is not None]
        languages = Counter(part.language for part in heard for _ in part.words if part.language)
        asked = None if language == "auto" else language
        billed = [part.billed_s for part in heard if part.billed_s is not None]
        return Hypothesis(
            provider=self.name,
            words=words,
            language=asked or (languages.most_common(1)[0][0] if languages else None),
            tells_language=asked is not None or len(self._languages) > 1,
            duration_ms=(heard[-1].start_ms + heard[-1].length_ms or None) if heard else 0,
            confidence=round(sum(confidences) / len(confidences), 4) if confidences else None,
            model=self.model,
            # What the recording costs: each part counted once, however often a lost answer had it sent again.
            details={"requests": len(billed), "billed_seconds": math.ceil(sum(billed))},
        )

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
                advice = f"let them use Cloud Speech-to-Text (role Cloud Speech Client) as {self.recognizer}"
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


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer, in the recording's own time."""

    start_ms: int
    length_ms: int
    words: tuple[Word, ...] = ()
    #: BCP 47; "" if not told.
    language: str = ""
    #: Seconds that Google bills for it; None for silence, which is not sent.
    billed_s: float | None = None


def read(answer: Any, start_ms: int = 0, length_ms: int | None = None, *, speakers: bool = False) -> Heard:
    """The words of an answer, whatever it leaves out.

    `answer` is the protobuf message of a `RecognizeResponse` or of `BatchRecognizeResults`, about sound that begins at
    `start_ms`; where its length is not known, it ends with what was last heard. `speakers`: who said a word is kept.
    """
    words: list[Word] = []
    language, end_ms = "", 0
    for result in answer.results:
        end_ms = max(end_ms, result.result_end_offset.ToMilliseconds())
        if not result.alternatives or result.channel_tag > 1:
            continue
        best = result.alternatives[0]
        language = language or _tag(result.language_code)
        new = [_word(word, start_ms, length_ms, speakers) for word in best.words] or [
            Word(text, confidence=_probability(best.confidence)) for text in best.transcript.split()
        ]
        if any(word.speaker_label for word in best.words) and (first := new[0].start_ms) is not None:
            # With speakers, a result has all words from the beginning again: the newest is right.
            words = [word for word in words if word.start_ms is None or word.start_ms < first]
        words += new
    if length_ms is None:
        length_ms = max(end_ms, *(word.end_ms or 0 for word in words), 0)
    billed_s = answer.metadata.total_billed_duration.ToMilliseconds() / 1000 or math.ceil(length_ms / 1000)
    return Heard(start_ms, length_ms, tuple(_in_order(words)), language, billed_s)


def _word(word: Any, begin_ms: int, length_ms: int | None, speakers: bool) -> Word:
    def place(offset: Any) -> int:
        within: int = max(0, offset.ToMilliseconds())
        return begin_ms + (within if length_ms is None else min(length_ms, within))

    start = end = None
    if word.HasField("end_offset"):  # an offset of zero may be left out
        end = place(word.end_offset)
    if word.HasField("start_offset") or end is not None:
        start = place(word.start_offset)
        end = max(start, end if end is not None else start)
    who = (word.speaker_label or None) if speakers else None
    return Word(word.word.strip(), start, end, _probability(word.confidence), who)


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
        yield replace(word, start_ms=last, end_ms=max(last, word.end_ms))


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
    import grpc
    from google.api_core.client_options import ClientOptions
    from google.cloud.speech_v2 import SpeechAsyncClient
    from google.cloud.speech_v2.services.speech.transports import SpeechGrpcAsyncIOTransport

    if endpoint.startswith("http://"):
        plain = grpc.aio.insecure_channel(endpoint.removeprefix("http://").rstrip("/"), options=_OPTIONS)
        return SpeechAsyncClient(transport=SpeechGrpcAsyncIOTransport(channel=plain))

    def secure(*where: Any, **more: Any) -> Any:
        return SpeechGrpcAsyncIOTransport.create_channel(*where, **more | {"options": _OPTIONS})

    return SpeechAsyncClient(
        credentials=credentials,
        client_options=ClientOptions(api_endpoint=endpoint),
        transport=partial(SpeechGrpcAsyncIOTransport, channel=secure),
    )
