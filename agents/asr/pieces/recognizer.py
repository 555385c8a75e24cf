"""A `ChunkedRecognizer` over any vendor's call that answers at once: the recording is sent in pieces of under a minute,
several concurrently.

Costs. Each answer is stored under a hash of its request before the next piece is sent, so a restart sends only pieces
without an answer. But such a vendor has neither an idempotency key nor a list in which a transcript could be found. A
call that was in flight when this process was killed, or whose answer was lost, is sent, and billed, a second time: at
most `PARALLEL` pieces of under a minute for each kill of a recording; and for lost answers, `LOST_RETRIES` of a piece
in each attempt of the stage. Waiting would not help, because a call that was accepted late could not be found anywhere.
Calls that were certainly not accepted (no connection, a refusal) cost nothing. An orderly shutdown waits for the calls
in flight and loses none.

Speakers are not distinguished between pieces: vendors number the speakers of each request anew, and numbers that change
their meaning every minute are worse than none. A recording whose speakers are asked for is therefore one piece, where
the vendor tells them apart. How often it was sent is stored before each call, so that it is sent `WHOLE_SENDS` times in
a run at most, whatever is killed or lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from agents.asr.pieces.parts import Part, Span
from agents.asr.protocols import RateLimit, Request, ResponseCache
from agents.media.flac_chunks import RATE, FlacChunk, FlacChunker
from agents.media.transcode import Transcoder
from schemas.errors import NotAccepted, ProviderError, Transient, Unavailable
from schemas.words import Hypothesis

#: Concurrent calls for one recording.
PARALLEL = 4
#: Retries of a piece that was certainly not accepted, which outlast half a minute of outage; and of a piece that may
#: have been accepted: fewer, because each may be billed. The stage makes three more attempts.
RETRIES, LOST_RETRIES = 5, 2
#: Times that a whole recording is sent in a run, at most: once more after a lost answer.
WHOLE_SENDS = 2
#: Seconds between two attempts at most, if the vendor asks for no pause.
LONGEST_PAUSE_S = 60.0
#: Seconds that closing waits for calls in flight: what is left of the ten that a worker has to stop.
CLOSE_S = 6.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a recording that is sent in one call: FLAC, mono, 16 kHz, 16 bits."""

    span: Span
    #: The file, or its content.
    sound: Path | bytes

    def key(self, settings: bytes) -> str:
        """A hash of the sound and of all else that an answer depends on. Reads the file."""
        digest = hashlib.sha256(settings + b"\0")
        if isinstance(self.sound, bytes):
            digest.update(self.sound)
        else:
            with self.sound.open("rb") as file:
                while portion := file.read(1 << 20):
                    digest.update(portion)
        return digest.hexdigest()


class Service(ABC):
    """A vendor's call that transcribes sound and answers at once."""

    name: str
    #: Whether it tells speakers apart, and takes a recording of any length that a worker accepts.
    tells_speakers: bool = False

    async def opened(self) -> None:  # noqa: B027 - most have nothing to import
        """Import what is needed; by default nothing. Raises `ProviderError` if the credentials cannot be used."""

    @abstractmethod
    def settings(self, request: Request) -> bytes:
        """All that an answer depends on, except the sound."""

    @abstractmethod
    async def ask(self, request: Request, piece: Piece) -> bytes:
        """The vendor's answer, as it is stored. The call that bills; it has a timeout of its own.

        Raises:
            NotAccepted: The request was certainly not accepted.
            Transient: There was no answer; the request may be billed.
            ProviderError: The vendor refuses the request or the credentials.
        """

    @abstractmethod
    def read(self, answer: bytes, span: Span) -> Part:
        """The transcript in an answer. Raises `ValueError` if it is none; its text is shown."""

    async def answered(self, answer: bytes) -> None:  # noqa: B027 - most keep nothing
        """Called when an answer is stored; by default does nothing. Raises nothing."""

    @abstractmethod
    def hypothesis(self, request: Request, parts: list[Part]) -> Hypothesis:
        """The transcripts of all parts, which are in order, as one."""

    @abstractmethod
    async def check(self) -> None:
        """See `Checked`."""

    @abstractmethod
    async def close(self) -> None:
        """Release connections. Safe to call twice."""


class InPieces:
    """A `ChunkedRecognizer` over a service."""

    def __init__(
        self, service: Service, *, parallel: int = PARALLEL, retries: int = RETRIES, close_s: float = CLOSE_S
    ) -> None:
        self.name = service.name
        self._service = service
        self._parallel, self._retries, self._close_s = parallel, retries, close_s
        self._lanes: set[asyncio.Task[None]] = set()
        self._transcoder = Transcoder()
        self._closed = False

    def __repr__(self) -> str:
        return f"InPieces({self.name!r})"

    async def transcribe_chunks(
        self,
        audio: Path,
        request: Request,
        progress: Callable[[float], None],
        answers: ResponseCache,
        rate_limit: RateLimit,
    ) -> Hypothesis:
        """See `ChunkedRecognizer`. Cancelling it gives up the calls in flight."""
        await self._service.opened()
        asking = _Asking(self._service, request, answers, rate_limit, self._retries, lambda: self._closed)
        if request.diarize and self._service.tells_speakers:
            parts = await self._whole(audio, asking)
        else:
            async with FlacChunker(audio) as chunker:
                parts = await self._in_lanes(chunker.next, asking, progress)
        progress(1.0)
        return self._service.hypothesis(request, sorted(parts, key=lambda part: part.start_ms))

    async def check(self) -> None:
        """See `Checked`."""
        await self._service.check()

    async def close(self) -> None:
        """See `ChunkedRecognizer`."""
        self._closed = True
        if self._lanes:
            _, late = await asyncio.wait(self._lanes, timeout=self._close_s)
            for task in late:
                task.cancel()
        await self._transcoder.close()
        await self._service.close()

    async def _whole(self, audio: Path, asking: _Asking) -> list[Part]:
        """The recording as one piece."""
        try:
            with TemporaryDirectory(prefix="concord-") as folder:
                sound = Path(folder) / "whole.flac"
                await self._transcoder.transcode(audio, sound)
                length_ms = await asyncio.to_thread(_length_ms, sound)
                left = [FlacChunk(0, length_ms, silent=False, content=b"")]

                async def only() -> FlacChunk | None:
                    return left.pop() if left else None

                return await self._in_lanes(only, asking, lambda _: None, sound)
        except OSError as exc:
            raise Unavailable(f"no room for a recording on its way to {self.name} ({exc.strerror})") from exc

    async def _in_lanes(
        self,
        following: Callable[[], Awaitable[FlacChunk | None]],
        asking: _Asking,
        progress: Callable[[float], None],
        whole: Path | None = None,
    ) -> list[Part]:
        """The transcripts of all chunks, in any order; of the file `whole` in place of a chunk's content."""
        parts: list[Part] = []
        stop = asyncio.Event()

        async def lane() -> None:
            try:
                while not stop.is_set():
                    if (chunk := await self._next(following)) is None:
                        break
                    parts.append(await asking.part(chunk, whole))
                    if duration_ms := asking.request.duration_ms:
                        progress(min(0.99, sum(part.length_ms for part in parts) / duration_ms))
            finally:
                stop.set()  # no chunk is left, or this lane failed: the others only complete their calls in flight

        lanes = [asyncio.create_task(lane()) for _ in range(1 if whole else self._parallel)]
        self._lanes.update(lanes)
        for task in lanes:
            task.add_done_callback(self._lanes.discard)
        failures = [f for f in await asyncio.gather(*lanes, return_exceptions=True) if f is not None]
        if failures:
            # The most important of several: a final refusal, then a failure that may be billed.
            raise min(failures, key=lambda f: (isinstance(f, Transient), isinstance(f, NotAccepted)))
        return parts

    async def _next(self, following: Callable[[], Awaitable[FlacChunk | None]]) -> FlacChunk | None:
        if self._closed:
            raise NotAccepted(f"{self.name} is shut down")
        return await following()


@dataclass(frozen=True, slots=True)
class _Asking:
    """The pieces of one recording."""

    service: Service
    request: Request
    answers: ResponseCache
    rate_limit: RateLimit
    retries: int
    is_closed: Callable[[], bool]

    async def part(self, chunk: FlacChunk, whole: Path | None) -> Part:
        """The transcript of a chunk, from a stored answer if there is one. Silent chunks are not sent."""
        span = Span(chunk.start_ms, chunk.length_ms)
        if chunk.silent:
            return Part(span.start_ms, span.length_ms)
        piece = Piece(span, whole or chunk.content)
        key = await asyncio.to_thread(piece.key, self.service.settings(self.request))
        stored = await self.answers.get(key)
        if (part := await asyncio.to_thread(self._stored, stored, span)) is not None:
            return part
        name = self.service.name
        answer = await self._answer(
            piece, _Sends(name, self.answers, f"{key}-run-{self.request.run}" if whole else None)
        )
        try:
            part = await asyncio.to_thread(self.service.read, answer, span)
        except ValueError as exc:
            # It is paid for: the same request is not made again by itself.
            raise ProviderError(f"{name} answered with what is no transcript ({exc})") from exc
        await self.answers.put(key, answer)
        await self.rate_limit.worked()
        await self.service.answered(answer)
        return part

    def _stored(self, answer: bytes | None, span: Span) -> Part | None:
        """What is stored; None if that is nothing, or cannot be read."""
        try:
            return None if answer is None else self.service.read(answer, span)
        except ValueError:
            return None

    async def _answer(self, piece: Piece, sends: _Sends) -> bytes:
        """The vendor's answer about a piece, with retries after failures that may pass."""
        failures: list[Transient] = []
        while True:
            try:
                await self._turn()
            except NotAccepted as exc:
                raise _relevant([*failures, exc]) from None
            await sends.count()
            try:
                return await self.service.ask(self.request, piece)
            except ProviderError:
                await sends.take_back()
                raise
            except Transient as exc:
                failures.append(exc)
                if isinstance(exc, NotAccepted):
                    await sends.take_back()
                await self.rate_limit.failed(exc)
                if self._is_enough(failures):
                    raise _relevant(failures) from None
                if exc.retry_after is None:
                    pause_s = min(2.0 ** (len(failures) - 1), LONGEST_PAUSE_S)
                    await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)  # noqa: S311 - chance, not a secret

    async def _turn(self) -> None:
        """Wait until the next call may be made. Raises `NotAccepted` if that takes long, or nothing more is sent."""
        await self.rate_limit.wait()
        if self.is_closed():
            raise NotAccepted(f"{self.service.name} is shut down")

    def _is_enough(self, failures: list[Transient]) -> bool:
        lost = sum(not isinstance(failure, NotAccepted) for failure in failures)
        return len(failures) > self.retries or lost > min(self.retries, LOST_RETRIES) or self.is_closed()


@dataclass(frozen=True, slots=True)
class _Sends:
    """How often a whole recording was sent in its run, stored before each call. Pieces are not counted (no `key`)."""

    name: str
    answers: ResponseCache
    key: str | None

    async def count(self) -> None:
        """Count a call that is about to be made.

        Raises:
            ProviderError: It was made too often; each may be billed.
        """
        if self.key is None:
            return
        if (sent := await self._sent()) >= WHOLE_SENDS:
            raise ProviderError(
                f"{self.name}: the recording was sent whole {sent} times, and the answers were lost. Each may be "
                "billed, so it is not sent again in this run; a new run sends it again"
            )
        await self._keep(sent + 1)

    async def take_back(self) -> None:
        """The call that was counted is certainly not billed."""
        if self.key is not None:
            await self._keep(max(0, await self._sent() - 1))

    async def _sent(self) -> int:
        kept = await self.answers.get(self.key or "")
        return int(kept) if kept is not None and kept.isdigit() and len(kept) < 4 else 0

    async def _keep(self, sent: int) -> None:
        await self.answers.put(self.key or "", b"%d" % sent)


def _relevant(failures: list[Transient]) -> Transient:
    """The newest failure that may have been billed, even if a pause came after it. Otherwise the newest."""
    return next((exc for exc in reversed(failures) if not isinstance(exc, NotAccepted)), failures[-1])


#: Bytes of a FLAC file until the end of its number of samples, which has 36 bits (RFC 9639, 8.2).
_HEADER: Final = 26


def _length_ms(flac: Path) -> int:
    """The length of a FLAC file of ours."""
    with flac.open("rb") as file:
        header = file.read(_HEADER)
    return (int.from_bytes(header[18:_HEADER]) & ((1 << 36) - 1)) * 1000 // RATE
