"""Recognizers that compute in subprocesses of their own, each of which loads its model once."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from agents.asr.protocols import Request
from agents.media.subprocess_worker import Message, Worker, WorkerDied
from schemas.errors import ConcordError, ProviderError, Transient, Unavailable
from schemas.words import Hypothesis, Word

#: Seconds within which a process leaves a cancelled recording, at the next segment or window, or as many as it took to
#: load its model, if these are more; it is killed then, since another one would be there sooner.
STOP_S = 5.0


class SubprocessRecognizer:
    """A `LocalRecognizer` around `python -m module FOLDER THREADS ...`, one process or several. More recordings than
    processes wait, in their order.

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
        stop_s: float = STOP_S,
        reported_model: str | None = None,
        processes: Sequence[Sequence[str]] = ((),),
    ) -> None:
        """`folder` returns the folder of the model. It is called in a thread, when the model is first needed.

        `cpu_threads` of a process are half of the CPUs by default, divided among the processes. `processes` has the
        other arguments of each; the second is started when the first is busy. A subprocess must start within `start_s`
        seconds, and is killed after `stall_s` seconds without progress, or `stop_s` (see `STOP_S`) after a call was
        cancelled. Hypotheses report the model by its name, or as
        `reported_model`.
        """
        self.name, self.at_once = name, len(processes)
        self._reported_model = reported_model or name
        self._module, self._folder = module, folder
        self._threads = cpu_threads or max(1, _processors() // 2 // len(processes))
        self._stall_s, self._start_s, self._stop_s = stall_s, start_s, stop_s
        self._processes, self._workers = processes, dict[int, Worker]()
        #: Numbers of the processes that hear nothing; the last one used is the next, because it has loaded its model.
        self._free: asyncio.LifoQueue[int] = asyncio.LifoQueue()
        for number in reversed(range(self.at_once)):
            self._free.put_nowait(number)
        self._opening = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The first subprocess while it lives."""
        return self._workers[0].pid if self._workers else None

    async def transcribe(self, audio: Path, request: Request, progress: Callable[[float], None]) -> Hypothesis:
        """See `LocalRecognizer`. Cancelling keeps the subprocess and its model, if it leaves the work in time."""
        number = await self._free.get()
        try:
            return await self._transcribe(await self._opened(number), audio, request, progress)
        finally:
            self._free.put_nowait(number)

    async def _transcribe(
        self, worker: Worker, audio: Path, request: Request, progress: Callable[[float], None]
    ) -> Hypothesis:
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

    async def _opened(self, number: int) -> Worker:
        async with self._opening:
            if self._closed:
                raise Transient(f"{self.name} is shut down")
            if number not in self._workers:
                try:
                    folder = await asyncio.to_thread(self._folder)
                except ConcordError as exc:
                    raise ProviderError(f"{self.name}: {exc}") from exc
                arguments = (str(folder.resolve()), str(self._threads), *self._processes[number])
                self._workers[number] = Worker(self._module, *arguments, start_s=self._start_s, stop_s=self._stop_s)
            return self._workers[number]

    async def close(self) -> None:
        """End the processes, also in the middle of a recording, whose call raises `Transient`. Safe to call twice."""
        self._closed = True
        await asyncio.gather(*(worker.close() for worker in self._workers.values()))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
