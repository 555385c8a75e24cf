"""Asks one more recognizer about the intervals of a recording in which the others disagree.

A job has a budget of audio and of time, and no interval is paid for twice: answers are stored beside the recording.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from agents.asr.paid_calls import PaidCalls
from agents.asr.protocols import ChunkedRecognizer, LocalRecognizer, RateLimit, Request, ResponseCache, audio_used
from agents.asr.response_cache import StoredResponses
from agents.media.clips import Clips
from agents.runtime.leased_tasks import each
from agents.runtime.metrics import Metrics
from agents.text.disputed_intervals import DisputedInterval, disputed_intervals, disputes, settled
from agents.text.reconcile import Compared
from schemas.errors import ConcordError, NotFound, ProviderError, RateLimited, Transient, Unavailable
from schemas.jobs.rows import Job, used
from schemas.words import Hypothesis, Reconciliation, adapter
from sinks.ports.blobs import Store
from sinks.ports.providers.usage import UsageRows

log = logging.getLogger(__name__)

#: Seconds for all intervals of one job; those without a hypothesis by then stay as the others decided them.
JOB_S = 60.0

#: Intervals of one job that are transcribed concurrently.
AT_ONCE = 4

#: Attempts for an interval that fails for a reason that may pass.
TRIES = 2


@dataclass(frozen=True)
class Tiebreaker:
    """A recognizer for disputed intervals, with its budget and the store of its answers."""

    recognizer: LocalRecognizer | ChunkedRecognizer
    database: UsageRows
    store: Store
    clips: Clips
    limiter: RateLimit
    #: Seconds of audio of one job, at most.
    seconds: float
    metrics: Metrics = field(default_factory=Metrics)
    #: Seconds for one job.
    limit_s: float = JOB_S
    #: One job at a time, so that each has the recognizer, and the whole time, for itself.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    paid: PaidCalls = field(default_factory=PaidCalls)

    async def settled(
        self, compared: Compared, job: Job, report: Callable[[float], None] = lambda _: None
    ) -> Reconciliation:
        """The transcript, decided again in the most doubtful intervals, with notes on what was transcribed.

        `report` gets the share of completed intervals, 0 to 1. A failing recognizer never makes this fail: intervals
        without a hypothesis keep the decision of the others. An answer is stored before the next step, so that after a
        kill only the calls in flight are repeated.

        Raises:
            Unavailable: The database or the store is away.
        """
        disputed, without_time = await asyncio.to_thread(disputes, compared)
        intervals = await asyncio.to_thread(disputed_intervals, disputed, round(self.seconds * 1000))
        transcription = _Transcription(self, job, intervals, report)
        if intervals:
            async with self.turn:
                await transcription.run()
        after = await asyncio.to_thread(settled, compared, transcription.hypotheses)
        covered = sum(len(interval.disputes) for interval in intervals)
        return replace(after, notes=(*after.notes, *transcription.notes(len(disputed) - covered, without_time)))


@dataclass
class _Transcription:
    """The transcription of one job's intervals."""

    tiebreaker: Tiebreaker
    job: Job
    intervals: Sequence[DisputedInterval]
    report: Callable[[float], None]
    hypotheses: dict[DisputedInterval, Hypothesis] = field(default_factory=dict)
    faults: dict[DisputedInterval, str] = field(default_factory=dict)
    #: Why no further interval is started: an error that all of them would get.
    stop: str | None = None

    async def run(self) -> None:
        """Transcribe all intervals, several concurrently."""
        limit_s = self.tiebreaker.limit_s
        try:
            async with asyncio.timeout(limit_s):
                await self._transcribe_all()
        except TimeoutError:
            self._give_up(f"no answer within {limit_s:g} s")
        except Unavailable:
            raise
        except (ConcordError, OSError) as exc:  # before any interval: the recording is gone, or cannot be cut
            self._give_up(str(exc))

    async def _transcribe_all(self) -> None:
        store = self.tiebreaker.store
        if self.job.original_uri is None:
            raise NotFound("the recording is not kept")
        with tempfile.TemporaryDirectory(prefix="concord-") as folder:
            times = [(interval.start_ms, interval.end_ms) for interval in self.intervals]
            async with store.local_path(self.job.original_uri) as audio:
                clips = await self.tiebreaker.clips.cut(audio, times, Path(folder))

            async def transcribe(pair: tuple[DisputedInterval, Path]) -> None:
                await self._try(*pair)
                self.report((len(self.hypotheses) + len(self.faults)) / len(self.intervals))

            await each(zip(self.intervals, clips, strict=True), transcribe, AT_ONCE)

    async def _try(self, interval: DisputedInterval, clip: Path) -> None:
        """Set the interval's hypothesis or its fault."""
        for last in (False,) * (TRIES - 1) + (True,):
            if self.stop is not None:
                self.faults[interval] = self.stop
                return
            try:
                self.hypotheses[interval] = await self._transcribe(interval, clip)
            except Unavailable:
                raise
            except Transient as exc:
                if isinstance(exc, RateLimited):
                    self.stop = str(exc)
                elif not last:
                    continue
                self.faults[interval] = str(exc)
            except ConcordError as exc:
                if isinstance(exc, ProviderError):
                    self.stop = str(exc)
                self.faults[interval] = str(exc)
            return

    async def _transcribe(self, interval: DisputedInterval, clip: Path) -> Hypothesis:
        recognizer, job = self.tiebreaker.recognizer, self.job
        of_job = job.tenant_id, job.job_id, recognizer.name
        cache = StoredResponses(self.tiebreaker.store, *of_job, self.tiebreaker.paid, restricted=job.is_redacted)
        request = Request(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            run=job.run,
            marker=f"{job.tenant_id}/{job.job_id}/{job.run}/{interval.start_ms}",
            language=job.language,
            content_type="audio/flac",
            duration_ms=interval.length_ms,
        )
        if isinstance(recognizer, ChunkedRecognizer):
            limiter = self.tiebreaker.limiter
            hypothesis = await recognizer.transcribe_chunks(clip, request, _ignore_progress, cache, limiter)
        else:
            hypothesis = await _cached(recognizer, clip, request, cache)
        await self._record_usage(interval, hypothesis)
        return _shifted(hypothesis, interval)

    async def _record_usage(self, interval: DisputedInterval, hypothesis: Hypothesis) -> None:
        ref = f"{interval.start_ms}-{interval.end_ms}"
        rows = used(self.job, hypothesis.provider, ref, audio_used(hypothesis, interval.length_ms / 1000))
        await self.tiebreaker.database.record_usage(rows)
        self.tiebreaker.metrics.used(rows)

    def _give_up(self, reason: str) -> None:
        """Give all intervals without a result this fault."""
        self.faults |= {i: reason for i in self.intervals if i not in self.hypotheses and i not in self.faults}

    def notes(self, beyond: int, without_time: int) -> list[str]:
        """Sentences for the transcript. `beyond` disputes were outside the budget, and `without_time` have no time."""
        name = self.tiebreaker.recognizer.name
        notes = []
        if count := len(self.hypotheses):
            seconds = sum(interval.length_ms for interval in self.hypotheses) / 1000
            notes.append(f"{name} was asked as well about {count} disputed intervals, {seconds:.1f} s of sound.")
        for fault, count in sorted(Counter(self.faults.values()).items()):
            log.warning("%s/%d: %d intervals stay as they were: %s", self.job.job_id, self.job.run, count, fault)
            notes.append(
                f"{name} did not hear {count} disputed intervals, which stay as they were: {fault.rstrip('.')}."
            )
        if silent := sum(not hypothesis.words for hypothesis in self.hypotheses.values()):
            notes.append(f"{name} heard nothing at all in {silent} of them, which stay as they were.")
        if beyond:
            limit_s = self.tiebreaker.seconds
            notes.append(f"{name} was not asked about {beyond} disputes: the limit is {limit_s:g} s of sound.")
        if without_time:
            notes.append(f"{name} was not asked about {without_time} disputes: no recognizer says when they were said.")
        return notes


async def _cached(recognizer: LocalRecognizer, clip: Path, request: Request, cache: ResponseCache) -> Hypothesis:
    """The hypothesis of a clip, from the cache if it is there."""
    content = await asyncio.to_thread(clip.read_bytes)
    key = hashlib.sha256(b"\0".join((request.language.encode(), content))).hexdigest()
    answer = await cache.get(key)
    if answer is not None:
        with contextlib.suppress(ValueError):  # an answer that cannot be parsed counts as missing
            return cast("Hypothesis", adapter(Hypothesis).validate_json(answer))
    hypothesis = await recognizer.transcribe(clip, request, _ignore_progress)
    await cache.put(key, adapter(Hypothesis).dump_json(hypothesis))
    return hypothesis


def _shifted(hypothesis: Hypothesis, interval: DisputedInterval) -> Hypothesis:
    """The hypothesis of an interval's clip with the times of the recording."""
    words = (
        replace(
            word,
            start_ms=None if word.start_ms is None else interval.start_ms + word.start_ms,
            end_ms=None if word.end_ms is None else min(interval.end_ms, interval.start_ms + word.end_ms),
        )
        for word in hypothesis.words
    )
    return replace(hypothesis, words=tuple(words))


def _ignore_progress(_: float) -> None:
    """A clip is too short to report its progress."""
