"""The interfaces of recognizers, which turn a recording into a hypothesis of its words.

There are four, because a process that dies in the middle has different consequences. A `RemoteRecognizer` bills for a
request, which can be found again at the provider by its marker, so it is made once. A `LocalRecognizer` costs only our
own processor time and is run again. A `ChunkedRecognizer` bills for each chunk of the recording and keeps no list of
requests, so each of its answers is stored at once. A `PublishedRecognizer` reads its requests from Kafka, to which they
are published with the transaction that knows of them.

Each provider is one file or folder; its SDK is imported only there, and only when the recognizer is opened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from schemas.errors import Transient
from schemas.topics import Topic
from schemas.words import Hypothesis


@dataclass(frozen=True, slots=True)
class Request:
    """One recording for one recognizer."""

    tenant_id: str
    job_id: str
    run: int
    #: Unique for (job, run, provider). The provider returns it in its list, so that a request whose answer was lost
    #: can be found.
    marker: str
    #: BCP 47, or "auto" to detect.
    language: str = "auto"
    diarize: bool = False
    #: The number of speakers to tell apart; None if nobody knows it.
    speakers: int | None = None
    redact_pii: bool = False
    content_type: str = "application/octet-stream"
    duration_ms: int | None = None
    vocabulary: tuple[str, ...] = field(default=())
    #: Where the provider reads the audio, if it was uploaded first; may contain a signature. See `UploadingRecognizer`.
    audio_url: str | None = field(default=None, repr=False)
    #: When `audio_url` was made: no request with it is older.
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Languages:
    """The languages that a recognizer hears. By default any, and its hypotheses say which one it heard."""

    #: Primary subtags of BCP 47 ("en") of those that it can hear when none is asked for; None for any.
    unasked: frozenset[str] | None = None
    #: Whether it hears others, too, if one of them is asked for with `Request.language`.
    others_if_asked: bool = False

    @property
    def one(self) -> str | None:
        """The only language that it hears when none is asked for; None if it distinguishes several.

        A recognizer with one waits for the recording's language, if others of the run can tell it.
        """
        return next(iter(self.unasked)) if self.unasked is not None and len(self.unasked) == 1 else None

    def hears(self, language: str) -> bool:
        """Whether it hears this language (a primary subtag) if it is asked for."""
        return self.unasked is None or self.others_if_asked or language in self.unasked


#: Those of a recognizer of which nothing else is known.
ANY = Languages()


def languages_of_model(name: str) -> Languages:
    """The languages of a local model by its name, which ends in a dot and a language if the model hears only that one:
    `whisper-tiny.en`, `moonshine-base.en`.
    """
    _, dot, language = name.rpartition(".")
    return Languages(frozenset({language})) if dot and language.isalpha() and len(language) in (2, 3) else ANY


class Audio(Protocol):
    """The recording, in the forms in which a provider may take it."""

    def stream(self) -> AsyncIterator[bytes]:
        """Its bytes, in portions. Every call starts at the first byte."""

    async def url(self) -> str | None:
        """A URL by which the provider can fetch it for some hours, or None if the storage cannot make one."""


def audio_used(hypothesis: Hypothesis, seconds: float) -> dict[str, float]:
    """Usage by unit: as the provider reports it, otherwise one request about `seconds` of audio."""
    return {
        "audio_seconds": _amount(hypothesis.details.get("billed_seconds"), seconds),
        "requests": _amount(hypothesis.details.get("requests"), 1),
    }


def _amount(reported: object, default: float) -> float:
    """What the provider reports, if it is a plausible number."""
    return reported if isinstance(reported, int | float) and 0 <= reported < 1e12 else default


@dataclass(frozen=True, slots=True)
class Pending:
    """The request is not completed; poll again after `seconds`."""

    seconds: float
    #: 0 to 1, if the provider reports it.
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A request in a provider's list. It may belong to another installation with the same account."""

    id: str
    #: By the provider's clock; None if the list does not contain it.
    created: datetime | None = None
    #: URLs of the audio; empty if this is certainly none of our requests, None if the list does not contain them.
    urls: frozenset[str] | None = frozenset()
    #: See `Request.marker`; None if the list does not contain it.
    marker: str | None = None


@runtime_checkable
class RemoteRecognizer(Protocol):
    """A recognizer behind a network: submit, then poll. Every call has a timeout of its own, shorter than 15 s.

    All calls raise `Transient` (with `retry_after` if the provider asks for a pause), or `ProviderError` if the
    provider refuses for good.
    """

    name: str
    #: Seconds after a submission was sent within which the provider may still accept it, however its answer was lost,
    #: plus those after which its list must contain it. Until then the request is not made again.
    settles_s: float
    #: Seconds for which the provider's list keeps a request, at least. The absence of an older one proves nothing.
    remembers_s: float

    async def submit(self, request: Request, audio: Audio) -> str | Hypothesis:
        """Submit the recording, once; the provider's id of the request, or the transcript if it came at once.

        Raises:
            NotAccepted: The provider has certainly not accepted the request, which may be made again at once.
            Transient: The provider may have accepted the request, or may accept it later.
        """

    async def find(self, request: Request, *, within_s: float = 0.0, proof: bool = True) -> str | None:
        """The id of an earlier request with this marker, or None if the provider's list does not contain it.

        Never bills. The list was read at most `within_s` seconds ago. With `proof`, None means that the whole list was
        read, as often as needed to be sure.

        Raises:
            InDoubt: The list does not allow an answer.
            Transient: The list cannot be read now.
        """

    async def listed(self, since: datetime) -> list[Listed]:
        """All requests that the provider received since that time, and perhaps older ones. Never bills."""

    def recalls(self, listed: Listed, request: Request) -> bool | None:
        """Whether a listed request, whose row was lost, was made for this recording; None if that cannot be decided.

        Only values that can be derived again may be compared: the marker, or the audio's name in our own storage.
        """

    async def poll(self, provider_id: str) -> Pending | Hypothesis:
        """Look at a request once, without waiting for its completion."""

    async def close(self) -> None:
        """Release connections. Safe to call twice."""


@runtime_checkable
class UploadingRecognizer(RemoteRecognizer, Protocol):
    """A remote recognizer whose list identifies a request only by the URL of its audio.

    The caller therefore makes that URL first, stores it, and passes it to all other calls as `Request.audio_url`.
    """

    async def upload(self, request: Request, audio: Audio) -> str:
        """Make the audio readable for the provider for some hours; its URL, which no other run has. Never bills.

        May take minutes; the implementation bounds it. Repeating it is harmless and makes another URL.
        """


@runtime_checkable
class ErasingRecognizer(Protocol):
    """A recognizer behind a network that can delete what it keeps of a request."""

    async def erase(self, provider_id: str | None, audio_url: str | None) -> str | None:
        """Delete the audio and the transcript of a request, as far as they exist; None, or what stays and why. Never
        bills; repeating it is harmless.

        Raises:
            Transient: They could not be deleted now; a request that is still being worked on, too.
            ProviderError: The provider refuses.
        """


@runtime_checkable
class Checked(Protocol):
    """A recognizer whose connection and credentials can be checked before it is used."""

    async def check(self) -> None:
        """Make a call that is not billed.

        Raises:
            Transient: The provider cannot be reached.
            ProviderError: The provider does not accept our credentials.
        """


@runtime_checkable
class LocalRecognizer(Protocol):
    """A recognizer in processes of this machine. Running it again is harmless and gives the same transcript."""

    name: str
    #: How many recordings it transcribes at the same time; more wait for each other.
    at_once: int

    async def transcribe(self, audio: Path, request: Request, progress: Callable[[float], None]) -> Hypothesis:
        """Transcribe the whole recording, decoded in chunks. The event loop is not blocked meanwhile.

        Calls `progress` with shares from 0 to 1 that never fall, at the end with 1. `Hypothesis.duration_ms` is the
        length of the recording, to a tenth of a second. Several recordings may be given at the same time; they may
        wait for each other. Cancelling a call stops its work, and the next call is served as usual.

        Raises:
            RefusedMedia: The recording cannot be decoded.
            ProviderError: The recognizer cannot transcribe it.
            Transient: A worker process died, or the recognizer is closed.
        """

    async def close(self) -> None:
        """End the worker processes; a call that comes later raises `Transient`. Safe to call twice."""


class ResponseCache(Protocol):
    """Stored answers of a `ChunkedRecognizer` about one recording, shared by all processes."""

    async def get(self, key: str) -> bytes | None:
        """The answer under this key, or None. May raise `Unavailable`; the caller can try again."""

    async def put(self, key: str, answer: bytes) -> None:
        """Store an answer durably. The answer is paid for, so this waits for a store that is away."""


class RateLimit(Protocol):
    """When a provider may be called, agreed on by all workers. A caller first waits, then reports the result."""

    async def wait(self) -> None:
        """Return when the next call may be made; the reserved time belongs to the caller.

        Raises:
            Paused: No call may be made for longer than a caller should wait. Nothing was reserved.
        """

    async def failed(self, exc: Transient) -> None:
        """Report that the call failed; this may start a pause for all workers."""

    async def worked(self) -> None:
        """Report that the call was answered, and the answer stored. May raise `Unavailable`, which loses nothing."""


@runtime_checkable
class ChunkedRecognizer(Protocol):
    """A recognizer behind a network that answers at once about the audio that it gets, usually a minute at most.

    The provider keeps no list in which a transcript could be found.
    """

    name: str

    async def transcribe_chunks(
        self,
        audio: Path,
        request: Request,
        progress: Callable[[float], None],
        answers: ResponseCache,
        rate_limit: RateLimit,
    ) -> Hypothesis:
        """Transcribe the whole recording, as `LocalRecognizer.transcribe` does.

        Sends only the chunks that `answers` does not contain, each when `rate_limit` allows it, and stores each answer
        before it sends the next chunk. Called again after an error, it continues with what is missing.

        Raises:
            RefusedMedia: The recording cannot be decoded.
            ProviderError: The provider refuses for good.
            NotAccepted: A chunk was refused or not sent, and is not billed.
            Transient: A chunk failed for another reason and may be billed.
        """

    async def close(self) -> None:
        """Wait a few seconds at most for calls in flight, and store their answers. Safe to call twice."""


@runtime_checkable
class PublishedRecognizer(Protocol):
    """A recognizer outside of Concord that reads its requests from a topic, and answers on `asr.hypotheses`."""

    name: str
    #: The topic of its requests.
    topic: Topic
    #: How often a request is published at most, evenly over the run's deadline, until it is answered.
    attempts: int

    async def close(self) -> None:
        """Release what is open. Safe to call twice."""


Recognizer = RemoteRecognizer | LocalRecognizer | ChunkedRecognizer | PublishedRecognizer
