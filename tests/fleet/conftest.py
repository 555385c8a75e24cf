"""A fleet in memory: the real stages, doubles of PostgreSQL, Kafka and the store, and a manual clock. Tests that
ask for `probe_pool` have the real one, too.
"""

from __future__ import annotations

import asyncio
import io
import math
import struct
import wave
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from agents.asr.outside.over_kafka import OverKafka
from agents.asr.protocols import ChunkedRecognizer, Languages, LocalRecognizer, Pending
from agents.asr.rate_limit import ProviderLimiter
from agents.asr.tiebreaker import Tiebreaker
from agents.llm.adjudicator import SpanAdjudicator
from agents.llm.protocols import Adjudicator
from agents.media.clips import Clips
from agents.media.decoding.probe import probe
from agents.media.probe_pool import ProbePool
from agents.media.source.audio_source import AudioSource
from agents.media.transcode import Transcoder
from agents.runtime.in_memory import Clock, MemoryFleet
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages import hypotheses, intake, persist, reconcile, track, transcribe
from agents.stages.redacting import Redaction
from agents.stages.speaking import Diarization, Recognition
from agents.stages.uploads.runs import Runs
from agents.voices.protocols import VoiceListener
from schemas.accounts.settings import AccountSettings
from schemas.errors import ProviderError, Transient
from schemas.words import Hypothesis, Word
from sinks.accounts import Accounts
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase

#: The job of most tests.
JOB = "4711ca11-0000-4000-8000-000000000000"


def recording(seconds: float = 0.5) -> bytes:
    """A WAV file of a tone, 16 kHz mono."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(n / 6))) for n in range(int(16_000 * seconds))))
    return content.getvalue()


@dataclass
class FakeRecognizer:
    """A recognizer whose result is `text` after `polls` polls, or which fails as providers do."""

    name: str
    text: str = "hello there world"
    polls: int = 0
    #: The language that it tells.
    language: str | None = "en"
    settles_s: float = 60.0
    remembers_s: float = 1e6
    #: Errors of the next calls of submit, in order; None lets one succeed.
    trouble: list[Exception | None] = field(default_factory=list)
    #: Whether the response to the next submission is lost: it is charged, and the caller gets an error.
    lose_answer: bool = False
    charges: Counter[str] = field(default_factory=Counter)
    _polls: Counter[str] = field(default_factory=Counter)

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
        self._polls[provider_id] += 1
        if self._polls[provider_id] <= self.polls:
            return Pending(5.0, self._polls[provider_id] / (self.polls + 1))
        if self.text == "never":
            return Pending(60.0)
        if self.text == "fails":
            raise ProviderError("the recognizer could not decode it")
        words = tuple(Word(w, 400 * n, 400 * n + 350, 0.9) for n, w in enumerate(self.text.split()))
        return Hypothesis(self.name, words, self.language, 500, 0.9)

    async def close(self) -> None: ...


@dataclass
class Scenario:
    """A fleet in memory with its store and recognizers."""

    fleet: MemoryFleet
    store: MemoryStore
    recognizers: dict[str, FakeRecognizer]
    limiters: dict[str, ProviderLimiter]

    async def upload(
        self, job_id: str | None = JOB, tenant: str = "t", content: bytes | None = None, headers=(), **more
    ):
        """Store a recording and publish its upload, as an external producer does."""
        blob = await self.store.put(
            f"{tenant}/in/{job_id}.wav", recording() if content is None else content, "audio/wav"
        )
        data = {"tenant_id": tenant, "audio_uri": blob.uri, "filename": "call.wav", **more}
        data |= {"job_id": job_id} if job_id else {}
        import orjson

        return self.fleet.publish("audio.uploaded", orjson.dumps(data), b"any", headers)

    def terminal(self) -> list[tuple[str, str, int]]:
        """(topic, reference or job id, run) of every terminal event."""
        events = [(topic, event) for topic in ("persisted", "job.failed") for event in self.fleet.events(topic)]
        return [(topic, event.get("reference", event["job_id"]), event["run"]) for topic, event in events]


def enriching(store, database, accounts=None, text_questions=None, part_tokens: int = 24_000) -> SimpleNamespace:
    """What a worker offers to the stages of enrichments, by default without a language model."""

    async def questions():
        return text_questions

    return SimpleNamespace(
        store=store,
        database=database,
        accounts=accounts or Accounts(database, AccountSettings(), seconds=0),
        part_tokens=part_tokens,
        document_temperature=0.7,
        text_questions=questions,
    )


class ProbeHere(ProbePool):
    """Probes in this process: starting a subprocess for each scenario took 0.2 s of CPU, half of what it takes."""

    async def probe(self, path, name=None, declared_type=None, *, tenant=""):
        return await asyncio.to_thread(probe, path, name=name or path.name, declared_type=declared_type)


@pytest.fixture
async def probe_pool():
    pool = ProbePool(processes=1)
    yield pool
    await pool.close()


@pytest.fixture
async def clips():
    clips = Clips()
    yield clips
    await clips.close()


@pytest.fixture
async def make_scenario(clips):
    """`make_scenario(FakeRecognizer("a"), FakeRecognizer("b"))`: a fleet with these recognizers.

    An adjudicator and a third recognizer, if given, have 3 s each.
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
        languages: dict[str, Languages] | None = None,
        clock: Clock | None = None,
        enrichments: tuple[str, ...] = (),
        voices: VoiceListener | None = None,
    ) -> Scenario:
        clock = clock or Clock()
        database, store = MemoryDatabase(clock=clock), MemoryStore()
        accounts = Accounts(database, AccountSettings(), seconds=0)
        tasks, audio_source = (
            LeasedTasks(database, "test", limit=8),
            AudioSource(store, ProbeHere(processes=0), (), allow_hosts, intended=database.intend_blob),
        )
        opened.extend((tasks, audio_source))
        names = tuple(s.name for s in recognizers)
        providers = (*names, third.name) if third else names
        limiters = {
            name: ProviderLimiter(database, name, (slots or {}).get(name), interval_s, patience_s=1.0)
            for name in providers
        }
        heard = languages or {}
        transcribers = [
            transcribe.Transcribe(s, database, store, tasks, limiters[s.name], languages=heard, deadline_s=deadline_s)
            for s in recognizers
        ]
        opened.extend(transcriber.transcoder for transcriber in transcribers)
        transcoder = Transcoder()
        opened.append(transcoder)
        stages = [
            intake.stage(
                intake.Intake(
                    database,
                    audio_source,
                    tasks,
                    Runs(names, deadline_s, abilities or {}, enrichments, has_voices=voices is not None),
                    accounts=accounts,
                )
            ),
            *map(transcribe.stage, transcribers),
            reconcile.stage(
                reconcile.Reconcile(
                    database,
                    store,
                    SpanAdjudicator(adjudicator, database, max_spans, limit_s=3) if adjudicator else None,
                    tasks,
                    Tiebreaker(third, database, store, clips, limiters[third.name], seconds, limit_s=third_limit_s)
                    if third
                    else None,
                    languages=heard,
                    redaction=Redaction(store, transcoder, accounts),
                    diarization=Diarization(store, voices, abilities or {}),
                    recognition=Recognition(store, database, accounts, voices),
                    abilities=abilities or {},
                )
            ),
            persist.stage(persist.Persist(database, store, enrichments)),
        ]
        if any(isinstance(recognizer, OverKafka) for recognizer in recognizers):
            stages.append(hypotheses.stage(hypotheses.OutsideAnswers(database, store, audio_source)))
        return Scenario(
            MemoryFleet(stages, database, clock, track.TABLE_STAGE), store, {s.name: s for s in recognizers}, limiters
        )

    yield build
    for resource in opened:
        await resource.close()
