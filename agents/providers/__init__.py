"""What a recognizer must do to take part. One file a provider; its SDK is imported there only, and lazily.

Two shapes exist, because two things can go wrong. A `RemoteRecognizer` bills: it is asked once, by a request that can
be found again by its marker. A `LocalRecognizer` costs only our own time: it is simply run again when its process dies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from schemas.words import Hypothesis


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


class Audio(Protocol):
    """The recording as a provider may want it."""

    def stream(self) -> AsyncIterator[bytes]:
        """Its bytes, in pieces; every call begins again at the first byte."""

    async def url(self) -> str | None:
        """A URL that the provider can fetch it from for some hours, or None where the storage has none to give."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Not done yet: ask again after `seconds`."""

    seconds: float
    #: 0 to 1, if the provider tells.
    progress: float | None = None


@runtime_checkable
class RemoteRecognizer(Protocol):
    """A recognizer behind a network: submit, then poll. Every call has a timeout of its own, shorter than 15 s.

    All calls raise `Transient` (with `retry_after` where told), `ProviderError` for a final no.
    """

    name: str

    async def submit(self, request: Request, audio: Audio) -> str | Hypothesis:
        """Hand the recording in, once; the provider's id of the request, or the transcript if it came at once."""

    async def find(self, request: Request) -> str | None:
        """The id of an earlier request with this marker, if the provider has one. Never bills."""

    async def poll(self, provider_id: str) -> Pending | Hypothesis:
        """Look once, without waiting."""

    async def close(self) -> None:
        """Release connections. Safe to call twice."""


@runtime_checkable
class LocalRecognizer(Protocol):
    """A recognizer in this machine's processes. Running it again is harmless."""

    name: str

    async def transcribe(self, audio: Path, request: Request, progress: Callable[[float], None]) -> Hypothesis:
        """The whole recording, decoded in pieces; calls `progress` with 0 to 1. Cancelling it stops the work.

        Raises `RefusedMedia`, `ProviderError`, or `Transient` when a worker process died.
        """

    async def close(self) -> None:
        """End the worker processes. Safe to call twice."""


Recognizer = RemoteRecognizer | LocalRecognizer
