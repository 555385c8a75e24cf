"""Asks one more recognizer about the stretches of a recording in which the others disagree: within a budget of sound
and of time, each stretch once.
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

#: Seconds that all stretches of one job may take; what is not heard by then stays as it was decided without.
JOB_S = 60.0

#: Stretches of one job that are with the recognizer at once.
AT_ONCE = 4

#: How often a stretch is tried that fails for a reason that may pass.
TRIES = 2


@dataclass(frozen=True)
class Tiebreaker:
    """A recognizer for stretches, with a memory."""

    recognizer: LocalRecognizer | ChunkedRecognizer
    database: UsageRows
    store: Store
    clips: Clips
    limiter: RateLimit
    #: Seconds of sound that one job may have heard again.
    seconds: float
    metrics: Metrics = field(default_factory=Metrics)
    limit_s: float = JOB_S
    #: Jobs wait for each other, so that each has its time for itself.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    paid: PaidCalls = field(default_factory=PaidCalls)

    async def settled(
        self, compared: Compared, job: Job, tell: Callable[[float], None] = lambda _: None
    ) -> Reconciliation:
        """The transcript, decided with what the recognizer heard in the worst places, and a note on what it was asked.

        Whatever the recognizer does, this ends: with the decision of the others where there is no other. An answer is
        stored before the next step is taken, so that who is killed and begins again asks only what was under way.
        Raises `Unavailable` when the database or the store is away.
        """
        found, timeless = await asyncio.to_thread(disputes, compared)
        wanted = await asyncio.to_thread(disputed_intervals, found, round(self.seconds * 1000))
        asking = _Asking(self, job, wanted, tell)
        if wanted:
            async with self.turn:
                await asking.ask()
        after = await asyncio.to_thread(settled, compared, asking.heard)
        asked = sum(len(interval.disputes) for interval in wanted)
        return replace(after, notes=(*after.notes, *asking.notes(len(found) - asked, timeless)))


@dataclass
class _Asking:
    """One job's stretches on their way."""

    tiebreak: Tiebreaker
    job: Job
    wanted: Sequence[DisputedInterval]
    tell: Callable[[float], None]
    heard: dict[DisputedInterval, Hypothesis] = field(default_factory=dict)
    faults: dict[DisputedInterval, str] = field(default_factory=dict)
    #: Why no other stretch is begun: a no that all of them would get.
    stop: str | None = None

    async def ask(self) -> None:
        """All that is wanted, several at a time."""
        limit_s = self.tiebreak.limit_s
        try:
            async with asyncio.timeout(limit_s):
                await self._all()
        except TimeoutError:
            self._failed(f"no answer within {limit_s:g} s")
        except Unavailable:
            raise
        except (ConcordError, OSError) as exc:  # before any stretch: the recording is gone, or cannot be cut
            self._failed(str(exc))

    async def _all(self) -> None:
        store = self.tiebreak.store
        if self.job.original_uri is None:
            raise NotFound("the recording is not kept")
        with tempfile.TemporaryDirectory(prefix="concord-") as folder:
            times = [(interval.start_ms, interval.end_ms) for interval in self.wanted]
            async with store.local_path(self.job.original_uri) as audio:
                files = await self.tiebreak.clips.cut(audio, times, Path(folder))

            async def hear(one: tuple[DisputedInterval, Path]) -> None:
                await self._hear_interval(*one)
                self.tell((len(self.heard) + len(self.faults)) / len(self.wanted))

            await each(zip(self.wanted, files, strict=True), hear, AT_ONCE)

    async def _hear_interval(self, interval: DisputedInterval, file: Path) -> None:
        for last in (False,) * (TRIES - 1) + (True,):
            if self.stop is not None:
                self.faults[interval] = self.stop
                return
            try:
                self.heard[interval] = await self._hear(interval, file)
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

    async def _hear(self, interval: DisputedInterval, file: Path) -> Hypothesis:
        recognizer, job = self.tiebreak.recognizer, self.job
        kept = StoredResponses(self.tiebreak.store, job.tenant_id, job.job_id, recognizer.name, self.tiebreak.paid)
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
            heard = await recognizer.transcribe_chunks(file, request, _silent, kept, self.tiebreak.limiter)
        else:
            heard = await _once(recognizer, file, request, kept)
        await self._count(interval, heard)
        return _moved(heard, interval)

    async def _count(self, interval: DisputedInterval, heard: Hypothesis) -> None:
        ref = f"{interval.start_ms}-{interval.end_ms}"
        rows = used(self.job, heard.provider, ref, audio_used(heard, interval.length_ms / 1000))
        await self.tiebreak.database.record_usage(rows)
        self.tiebreak.metrics.used(rows)

    def _failed(self, reason: str) -> None:
        """What is not heard by now stays as it was."""
        self.faults |= {s: reason for s in self.wanted if s not in self.heard and s not in self.faults}

    def notes(self, beyond: int, timeless: int) -> list[str]:
        """What was asked, in sentences."""
        name = self.tiebreak.recognizer.name
        said = []
        if self.heard:
            seconds = sum(interval.length_ms for interval in self.heard) / 1000
            said.append(
                f"{name} was asked as well about {len(self.heard)} disputed stretches, {seconds:.1f} s of sound."
            )
        for fault, count in sorted(Counter(self.faults.values()).items()):
            log.warning("%s/%d: %d stretches stay as they were: %s", self.job.job_id, self.job.run, count, fault)
            said.append(
                f"{name} did not hear {count} disputed stretches, which stay as they were: {fault.rstrip('.')}."
            )
        if silent := sum(not heard.words for heard in self.heard.values()):
            said.append(f"{name} heard nothing at all in {silent} of them, which stay as they were.")
        if beyond:
            said.append(
                f"{name} was not asked about {beyond} disputes: the limit is {self.tiebreak.seconds:g} s of sound."
            )
        if timeless:
            said.append(f"{name} was not asked about {timeless} disputes: no recognizer says when they were said.")
        return said


async def _once(recognizer: LocalRecognizer, file: Path, request: Request, kept: ResponseCache) -> Hypothesis:
    """What it hears in the file, or heard when it was asked before."""
    content = await asyncio.to_thread(file.read_bytes)
    key = hashlib.sha256(b"\0".join((request.language.encode(), content))).hexdigest()
    answer = await kept.get(key)
    if answer is not None:
        with contextlib.suppress(ValueError):  # one that cannot be read is none
            return cast("Hypothesis", adapter(Hypothesis).validate_json(answer))
    heard = await recognizer.transcribe(file, request, _silent)
    await kept.put(key, adapter(Hypothesis).dump_json(heard))
    return heard


def _moved(heard: Hypothesis, interval: DisputedInterval) -> Hypothesis:
    """With the recording's own times."""
    words = (
        replace(
            word,
            start_ms=None if word.start_ms is None else interval.start_ms + word.start_ms,
            end_ms=None if word.end_ms is None else min(interval.end_ms, interval.start_ms + word.end_ms),
        )
        for word in heard.words
    )
    return replace(heard, words=tuple(words))


def _silent(_: float) -> None:
    """A stretch is too short to tell how far it is."""
