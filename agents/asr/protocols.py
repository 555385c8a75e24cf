"""What a recognizer must do to take part. One file a provider; its SDK is imported there only, and lazily.

Three shapes exist, because three things can go wrong. A `RemoteRecognizer` bills: it is asked once, by a request that
can be found again by its marker. A `LocalRecognizer` costs only our own time: it is simply run again when its process
dies. A `ChunkedRecognizer` bills piece by piece and remembers nothing: what it answered is kept by us, at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from schemas.errors import Transient
from schemas.words import Hypothesis, Question


@dataclass(frozen=True, slots=True)
class Request:
    """One recording for one recognizer."""

    tenant_id: str
    job_id: str
    run: int
    #: Unique for (job, run, provider); the provider echoes it, so that a request whose answer was lost can be found.
    marker: str
    #: BCP 47, or "auto" to detect.
    language: str = "auto"
    diarize: bool = False
    redact_pii: bool = False
    content_type: str = "application/octet-stream"
    duration_ms: int | None = None
    vocabulary: tuple[str, ...] = field(default=())
    #: Where the provider finds the audio, if it was uploaded first; it may hold a signature. See `UploadingRecognizer`.
    audio_url: str | None = field(default=None, repr=False)
    #: When that URL was made: no request about it is older.
    since: datetime | None = None


class Audio(Protocol):
    """The recording as a provider may want it."""

    def stream(self) -> AsyncIterator[bytes]:
        """Its bytes, in pieces; every call begins again at the first byte."""

    async def url(self) -> str | None:
        """A URL that the provider can fetch it from for some hours, or None where the storage has none to give."""


def audio_used(heard: Hypothesis, seconds: float) -> dict[str, float]:
    """What an answer used up, by unit: as its provider counts where it tells, else one request of that length."""
    return {
        "audio_seconds": _counted(heard.details.get("billed_seconds"), seconds),
        "requests": _counted(heard.details.get("requests"), 1),
    }


def _counted(told: object, otherwise: float) -> float:
    """What the provider tells, if that is a number."""
    return told if isinstance(told, int | float) and 0 <= told < 1e12 else otherwise


@dataclass(frozen=True, slots=True)
class Pending:
    """Not done yet: ask again after `seconds`."""

    seconds: float
    #: 0 to 1, if the provider tells.
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A request in a provider's list, whoever made it."""

    id: str
    #: By the provider's clock; None where the list does not say.
    created: datetime | None = None
    #: URLs of the audio; empty for what is none of our requests, None where the list does not say.
    urls: frozenset[str] | None = frozenset()
    #: See `Request.marker`; None where the list does not say.
    marker: str | None = None


@runtime_checkable
class RemoteRecognizer(Protocol):
    """A recognizer behind a network: submit, then poll. Every call has a timeout of its own, shorter than 15 s.

    All calls raise `Transient` (with `retry_after` where told), `ProviderError` for a final no.
    """

    name: str
    #: Seconds after a submission was sent within which the provider may still accept it, however its answer was lost,
    #: plus those after which its list must show it. Until then nobody asks again.
    settles_s: float
    #: Seconds for which the provider's list keeps a request, at least. What is older and not in it proves nothing.
    remembers_s: float

    async def submit(self, request: Request, audio: Audio) -> str | Hypothesis:
        """Hand the recording in, once; the provider's id of the request, or the transcript if it came at once.

        Raises `NotAccepted` only where it is certain that the provider has taken nothing on: it may be called again at
        once. After any other `Transient` the request may have been accepted, or be accepted later.
        """

    async def find(self, request: Request, *, within_s: float = 0.0, proof: bool = True) -> str | None:
        """The id of an earlier request with this marker, if the provider has one. Never bills.

        The provider's list must have been read at most `within_s` seconds ago. None says that it is not there; with
        `proof` all of the list was read, as often as it takes to be sure of that. Raises `InDoubt` where the list does
        not tell, `Transient` where it cannot be read now.
        """

    async def listed(self, since: datetime) -> list[Listed]:
        """Everything that the provider was asked for since that time, and perhaps more. Never bills."""

    def recalls(self, listed: Listed, request: Request) -> bool | None:
        """Whether a request of which we have lost all we knew was made for this recording; None where nobody can tell.

        So much must be told by what we can derive again: the marker, or the name of the audio in our own storage.
        """

    async def poll(self, provider_id: str) -> Pending | Hypothesis:
        """Look once, without waiting."""

    async def close(self) -> None:
        """Release connections. Safe to call twice."""


@runtime_checkable
class UploadingRecognizer(RemoteRecognizer, Protocol):
    """A remote recognizer that knows a request by nothing of ours but the URL of its audio.

    So that URL is made first, and kept by whoever calls, and then asked about as `Request.audio_url`.
    """

    async def upload(self, request: Request, audio: Audio) -> str:
        """Put the audio where the provider can read it for some hours; its URL, which no other run has. Never bills.

        May take minutes, and has its own limits. Done again, it makes another URL, and no harm.
        """


@runtime_checkable
class Checked(Protocol):
    """A recognizer of which can be told beforehand whether it would take our requests."""

    async def check(self) -> None:
        """Raises `Transient` when it cannot be reached, `ProviderError` when it does not know us. Never bills."""


@runtime_checkable
class LocalRecognizer(Protocol):
    """A recognizer in this machine's processes. Running it again is harmless, and gives the same transcript."""

    name: str

    async def transcribe(self, audio: Path, request: Request, progress: Callable[[float], None]) -> Hypothesis:
        """Transcribe the whole recording, decoded in pieces. The event loop goes on meanwhile.

        Calls `progress` with shares from 0 to 1 that never fall, at the end with 1. `Hypothesis.duration_ms` is the
        length of the recording, to a tenth of a second. Several recordings may be given at the same time; they may
        wait for each other. Cancelling a call stops its work, and the next call is served as ever.

        Raises:
            RefusedMedia: the file is no recording that can be transcribed.
            ProviderError: the recognizer will never transcribe it.
            Transient: a worker process died, or the recognizer is closed.
        """

    async def close(self) -> None:
        """End the worker processes; a call that comes later raises `Transient`. Safe to call twice."""


class ResponseCache(Protocol):
    """What a `ChunkedRecognizer` was told about this recording so far, in whatever process that was."""

    async def get(self, key: str) -> bytes | None:
        """What was kept under this key, or None. May raise `Unavailable`: nothing is lost by that."""

    async def put(self, key: str, answer: bytes) -> None:
        """Keep it, durably. It was paid for: a store that is away is waited for."""


class RateLimit(Protocol):
    """When a provider may be called, on which all workers agree. Who calls waits first, and then says how it went."""

    async def wait(self) -> None:
        """Return when the next call may be made; that moment is the caller's.

        Raises `Paused` when nobody may call for longer than a call should wait; then there was none.
        """

    async def failed(self, exc: Transient) -> None:
        """The call did: perhaps everybody has to pause."""

    async def worked(self) -> None:
        """The call was answered, and the answer is kept. May raise `Unavailable`: nothing is lost by that."""


@runtime_checkable
class ChunkedRecognizer(Protocol):
    """A recognizer behind a network that takes a minute at most, answers at once, and cannot say what it was asked."""

    name: str

    async def transcribe_chunks(
        self,
        audio: Path,
        request: Request,
        progress: Callable[[float], None],
        answers: ResponseCache,
        rate_limit: RateLimit,
    ) -> Hypothesis:
        """The whole recording, as `LocalRecognizer.transcribe`; it sends only those pieces that `answers` does not
        have, each when it is its turn, and puts each answer there before it asks for more.

        Raises `RefusedMedia`, `ProviderError`, or `Transient`: called again, it goes on where it stopped. With
        `NotAccepted`, what failed was refused, or not sent, and is not billed.
        """

    async def close(self) -> None:
        """Let the calls in flight end, a few seconds at most, and keep their answers. Safe to call twice."""


Recognizer = RemoteRecognizer | LocalRecognizer | ChunkedRecognizer


@dataclass(frozen=True, slots=True)
class AdjudicatorAnswer:
    """What a judge's one answer came to: every question asked is in `choices` or in `faults`."""

    #: By question: index of the reading, or None for "neither".
    choices: dict[str, int | None]
    #: By question: why there is no usable answer.
    faults: dict[str, str]
    #: What was used up, by unit; also an answer of no use is billed.
    usage: dict[str, int]
    #: The provider's own id of its answer, or what else tells it from others.
    ref: str


class Adjudicator(Protocol):
    """Somebody who can say which of several readings fits its neighbours: asked when recognizers disagree.

    Asking is not idempotent and may bill; nothing here asks again by itself.
    """

    #: `<provider>/<model>/<prompt version>`: what the choice will be signed with.
    name: str
    #: Questions in one call at most.
    many: int

    async def prepare(self) -> None:
        """Do what the first call would otherwise wait for, importing an SDK above all. Asks nothing of anybody."""

    async def adjudicate(self, questions: Sequence[Question], language: str | None) -> AdjudicatorAnswer:
        """One call about some questions; an answer that makes no sense is a `AdjudicatorAnswer` with faults.

        Raises `Transient` when the provider is away or too slow, `RateLimited` when it wants a pause, `ProviderError`
        for a no that also other questions will get (a wrong key, an unknown model). Takes less than 30 s.
        """

    async def check(self) -> None:
        """See whether it can be asked, without being billed. Raises like `adjudicator`."""

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
