"""`make bench-local`: speech through the fleet with the recognizers in the box, beside the same models run bare.

The recordings are LibriVox readings, each of a minute, cut together in other orders. Bare means a process for each
model that does nothing else: faster-whisper's own `transcribe`, with its own detector of speech, and ONNX Runtime on
Moonshine's windows; as many threads, the same priority, both processes at the same time, as in the fleet. Both sides
have loaded their models before, and are told that it is English.

First the recordings go one after the other, each by both sides in turns, so that what else the machine does falls on
both; then all at once, by one side and by the other. Figures go to bench/results/local.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import uuid
import wave
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiokafka
import numpy as np

from agents.embedded import moonshine_weights, weights
from agents.media.decoding.decoder import decode
from bench.__main__ import Figures
from bench.processes import cpu_seconds, family, share_mb
from tests.system.harness import Site, roles_with, site

RESULTS = Path(__file__).parent / "results" / "local.md"
SPEECH = Path(__file__).parents[1] / "agents" / "commands" / "recordings"
RECOGNIZERS = ("whisper-base", moonshine_weights.NAME)
ROLES = roles_with(RECOGNIZERS)
TENANT, RATE = "acme", 16_000

#: Seconds of a recording, and of the pause between two readings.
RECORDING_S, PAUSE_S = 60.0, 0.5
#: The fleet's time over the bare one, at most.
AIM = 1.1
#: Niceness of the subprocesses of recognizers.
NICENESS = 5
#: Seconds that all recordings may take.
PATIENCE_S = 7200.0


def recordings(folder: Path, speech: Path, count: int) -> list[Path]:
    """Recordings of a minute, of the readings in a folder in a random order, each with the next one's beginning."""
    readings = [
        np.concatenate(list(decode(path, RATE)))
        for path in sorted(speech.iterdir())
        if path.suffix in (".flac", ".wav") and path.stat().st_size > 10_000
    ]
    chance, paths = random.Random(4711), []
    for number in range(count):
        sound, pause = np.zeros(0, np.float32), np.zeros(round(PAUSE_S * RATE), np.float32)
        while len(sound) < RECORDING_S * RATE:
            sound = np.concatenate([sound, *(part for one in chance.sample(readings, 1) for part in (one, pause))])
        paths.append(folder / f"call-{number}.wav")
        with wave.open(str(paths[-1]), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((sound[: round(RECORDING_S * RATE)] * 32767).astype("<i2").tobytes())
    return paths


# What follows runs in a process of its own: a model, bare.


def bare(model: str, folder: Path, threads: int) -> None:
    """Hear each recording whose path comes in a line; answer each with the number of its words."""
    os.nice(NICENESS)
    hear = _whisper(folder, threads) if model == RECOGNIZERS[0] else _moonshine(folder, threads)
    for line in sys.stdin:
        print(hear(Path(line.strip())), flush=True)


def _whisper(folder: Path, threads: int):
    from faster_whisper import WhisperModel

    from agents.asr.speech_windows import DETECTION
    from agents.asr.whisper import OPTIONS

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)

    def hear(path: Path) -> int:
        segments, _ = model.transcribe(str(path), language="en", vad_filter=True, vad_parameters=DETECTION, **OPTIONS)
        return sum(len(segment.words) for segment in segments)

    return hear


def _moonshine(folder: Path, threads: int):
    from agents.asr.moonshine.model import Model
    from agents.asr.speech_windows import recording_in_parts, windows

    model = Model(folder, threads)

    def hear(path: Path) -> int:
        parts = recording_in_parts({"path": str(path)}, beat=lambda: None)
        return sum(len(model.hear(window.samples).pieces) for part in parts for window in windows(part.chunk))

    return hear


# What follows is the measurement.


@dataclass
class Side:
    """One side of the comparison."""

    name: str
    #: Its processes.
    pids: Sequence[int]
    seconds: float = 0.0
    cpu_s: float = 0.0
    most_mb: float = 0.0

    @contextlib.asynccontextmanager
    async def timed(self) -> AsyncIterator[None]:
        """Adds what happens meanwhile."""
        watching = asyncio.create_task(self._watch())
        began, cpu_s = time.monotonic(), sum(map(cpu_seconds, self.pids))
        try:
            yield
        finally:
            watching.cancel()
        self.seconds += time.monotonic() - began
        self.cpu_s += sum(map(cpu_seconds, self.pids)) - cpu_s

    async def _watch(self) -> None:
        while True:
            members = [member for pid in self.pids for member in family(pid)]
            self.most_mb = max(self.most_mb, sum(map(share_mb, members)))
            await asyncio.sleep(0.5)


class Bare:
    """The models, each in a process."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    async def hear(self, paths: Sequence[Path]) -> None:
        """All of these by each model, the models at the same time."""
        await asyncio.gather(*(self._hear(process, paths) for process in self._processes))

    @staticmethod
    async def _hear(process: asyncio.subprocess.Process, paths: Sequence[Path]) -> None:
        for path in paths:
            process.stdin.write(f"{path}\n".encode())
            if not await process.stdout.readline():
                raise RuntimeError("a bare model has ended")


@contextlib.asynccontextmanager
async def bare_models(threads: int) -> AsyncIterator[Bare]:
    folders = {
        RECOGNIZERS[0]: weights.model_path("base", None),
        RECOGNIZERS[1]: moonshine_weights.moonshine_path(None),
    }
    processes = []
    for name, folder in folders.items():
        command = ("-m", "bench.local", "--bare", name, "--folder", str(folder), "--threads", str(threads))
        pipe = asyncio.subprocess.PIPE
        processes.append(await asyncio.create_subprocess_exec(sys.executable, *command, stdin=pipe, stdout=pipe))
    try:
        yield Bare(processes)
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):  # it has ended: its own error is printed above
                process.kill()
            await process.wait()


class Through:
    """The fleet: recordings in, completed jobs out."""

    def __init__(self, producer: aiokafka.AIOKafkaProducer, consumer: aiokafka.AIOKafkaConsumer) -> None:
        self._producer, self._consumer = producer, consumer

    async def hear(self, paths: Sequence[Path]) -> None:
        """All of these; returns when the last one is persisted."""
        waiting = set()
        for path in paths:
            job = str(uuid.uuid4())
            upload = {"tenant_id": TENANT, "job_id": job, "audio_uri": path.as_uri(), "filename": path.name}
            await self._producer.send_and_wait("audio.uploaded", json.dumps(upload | {"language": "en"}).encode())
            waiting.add(job)
        async with asyncio.timeout(PATIENCE_S):
            while waiting:
                record = await self._consumer.getone()
                event = json.loads(record.value)
                if record.topic == "job.failed":
                    raise RuntimeError(f"a recording was not transcribed: {event}")
                waiting.discard(event["job_id"])


@contextlib.asynccontextmanager
async def through(here: Site) -> AsyncIterator[tuple[Through, int]]:
    worker = here.worker(*ROLES, name="all")
    await (await worker.start_plain()).ready(180)
    kafka = {"bootstrap_servers": here.kafka.bootstrap_servers}
    consumer = aiokafka.AIOKafkaConsumer("persisted", "job.failed", isolation_level="read_committed", **kafka)
    async with consumer, aiokafka.AIOKafkaProducer(**kafka) as producer:
        await consumer.seek_to_end()
        yield Through(producer, consumer), worker.pid
    worker.signal(signal.SIGTERM)
    await worker.ended(30)


def compared(figures: Figures, what: str, fleet: Side, alone: Side, minutes: float) -> None:
    """Both sides' figures, and what the fleet takes more."""
    for side in (alone, fleet):
        figures.add(f"{what}, {side.name}: seconds for {minutes:.0f} min", f"{side.seconds:.1f} s")
        figures.add(f"{what}, {side.name}: processor time", f"{side.cpu_s:.1f} s")
        figures.add(f"{what}, {side.name}: most memory together (PSS)", f"{side.most_mb:.0f} MB")
    figures.add(f"{what}: the fleet's time over the bare one", f"{fleet.seconds / alone.seconds:.3f}", f"{AIM}")


async def run(minutes: int, speech: Path, folder: Path) -> Figures:
    """Both measurements."""
    figures, threads = Figures(), max(1, len(os.sched_getaffinity(0)) // 2)
    paths = await asyncio.to_thread(recordings, folder, speech, minutes)
    figures.add("recordings of a minute; threads of each model", f"{len(paths)}; {threads}")
    async with site(recognizers=RECOGNIZERS) as here, bare_models(threads) as alone:
        here.common = {"CONCORD_AUDIO_ROOTS": str(folder), "CONCORD_CACHE": str(weights.DEFAULT_CACHE.expanduser())}
        async with through(here) as (fleet, pid):
            await alone.hear(paths[:1])  # both load their models
            await fleet.hear(paths[:1])
            sides = Side("the fleet", [pid]), Side("bare", alone.pids)
            for path in paths:
                async with sides[1].timed():
                    await alone.hear([path])
                async with sides[0].timed():
                    await fleet.hear([path])
            compared(figures, "one after the other", *sides, minutes)
            sides = Side("the fleet", [pid]), Side("bare", alone.pids)
            async with sides[1].timed():
                await alone.hear(paths)
            async with sides[0].timed():
                await fleet.hear(paths)
            compared(figures, "at once", *sides, minutes)
    return figures


def main() -> None:
    """Run, print, write down."""
    parser = argparse.ArgumentParser(
        "python -m bench.local", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=10, help="of speech, a recording each (default %(default)s)")
    parser.add_argument("--speech", type=Path, default=SPEECH, help="folder of WAV and FLAC files to cut them from")
    parser.add_argument("--no-results", action="store_true", help="print the figures only")
    parser.add_argument("--bare", choices=RECOGNIZERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.bare:
        bare(wanted.bare, wanted.folder, wanted.threads)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="concord-bench-") as folder:
        Path(folder).chmod(0o755)
        figures = asyncio.run(run(wanted.minutes, wanted.speech, Path(folder)))
    if not wanted.no_results:
        RESULTS.write_text(
            f"`make bench-local`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, a load of {load:.1f} by "
            "others.\n\n"
            f"{figures.table()}\n"
        )


if __name__ == "__main__":
    main()
