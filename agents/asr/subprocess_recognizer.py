"""Recognizers that compute in a subprocess of their own, which loads its model once."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from agents.asr.protocols import Request
from agents.media.subprocess_worker import Message, Worker, WorkerDied
from schemas.errors import ConcordError, ProviderError, Transient, Unavailable
from schemas.words import Hypothesis, Word


class SubprocessRecognizer:
    """A `LocalRecognizer` around `python -m module FOLDER THREADS`. Concurrent recordings wait for each other.

    The subprocess is asked for `{"path", "language", "diarize", "speakers"}`. It sends `{"words", "at_ms"}` as it goes
    on, each word as [text, start_ms, end_ms, probability], with `"channel"` and `"channels"` if it hears the channels
    one after the other, and answers with the other fields of a `Hypothesis`.
    """

    def __init__(
        self,
        name: str,
        module: str,
        folder: Callable[[], Path],
        *,
        cpu_threads: int | None = None,
        stall_s: float = 600.0,
        start_s: float = 120.0,
        reported_model: str | None = None,
    ) -> None:
        """`folder` returns the folder of the model. It is called in a thread, when the model is first needed.

        `cpu_threads` is half of the CPUs by default. The subprocess must start within `start_s` seconds, and is killed
        after `stall_s` seconds without progress. Hypotheses report the model by its name, or as `reported_model`.
        """
        self.name, self.at_once = name, 1
        self._reported_model = reported_model or name
        self._module, self._folder = module, folder
        self._threads = cpu_threads or max(1, _processors() // 2)
        self._stall_s, self._start_s = stall_s, start_s
        self._worker: Worker | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The subprocess while it lives."""
        return self._worker.pid if self._worker is not None else None

    async def transcribe(self, audio: Path, request: Request, progress: Callable[[float], None]) -> Hypothesis:
        """See `LocalRecognizer`. Cancelling kills the subprocess; the next recording starts another."""
        worker = await self._opened()
        words: list[Word] = []

        def add(message: Message) -> None:
            channel = message.get("channel")
            words.extend(Word(text, start, end, p, channel=channel) for text, start, end, p in message.get("words", ()))
            if request.duration_ms:
                share = min(1.0, message["at_ms"] / request.duration_ms)
                progress(min(0.99, ((channel or 0) + share) / message.get("channels", 1)))

        task = {
            "path": str(audio.resolve()),
            "language": request.language,
            "diarize": request.diarize,
            "speakers": request.speakers,
        }
        try:
            answer = await worker.ask(task, stall_s=self._stall_s, on_message=add)
        except (WorkerDied, Unavailable) as exc:
            raise Transient(f"{self.name}: {exc}") from exc
        except TimeoutError as exc:
            raise Transient(f"{self.name} made no progress for {self._stall_s:.0f} s and was killed") from exc
        except ConcordError as exc:
            raise type(exc)(f"{self.name}: {exc}") from exc
        progress(1.0)
        if any(word.channel is not None for word in words):
            words.sort(key=lambda word: word.start_ms or 0)
        return self._hypothesis(tuple(words), answer)

    def _hypothesis(self, words: tuple[Word, ...], answer: Message) -> Hypothesis:
        confidences = [word.confidence for word in words if word.confidence is not None]
        return Hypothesis(
            provider=self.name,
            words=words,
            language=answer["language"],
            tells_language=answer["tells_language"],
            duration_ms=answer["duration_ms"],
            confidence=round(sum(confidences) / len(confidences), 4) if confidences else None,
            model=self._reported_model,
            details=answer["details"],
        )

    async def _opened(self) -> Worker:
        async with self._opening:
            if self._closed:
                raise Transient(f"{self.name} is shut down")
            if self._worker is None:
                try:
                    folder = await asyncio.to_thread(self._folder)
                except ConcordError as exc:
                    raise ProviderError(f"{self.name}: {exc}") from exc
                arguments = (str(folder.resolve()), str(self._threads))
                self._worker = Worker(self._module, *arguments, start_s=self._start_s)
            return self._worker

    async def close(self) -> None:
        """End the subprocess, also in the middle of a recording, whose call raises `Transient`. Safe to call twice."""
        self._closed = True
        if self._worker is not None:
            await self._worker.close()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
