"""Google Cloud Speech v2, through the vendor's own gRPC client: the recording goes up in pieces of under a minute, each
by one `Recognize`, several at a time.

Why pieces: `Recognize` takes 10 MB or a minute, `BatchRecognize` only what already lies in Google's own storage.
Who has a bucket there is better served by `batch_recognize.py`.

What it promises about money: the answer to each piece is kept under the piece's content before its lane asks for
another, so a restart sends only what was not answered. What it cannot promise: `Recognize` has neither an idempotency
key nor a list of past requests. A call that was in flight when this process was killed, or whose answer was lost on the
way, is sent, and billed, a second time: at most `PARALLEL` pieces a recording and kill, each under a minute, and one
for a lost answer, of which a piece may have `LOST_RETRIES` in each of the stage's tries. No wait would save that: there
is nothing in which a call could be found that was taken on late. What was certainly not taken on (no connection, a
refusal) costs nothing. An orderly end waits for the calls in flight and loses none.

Nobody is told apart: Google numbers the speakers of each piece anew, and numbers that change their meaning every minute
are worse than none. Diarization is therefore not asked for; an answer that has it all the same is read rightly.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.asr.google.speech import CHECK_S, Heard, Speech, read
from agents.asr.protocols import RateLimit, Request, ResponseCache
from agents.media.flac_chunks import Flac, FlacChunker
from schemas.errors import NotAccepted, Paused, Transient
from schemas.words import Hypothesis

if TYPE_CHECKING:
    from google.cloud.speech_v2 import RecognitionConfig, RecognizeResponse

#: Pieces of one recording that are with Google at once.
PARALLEL = 4
#: Seconds for one call. Long, because an answer that comes too late was paid for.
TIMEOUT_S = 90.0
#: How often a piece is tried again that was certainly not taken on, half a minute of outage; and one of which that is
#: open: whoever loses our answers may be charging for each. The stage tries thrice more.
RETRIES, LOST_RETRIES = 5, 2
#: Seconds between two tries at most, where Google does not say.
LONGEST_PAUSE_S = 60.0
#: Seconds that closing waits for calls in flight: what is left of a worker's ten.
CLOSE_S = 6.0


class Google:
    """A `ChunkedRecognizer`."""

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
        heard: list[Heard] = []
        async with FlacChunker(audio) as chunker:
            stop = asyncio.Event()

            async def lane() -> None:
                try:
                    while not stop.is_set() and (piece := await self._next(chunker)) is not None:
                        heard.append(await self._heard(piece, config, answers, rate_limit))
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
            raise min(failures, key=lambda f: (isinstance(f, Transient), isinstance(f, NotAccepted)))
        progress(1.0)
        return self._speech.hypothesis(sorted(heard, key=lambda h: h.start_ms), request.language)

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

    async def _next(self, chunker: FlacChunker) -> Flac | None:
        if self._closed:
            raise NotAccepted(f"{self.name} is shut down")
        return await chunker.next()

    async def _heard(
        self, piece: Flac, config: RecognitionConfig, answers: ResponseCache, rate_limit: RateLimit
    ) -> Heard:
        """What Google hears in the piece, or heard when it was asked before."""
        from google.cloud.speech_v2 import RecognizeResponse

        if piece.silent:
            return Heard(piece.start_ms, piece.length_ms)
        key = self._key(piece, config)
        response = _kept(await answers.get(key))
        if response is None:
            response = await self._asked(piece, config, rate_limit)
            await answers.put(key, RecognizeResponse.to_json(response, indent=None).encode())
            await rate_limit.worked()
        message: Any = type(response).pb(response)
        return read(message, piece.start_ms, piece.length_ms)

    def _key(self, piece: Flac, config: RecognitionConfig) -> str:
        """What was asked, in a name: an answer is good for exactly that."""
        settings = type(config).pb(config).SerializeToString(deterministic=True)
        return hashlib.sha256(b"\0".join((self._speech.recognizer.encode(), settings, piece.content))).hexdigest()

    async def _asked(self, piece: Flac, config: RecognitionConfig, rate_limit: RateLimit) -> RecognizeResponse:
        """One piece's answer, tried again where that may help."""
        failures: list[Transient] = []
        while True:
            try:
                await rate_limit.wait()
            except Paused as pause:
                raise _worst([*failures, pause]) from None
            if self._closed:
                raise NotAccepted(f"{self.name} is shut down")
            try:
                await self._speech.connected(self._timeout_s)
                return await self._speech.recognize(piece.content, config, self._timeout_s)
            except Transient as exc:
                await rate_limit.failed(exc)
                failures.append(exc)
                lost = sum(not isinstance(failure, NotAccepted) for failure in failures)
                if len(failures) > self._retries or lost > min(self._retries, LOST_RETRIES) or self._closed:
                    raise _worst(failures) from None
                if exc.retry_after is None:
                    pause_s = min(2.0 ** (len(failures) - 1), LONGEST_PAUSE_S)
                    await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)  # noqa: S311


def _worst(failures: list[Transient]) -> Transient:
    """The newest of those that may have been billed: it counts, whatever pause comes after it. Else the newest."""
    return next((exc for exc in reversed(failures) if not isinstance(exc, NotAccepted)), failures[-1])


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
