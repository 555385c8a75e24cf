"""Follows the statuses of jobs, and shows their progress on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from agents.commands import reach
from agents.runtime.kafka import client as clients
from agents.stages.track import key_of, newest
from schemas import topics
from schemas.errors import MalformedEvent, Unavailable
from schemas.ids import job_key
from schemas.jobs.rows import TERMINAL, stages_of
from schemas.jobs.status import status_of
from schemas.printable import LINE, printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping

    from agents.runtime.kafka.client import Kafka
    from schemas.events.job import EnrichmentStatus, JobStatus, StepState
    from schemas.ids import Key
    from schemas.jobs.rows import Job

    #: Reads a job's row, by tenant and id.
    Ask = Callable[[str, str], Awaitable[Job | None]]

#: Seconds between redraws of the board, and between queries to the database.
REDRAW_S, ASK_S = 0.25, 0.5

#: Seconds for which the database may be unavailable.
PATIENCE_S = 30.0

_MARKS = {"done": "✓", "failed": "✗", "cancelled": "✗", "retrying": "↻", "running": "…"}
_MARKS |= {"queued": "⋯", "waiting": "·", "pending": "·"}
_BLOCKS = " ▏▎▍▌▋▊▉"


def printable_status(status: JobStatus) -> JobStatus:
    """The status with all texts from producers and providers made safe for a terminal."""
    steps = {
        printable(name): step.model_copy(update={"error": _one_line(step.error)}) for name, step in status.steps.items()
    }
    enrichment = {
        printable(kind): one.model_copy(update={"error": _one_line(one.error)})
        for kind, one in status.enrichment.items()
    }
    names = {name: printable(getattr(status, name)) for name in ("tenant_id", "job_id", "filename")}
    return status.model_copy(
        update=names | {"steps": steps, "enrichment": enrichment, "reason": _one_line(status.reason)}
    )


def _one_line(text: str | None) -> str | None:
    return text and printable(text, limit=LINE)


def bar(share: float, width: int = 20) -> str:
    """A bar of `width` characters, `share` of it full."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BLOCKS[rest] if rest else "")).ljust(width)


def seconds(step: StepState | EnrichmentStatus, now: datetime) -> float | None:
    """How long a step took, or has taken until now."""
    if step.started_at is None:
        return None
    return max(0.0, ((step.finished_at or now) - step.started_at).total_seconds())


def steps_of(status: JobStatus) -> list[tuple[str, StepState]]:
    """The steps that have started, in the order of the pipeline."""
    stages = list(stages_of(status.steps).values())

    def position(name: str) -> tuple[int, str]:
        stage = name.partition(".")[0]
        return (stages.index(stage) if stage in stages else len(stages)), name

    return [(name, status.steps[name]) for name in sorted(status.steps, key=position)]


def short_step(name: str, step: StepState, now: datetime) -> str:
    """One step in a few characters: "whisper-base 45 % 2.1 s"."""
    parts = [name.removeprefix("transcribe."), _MARKS[step.state]]
    if step.state == "running" and step.progress is not None:
        parts.append(f"{step.progress:.0%}")
    duration_s = seconds(step, now)
    if duration_s is not None:
        parts.append(f"{duration_s:.1f} s")
    return " ".join(parts)


def line(label: str, status: JobStatus | None, now: datetime) -> str:
    """One job in one line; without a status, as waiting for intake."""
    if status is None:
        return f"{label}  ▕{bar(0)}▏   0 %  waiting for intake"
    status = printable_status(status)
    steps = "   ".join(short_step(name, step, now) for name, step in steps_of(status))
    text = f"{label}  ▕{bar(status.progress)}▏ {status.progress:4.0%}  {status.status:<12}  {steps}"
    return f"{text}   {status.reason}" if status.reason else text


def table(status: JobStatus, now: datetime) -> str:
    """One job in full: its names, status and times, each step with its attempts, and the reason if it failed."""
    status = printable_status(status)
    reference = f", reference {status.reference}" if status.reference else ""
    rows = [f"{status.filename}  (job {status.job_id}{reference}, tenant {status.tenant_id}, run {status.run})"]
    rows.append(f"{status.status}  ▕{bar(status.progress)}▏ {status.progress:.0%}")
    rows.append(f"since {_time(status.created_at)}, last change {_time(status.updated_at)}")
    rows += ["", f"  {'step':<28} {'state':<13} {'started':<20} {'seconds':>8} {'tries':>6}"]
    rows += [_step_row(name, step, now) for name, step in steps_of(status)]
    if status.enrichment:
        rows += ["", f"  {'made of the transcript':<28} {'state':<13} {'started':<20} {'seconds':>8} {'tries':>6}"]
        rows += [_step_row(kind, step, now) for kind, step in sorted(status.enrichment.items())]
    if status.reason:
        rows += [
            "",
            f"failed: {status.reason}",
            "`concord dlq list` shows the dead letters, `concord dlq replay` retries one.",
        ]
    return "\n".join(rows)


def _step_row(name: str, step: StepState | EnrichmentStatus, now: datetime) -> str:
    duration_s = seconds(step, now)
    duration = f"{duration_s:8.1f}" if duration_s is not None else " " * 8
    progress = getattr(step, "progress", None)
    share = f" {progress:.0%}" if step.state == "running" and progress is not None else ""
    state = f"{_MARKS[step.state]} {name:<28} {step.state + share:<13}"
    row = f"{state} {_time(step.started_at):<20} {duration} {step.attempts or '':>6}"
    return f"{row}  {step.error}" if step.error else row


def _time(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


class Board:
    """Shows the progress of some jobs: on a terminal a line for each, redrawn in place; elsewhere a line per change."""

    def __init__(self, labels: Mapping[Key, str], out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        safe = {key: printable(label) for key, label in labels.items()}
        width = max(map(len, safe.values()), default=0)
        self._labels = {key: label.ljust(width) for key, label in safe.items()}
        self._statuses: dict[Key, JobStatus] = {}
        self._drawn = 0
        self._live = self._out.isatty()

    def update(self, status: JobStatus) -> None:
        """Show a newer status of one of the jobs."""
        key = status.tenant_id, status.job_id
        self._statuses[key] = status
        if not self._live:
            print(f"{datetime.now():%H:%M:%S}  {self._line(key)}", file=self._out, flush=True)  # noqa: DTZ005 - for people

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[Board]:
        """Redraw the lines on the terminal for the duration of the context."""
        drawing = asyncio.create_task(self._redraw()) if self._live else None
        try:
            yield self
        finally:
            if drawing is not None:
                drawing.cancel()
                self.draw()

    async def _redraw(self) -> None:
        while True:
            self.draw()
            await asyncio.sleep(REDRAW_S)

    def draw(self) -> None:
        """Write all lines over the previous ones."""
        width, height = shutil.get_terminal_size()
        lines = [self._line(key)[: width - 1] for key in self._labels]
        if len(lines) >= height:
            lines = [self._summary()]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._out.write(up + "".join(f"\x1b[2K{text}\n" for text in lines))
        self._out.flush()
        self._drawn = len(lines)

    def _line(self, key: Key) -> str:
        return line(self._labels[key], self._statuses.get(key), datetime.now(UTC))

    def _summary(self) -> str:
        names = [status.status for status in self._statuses.values()]
        share = sum(status.progress for status in self._statuses.values()) / len(self._labels)
        completed, failed = names.count("completed"), names.count("failed")
        return f"{len(self._labels)} recordings  ▕{bar(share)}▏ {share:4.0%}  {completed} completed, {failed} failed"


class Follower:
    """Reads newer statuses of jobs from the topic `job.status`, and from the database; either may be left out."""

    def __init__(self, consumer: Any = None, ask: Ask | None = None) -> None:
        """`consumer` is assigned to `job.status`; `ask` reads a job from the database."""
        self._consumer = consumer
        self._ask = ask
        #: By job key, the newest version that was returned, in the form that `track.newest` reads.
        self._versions: dict[str, dict[str, Any]] = {}
        self._asked_at = self._answered_at = -math.inf

    async def until_ended(self, jobs: Collection[Key]) -> AsyncIterator[JobStatus]:
        """Every newer status of these jobs, until the run of each has ended.

        Raises Unavailable when the database does not answer for `PATIENCE_S`.
        """
        open_jobs, self._answered_at = set(jobs), time.monotonic()
        while open_jobs:
            for status in [*await self._from_kafka(open_jobs), *await self._from_database(open_jobs)]:
                yield status
                if status.status in TERMINAL:
                    open_jobs.discard((status.tenant_id, status.job_id))

    async def _from_kafka(self, jobs: Collection[Key]) -> list[JobStatus]:
        if self._consumer is None:
            await asyncio.sleep(REDRAW_S)
            return []
        batch = await self._consumer.getmany(timeout_ms=int(REDRAW_S * 1000))
        keys = {job_key(*key) for key in jobs}
        statuses = [self._newer(record, keys) for records in batch.values() for record in records]
        return [status for status in statuses if status is not None]

    def _newer(self, record: Any, keys: Collection[str]) -> JobStatus | None:
        if (record.key or b"").decode("utf-8", "replace") not in keys:
            return None
        with contextlib.suppress(MalformedEvent):  # the fleet's `track` writes it to the dead letters
            return self._remember(newest(self._versions.get, clients.record_of(record)))
        return None

    async def _from_database(self, keys: Collection[Key]) -> list[JobStatus]:
        if self._ask is None or time.monotonic() - self._asked_at < ASK_S:
            return []
        newer = [status_of(job) for job in await self._read_jobs(self._ask, keys) if self._is_newer(job)]
        return [status for status in map(self._remember, newer) if status is not None]

    async def _read_jobs(self, ask: Ask, keys: Collection[Key]) -> list[Job]:
        """These jobs as the database has them; none while it does not answer. Raises Unavailable after `PATIENCE_S`."""
        self._asked_at = time.monotonic()
        try:
            jobs = [await ask(*key) for key in sorted(keys)]
        except Unavailable:
            if time.monotonic() - self._answered_at > PATIENCE_S:
                raise
            return []
        self._answered_at = time.monotonic()
        return [job for job in jobs if job is not None]

    def _is_newer(self, job: Job) -> bool:
        returned = self._versions.get(job_key(*job.key), {"version": 0})
        return bool(job.version > returned["version"])

    def _remember(self, status: JobStatus | None) -> JobStatus | None:
        if status is not None:
            self._versions[key_of(status)] = {"version": status.version}
        return status


@contextlib.asynccontextmanager
async def following(where: Kafka, ask: Ask | None = None) -> AsyncIterator[Follower]:
    """A follower of all records on `job.status` from now on. Raises NotFound and Unavailable."""
    partitions = await reach.partitions_of(where, topics.STATUS.name)
    async with reach.started(where, clients.consumer(where)) as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        # The seek is lazy: only reading a position fixes the offset.
        for partition in partitions:
            await consumer.position(partition)
        yield Follower(consumer, ask)
