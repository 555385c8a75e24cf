"""A fleet in memory: the real stages, the real prober, doubles for PostgreSQL, Kafka and the store, and a clock that is
told.
"""

from __future__ import annotations

import io
import math
import struct
import wave
from collections import Counter
from dataclasses import dataclass, field

import pytest

from agents.asr.protocols import ChunkedRecognizer, LocalRecognizer, Pending
from agents.asr.rate_limit import ProviderLimiter
from agents.asr.tiebreaker import Tiebreaker
from agents.llm.adjudicator import SpanAdjudicator
from agents.llm.protocols import Adjudicator
from agents.media.clips import Clips
from agents.media.probe_pool import ProbePool
from agents.media.source.audio_source import AudioSource
from agents.media.transcode import Transcoder
from agents.runtime.in_memory import Clock, MemoryFleet
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages import intake, persist, reconcile, track, transcribe
from schemas.errors import ProviderError, Transient
from schemas.words import Hypothesis, Word
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase

#: The job that most stories are about.
JOB = "4711ca11-0000-4000-8000-000000000000"


def recording(seconds: float = 0.5) -> bytes:
    """A WAV file with a tone in it."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(n / 6))) for n in range(int(16_000 * seconds))))
    return content.getvalue()


@dataclass
class FakeRecognizer:
    """A provider as this story needs it: says `text`, after `polls` looks, or fails in the ways that providers do."""

    name: str
    text: str = "hello there world"
    polls: int = 0
    settles_s: float = 60.0
    remembers_s: float = 1e6
    #: Raised by the next calls to submit, in order; None lets one through.
    trouble: list[Exception | None] = field(default_factory=list)
    #: Whether the answer to the next submission is lost: charged, but we do not hear of it.
    lose_answer: bool = False
    charges: Counter[str] = field(default_factory=Counter)
    _looks: Counter[str] = field(default_factory=Counter)

    async def submit(self, request, audio) -> str:
        trouble = self.trouble.pop(0) if self.trouble else None
        if trouble is not None:
            raise trouble
        self.charges[request.marker] += 1
        if self.lose_answer:
            self.lose_answer = False
            raise Transient("the connection was cut")
        return request.marker

    async def find(self, request, *, within_s=0.0, proof=True) -> str | None:
        return request.marker if self.charges[request.marker] else None

    async def poll(self, provider_id: str) -> Pending | Hypothesis:
        self._looks[provider_id] += 1
        if self._looks[provider_id] <= self.polls:
            return Pending(5.0, self._looks[provider_id] / (self.polls + 1))
        if self.text == "never":
            return Pending(60.0)
        if self.text == "fails":
            raise ProviderError("the recognizer could not decode it")
        words = tuple(Word(w, 400 * n, 400 * n + 350, 0.9) for n, w in enumerate(self.text.split()))
        return Hypothesis(self.name, words, "en", 500, 0.9)

    async def close(self) -> None: ...


@dataclass
class Scenario:
    """Everything a story may look at."""

    fleet: MemoryFleet
    store: MemoryStore
    recognizers: dict[str, FakeRecognizer]
    limiters: dict[str, ProviderLimiter]

    async def upload(
        self, job_id: str | None = JOB, tenant: str = "t", content: bytes | None = None, headers=(), **more
    ):
        """Store a recording and announce it, as a stranger would."""
        blob = await self.store.put(
            f"{tenant}/in/{job_id}.wav", recording() if content is None else content, "audio/wav"
        )
        data = {"tenant_id": tenant, "audio_uri": blob.uri, "filename": "call.wav", **more}
        data |= {"job_id": job_id} if job_id else {}
        import orjson

        return self.fleet.publish("audio.uploaded", orjson.dumps(data), b"any", headers)

    def terminal(self) -> list[tuple[str, str, int]]:
        """(topic, reference or else job, run) of every terminal event."""
        ends = [(topic, event) for topic in ("persisted", "job.failed") for event in self.fleet.events(topic)]
        return [(topic, end.get("reference", end["job_id"]), end["run"]) for topic, end in ends]


@pytest.fixture
async def probe_pool():
    it = ProbePool(processes=1)
    yield it
    await it.close()


@pytest.fixture
async def clips():
    it = Clips()
    yield it
    await it.close()


@pytest.fixture
async def make_scenario(probe_pool, clips):
    """`story(Speaker("a"), Speaker("b"))`: a fleet with these recognizers; a judge and a third recognizer, who have 3 s
    each, if there are any.
    """
    opened: list[LeasedTasks | AudioSource | Transcoder] = []

    def build(
        *recognizers: FakeRecognizer,
        deadline_s: float = 3600,
        adjudicator: Adjudicator | None = None,
        max_spans: int = 200,
        slots: dict[str, int] | None = None,
        interval_s: float = 0.0,
        third: LocalRecognizer | ChunkedRecognizer | None = None,
        seconds: float = 120.0,
        third_limit_s: float = 3.0,
        allow_hosts: frozenset[str] = frozenset(),
        abilities: dict[str, frozenset[str]] | None = None,
        clock: Clock | None = None,
        enrichments: tuple[str, ...] = (),
    ) -> Scenario:
        clock = clock or Clock()
        database, store = MemoryDatabase(clock=clock), MemoryStore()
        work, audio_source = (
            LeasedTasks(database, "test", limit=8),
            AudioSource(store, probe_pool, (), allow_hosts, intended=database.intend_blob),
        )
        opened.extend((work, audio_source))
        names = tuple(s.name for s in recognizers)
        asked = (*names, third.name) if third else names
        limiters = {
            name: ProviderLimiter(database, name, (slots or {}).get(name), interval_s, patience_s=1.0) for name in asked
        }
        transcribers = [transcribe.Transcribe(s, database, store, work, limiters[s.name]) for s in recognizers]
        opened.extend(transcriber.transcoder for transcriber in transcribers)
        stages = [
            intake.stage(
                intake.Intake(
                    database, audio_source, work, names, deadline_s, abilities=abilities or {}, enrichments=enrichments
                )
            ),
            *map(transcribe.stage, transcribers),
            reconcile.stage(
                reconcile.Reconcile(
                    database,
                    store,
                    SpanAdjudicator(adjudicator, database, max_spans, limit_s=3) if adjudicator else None,
                    work,
                    Tiebreaker(third, database, store, clips, limiters[third.name], seconds, limit_s=third_limit_s)
                    if third
                    else None,
                )
            ),
            persist.stage(persist.Persist(database, store, enrichments)),
        ]
        return Scenario(
            MemoryFleet(stages, database, clock, track.TABLE_STAGE), store, {s.name: s for s in recognizers}, limiters
        )

    yield build
    for one in opened:
        await one.close()
