"""What the fleet has to know of a stage: its specification, and what a stage may ask of the process that runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from agents.asr.paid_calls import PaidCalls
from agents.asr.protocols import Recognizer
from agents.asr.rate_limit import ProviderLimiter
from agents.asr.tiebreaker import Tiebreaker
from agents.llm.adjudicator import SpanAdjudicator
from agents.media.source.audio_source import AudioSource
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import Stage, TableStage
from schemas.envelope import Envelope
from schemas.jobs.outcome import Failure, Outcome
from schemas.topics import Topic
from sinks.ports.blobs import Store
from sinks.ports.clock import Clock
from sinks.ports.jobs import Jobs
from sinks.ports.leases import Leases
from sinks.ports.providers.limits import Limits
from sinks.ports.providers.requests import Requests
from sinks.ports.providers.slots import Slots
from sinks.ports.providers.strays import Strays
from sinks.ports.uploads import Uploads


class Database(Clock, Jobs, Requests, Strays, Uploads, Slots, Limits, Leases, Protocol):
    """What stages may ask of the database; each states what it needs."""


class Resources(Protocol):
    """What a worker offers to the stages that it builds. Everything that is opened here is closed by the worker, in
    reverse order.
    """

    @property
    def database(self) -> Database:
        """The rows of all jobs."""

    @property
    def store(self) -> Store:
        """The blobs of all jobs."""

    @property
    def paid(self) -> PaidCalls:
        """Calls in flight that cost money, shared by all stages of the process."""

    @property
    def recognizers(self) -> tuple[str, ...]:
        """Names of the recognizers that hear every recording."""

    @property
    def abilities(self) -> Mapping[str, frozenset[str]]:
        """What each recognizer carries out of an upload's options."""

    @property
    def enrichments(self) -> tuple[str, ...]:
        """Kinds of enrichment that are made of each transcript."""

    @property
    def deadline_s(self) -> float:
        """Seconds after which a run goes on without the recognizers that have not answered."""

    @property
    def patience_s(self) -> float:
        """Seconds for which a host that does not deliver is tried again."""

    def is_behind(self) -> bool:
        """Whether more events wait in this process than it can begin at once."""

    def leased_tasks(self, limit: int) -> LeasedTasks:
        """Background tasks under a lease, `limit` of them at a time."""

    def recognizer(self, name: str) -> Recognizer:
        """A recognizer by its name, which the stage closes."""

    def limiter(self, recognizer: Recognizer, tasks: LeasedTasks | None = None) -> ProviderLimiter:
        """The fleet-wide limits for a recognizer, whose work on this machine goes on in `tasks`."""

    def audio_source(self) -> AudioSource:
        """Where recordings are fetched from."""

    def tiebreaker(self) -> Tiebreaker | None:
        """The recognizer that hears disputed intervals again; None if none is configured."""

    async def span_adjudicator(self) -> SpanAdjudicator | None:
        """The language model that decides disputed words; None if none is configured."""

    def run_beside(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Keep `run` running beside the stages; it never returns by itself."""

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call `close` when the worker stops."""


#: Builds a stage; called once a process. The name is the stage's own: `transcribe.whisper-base`, `persist`.
Build = Callable[["StageSpec", Resources], Awaitable[Stage]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """One stage. Roles of `concord worker`, consumer groups, topics and deployments follow from these."""

    #: Its role and, behind `concord.`, its consumer group.
    name: str
    #: What others send it.
    inputs: tuple[Topic, ...] = ()
    #: What comes back to it later: retries, polls, deadlines. None for a stage that keeps a table.
    due: Topic | None = None
    #: What it announces, besides the job's status.
    publishes: tuple[Topic, ...] = ()
    build: Build | None = None
    #: Instead of `build`: the stage keeps a table of the newest records of its topic.
    table: TableStage | None = None
    #: The stage exists once a recognizer, and this makes the topic of its requests.
    per_recognizer: Callable[[str], Topic] | None = None
    #: The kind of enrichment that it makes of transcripts; the stage is optional and never changes a run.
    enrichment: str | None = None
    #: What becomes of an event for its `due` topic that Kafka refuses for good; None ends the run.
    refused: Callable[[Envelope, Failure], Outcome | None] | None = None

    def for_recognizer(self, recognizer: str) -> StageSpec:
        """The specification of the stage for one recognizer."""
        if self.per_recognizer is None:
            raise ValueError(f"the stage {self.name} is not one a recognizer")
        topic = self.per_recognizer(recognizer)
        return replace(self, name=f"{self.name}.{recognizer}", inputs=(topic,), due=topic, per_recognizer=None)

    async def open(self, resources: Resources) -> Stage:
        """The stage, ready to handle events."""
        if self.build is None:
            raise ValueError(f"the stage {self.name} keeps a table, and handles no events")
        return await self.build(self, resources)

    @property
    def reads(self) -> tuple[Topic, ...]:
        """Every topic of its consumer group."""
        topics = [*self.inputs, *([self.due] if self.due else [])]
        return tuple({topic.name: topic for topic in topics}.values())
