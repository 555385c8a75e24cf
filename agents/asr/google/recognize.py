"""Google Cloud Speech v2 by `Recognize`: the recording is sent in chunks of under a minute, one call each, several
concurrently.

Why chunks: `Recognize` takes 10 MB or a minute at most, and `BatchRecognize` only reads Google's own storage. With a
bucket there, `batch_recognize` is the better choice.

Costs. Each answer is stored under a hash of its request before the next chunk is sent, so a restart sends only chunks
without an answer. But `Recognize` has neither an idempotency key nor a list of past requests. A call that was in flight
when this process was killed, or whose answer was lost, is sent, and billed, a second time: at most `PARALLEL` chunks of
under a minute for each kill of a recording; and for lost answers, `LOST_RETRIES` of a chunk in each attempt of the
stage. Waiting would not help, because a call that was accepted late could not be found anywhere. Calls that were
certainly not accepted (no connection, a refusal) cost nothing. An orderly shutdown waits for the calls in flight and
loses none.

Speakers are not distinguished: Google numbers the speakers of each chunk anew, and numbers that change their meaning
every minute are worse than none. Diarization is therefore not requested; an answer that contains it is read correctly.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.asr.google.speech import CHECK_S, Part, Speech, read
from agents.asr.protocols import RateLimit, Request, ResponseCache
from agents.media.flac_chunks import FlacChunk, FlacChunker
from schemas.errors import NotAccepted, Paused, Transient
from schemas.words import Hypothesis

if TYPE_CHECKING:
    from google.cloud.speech_v2 import RecognitionConfig, RecognizeResponse

#: Concurrent calls for one recording.
PARALLEL = 4
#: Seconds for one call. Long, because a call whose answer comes too late is paid for.
TIMEOUT_S = 90.0
#: Retries of a chunk that was certainly not accepted, which outlast half a minute of outage; and of a chunk that may
#: have been accepted: fewer, because each may be billed. The stage makes three more attempts.
RETRIES, LOST_RETRIES = 5, 2
#: Seconds between two attempts at most, if Google asks for no pause.
LONGEST_PAUSE_S = 60.0
#: Seconds that closing waits for calls in flight: what is left of the ten that a worker has to stop.
CLOSE_S = 6.0


class Google:
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
        self.name = speech.name
        self._speech = speech
        self._parallel, self._retries = parallel, retries
        self._timeout_s, self._close_s = timeout_s, close_s
        self._lanes: set[asyncio.Task[None]] = set()
        self._closed = False

    async def transcribe_chunks(
        self,
        audio: Path,
        request: Request,
        progress: Callable[[float], None],
        answers: ResponseCache,
        rate_limit: RateLimit,
    ) -> Hypothesis:
        """See `ChunkedRecognizer`. Cancelling it gives up the calls in flight."""
        await self._speech.opened()
        config = self._speech.config(request.language)
        parts: list[Part] = []
        async with FlacChunker(audio) as chunker:
            stop = asyncio.Event()

            async def lane() -> None:
                try:
                    while not stop.is_set() and (chunk := await self._next(chunker)) is not None:
                        parts.append(await self._part(chunk, config, answers, rate_limit))
                        if request.duration_ms:
                            progress(min(0.99, sum(part.length_ms for part in parts) / request.duration_ms))
                finally:
                    stop.set()  # no chunk is left, or this lane failed: the others only complete their calls in flight

            lanes = [asyncio.create_task(lane()) for _ in range(self._parallel)]
            self._lanes.update(lanes)
            for task in lanes:
                task.add_done_callback(self._lanes.discard)
            failures = [f for f in await asyncio.gather(*lanes, return_exceptions=True) if f is not None]
        if failures:
            # The most important of several: a final refusal, then a failure that may be billed.
            raise min(failures, key=lambda f: (isinstance(f, Transient), isinstance(f, NotAccepted)))
        progress(1.0)
        return self._speech.hypothesis(sorted(parts, key=lambda part: part.start_ms), request.language)

    async def check(self) -> None:
        """See `Speech.check`."""
        await self._speech.check(min(CHECK_S, self._timeout_s))

    async def close(self) -> None:
        """See `ChunkedRecognizer`."""
        self._closed = True
        if self._lanes:
            _, late = await asyncio.wait(self._lanes, timeout=self._close_s)
            for task in late:
                task.cancel()
        await self._speech.close()

    async def _next(self, chunker: FlacChunker) -> FlacChunk | None:
        if self._closed:
            raise NotAccepted(f"{self.name} is shut down")
        return await chunker.next()

    async def _part(
        self, chunk: FlacChunk, config: RecognitionConfig, answers: ResponseCache, rate_limit: RateLimit
    ) -> Part:
        """The transcript of a chunk, from a stored answer if there is one. Silent chunks are not sent."""
        from google.cloud.speech_v2 import RecognizeResponse

        if chunk.silent:
            return Part(chunk.start_ms, chunk.length_ms)
        key = self._key(chunk, config)
        response = _parsed(await answers.get(key))
        if response is None:
            response = await self._recognize(chunk, config, rate_limit)
            await answers.put(key, RecognizeResponse.to_json(response, indent=None).encode())
            await rate_limit.worked()
        message: Any = type(response).pb(response)
        return read(message, chunk.start_ms, chunk.length_ms)

    def _key(self, chunk: FlacChunk, config: RecognitionConfig) -> str:
        """A hash of all that an answer depends on."""
        settings = type(config).pb(config).SerializeToString(deterministic=True)
        return hashlib.sha256(b"\0".join((self._speech.recognizer.encode(), settings, chunk.content))).hexdigest()

    async def _recognize(self, chunk: FlacChunk, config: RecognitionConfig, rate_limit: RateLimit) -> RecognizeResponse:
        """Google's answer about a chunk, with retries after failures that may pass."""
        failures: list[Transient] = []
        while True:
            try:
                await rate_limit.wait()
            except Paused as pause:
                raise _relevant([*failures, pause]) from None
            if self._closed:
                raise NotAccepted(f"{self.name} is shut down")
            try:
                await self._speech.connected(self._timeout_s)
                return await self._speech.recognize(chunk.content, config, self._timeout_s)
            except Transient as exc:
                await rate_limit.failed(exc)
                failures.append(exc)
                lost = sum(not isinstance(failure, NotAccepted) for failure in failures)
                if len(failures) > self._retries or lost > min(self._retries, LOST_RETRIES) or self._closed:
                    raise _relevant(failures) from None
                if exc.retry_after is None:
                    pause_s = min(2.0 ** (len(failures) - 1), LONGEST_PAUSE_S)
                    await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)  # noqa: S311


def _relevant(failures: list[Transient]) -> Transient:
    """The newest failure that may have been billed, even if a pause came after it. Otherwise the newest."""
    return next((exc for exc in reversed(failures) if not isinstance(exc, NotAccepted)), failures[-1])


def _parsed(answer: bytes | None) -> RecognizeResponse | None:
    """A stored answer; None if there is none, or none that can be parsed."""
    from google.cloud.speech_v2 import RecognizeResponse
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

    if answer is None:
        return None
    try:
        return RecognizeResponse.from_json(answer.decode(), ignore_unknown_fields=True)  # type: ignore[no-any-return]
    except (ParseError, UnicodeDecodeError):
        return None
