"""Uploads as a stranger sends them, and completions as a stranger receives them."""

from __future__ import annotations

import asyncio
import io
import math
import struct
import time
import uuid
import wave
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import orjson

from agents.runtime.kafka.client import Kafka, consumer, producer

if TYPE_CHECKING:
    from bench.measure import Statuses
    from sinks.ports.blobs import Store

#: Seconds after the last upload at which what is missing counts as lost.
PATIENCE_S = 180.0


def tone(seconds: float = 1.0) -> bytes:
    """A WAV file, 16 kHz mono, that decodes as quickly as any."""
    samples = (int(8000 * math.sin(2 * math.pi * 440 * n / 16_000)) for n in range(int(16_000 * seconds)))
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"".join(struct.pack("<h", s) for s in samples))
    return content.getvalue()


@dataclass
class Outcome:
    """What became of some uploads."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    lost: int = 0
    twice: int = 0


class Load:
    """A producer of uploads and a `read_committed` consumer of terminal events."""

    def __init__(self, kafka: Kafka, store: Store, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._kafka, self._store = kafka, store
        self._sent: dict[str, float] = {}
        self._ended: Counter[str] = Counter()
        self._latencies: dict[str, float] = {}
        self._recording = tone()

    async def __aenter__(self) -> Self:
        self._producer = producer(self._kafka)
        self._consumer = consumer(self._kafka, "persisted", "job.failed", auto_offset_reset="latest")
        await self._producer.start()
        await self._consumer.start()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await self._consumer.stop()
        await self._producer.stop()

    async def _read(self) -> None:
        async for record in self._consumer:
            job = orjson.loads(record.value)["job_id"]
            self._ended[job] += 1
            self._latencies.setdefault(job, time.time() - self._sent.get(job, math.nan))

    async def send(self, count: int, *, rate: float | None, watched: Statuses | None = None) -> Outcome:
        """Upload `count` recordings, `rate` a second or as fast as they go, and wait until all have ended."""
        return await self.send_all([await self.stored() for _ in range(count)], rate=rate, watched=watched)

    async def send_all(
        self, jobs: list[tuple[str, bytes]], *, rate: float | None = None, watched: Statuses | None = None
    ) -> Outcome:
        """The same for recordings that are stored already."""
        began = time.time()
        await self._upload(jobs, rate, watched)
        await self._all_ended([job for job, _ in jobs])
        return self._outcome([job for job, _ in jobs], time.time() - began)

    async def submit_all(self, jobs: list[tuple[str, bytes]], recognizer: str, *, rate: float | None = None) -> float:
        """The same until the recognizer's server at that URL was asked for all of them: so many seconds.

        Raises:
            TimeoutError: It was not, for as long as would count as lost.
        """
        began = time.time()
        await self._upload(jobs, rate)
        async with asyncio.timeout(self._patience_s), aiohttp.ClientSession() as session:
            asked = 0
            while asked < len(jobs):
                await asyncio.sleep(1)
                async with session.get(f"{recognizer}/charged") as answer:
                    asked = int(await answer.text())
        return time.time() - began

    async def _upload(self, jobs: list[tuple[str, bytes]], rate: float | None, watched: Statuses | None = None) -> None:
        began = time.time()
        for number, (job, upload) in enumerate(jobs):
            if rate is not None:
                await asyncio.sleep(max(0.0, began + number / rate - time.time()))
            if watched is not None:
                watched.follow(job)
            self._sent[job] = time.time()
            await self._producer.send("audio.uploaded", upload, job.encode())
        await self._producer.flush()

    async def stored(self, **fields: Any) -> tuple[str, bytes]:
        """A recording that stands in the store already, as an upload over HTTP leaves it: its job id, and its event,
        with these fields beside the usual ones.
        """
        job = str(uuid.uuid4())
        blob = await self._store.put(f"bench/{job}/original.wav", self._recording, "audio/wav")
        upload: dict[str, Any] = {"tenant_id": "bench", "job_id": job, "audio_uri": blob.uri, "filename": "tone.wav"}
        return job, orjson.dumps(upload | fields)

    async def _all_ended(self, jobs: list[str]) -> None:
        give_up = time.time() + self._patience_s
        while time.time() < give_up and any(not self._ended[job] for job in jobs):  # noqa: ASYNC110 - cheap enough
            await asyncio.sleep(0.02)

    def _outcome(self, jobs: list[str], seconds: float) -> Outcome:
        return Outcome(
            seconds,
            [self._latencies[job] for job in jobs if job in self._latencies],
            sum(not self._ended[job] for job in jobs),
            sum(self._ended[job] > 1 for job in jobs),
        )
