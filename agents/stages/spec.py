"""The specification of a stage, and what the worker that runs the stage offers to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from agents.asr.paid_calls import PaidCalls
from agents.asr.protocols import Languages, Recognizer
from agents.asr.rate_limit import ProviderLimiter
from agents.asr.tiebreaker import Tiebreaker
from agents.conversations.client import ElevenLabs
from agents.llm.adjudicator import SpanAdjudicator
from agents.llm.texts.questions import TextQuestions
from agents.media.source.audio_source import AudioSource
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import Stage, TableStage
from agents.text.spelling import Spelling
from agents.voices.protocols import VoiceListener
from schemas.envelope import Envelope
from schemas.jobs.outcome import Failure, Outcome
from schemas.topics import Topic
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Store
from sinks.ports.clock import Clock
from sinks.ports.conversations.agents import ConversationAgents
from sinks.ports.corrections.voices import VoicePrints
from sinks.ports.jobs import Jobs
from sinks.ports.leases import Leases
from sinks.ports.mail.ledger import MailLedger
from sinks.ports.mail.transport import MailServer
from sinks.ports.providers.limits import Limits
from sinks.ports.providers.requests import Requests
from sinks.ports.providers.slots import Slots
from sinks.ports.providers.strays import Strays
from sinks.ports.providers.usage import UsageRows
from sinks.ports.tenants import PerTenant
from sinks.ports.upkeep.deletions import Deletions
from sinks.ports.uploads import Uploads


class Database(
    Clock,
    Jobs,
    UsageRows,
    Requests,
    Strays,
    Uploads,
    Slots,
    Limits,
    Leases,
    Deletions,
    MailLedger,
    ConversationAgents,
    PerTenant[VoicePrints],
    Protocol,
):
    """All that stages ask of the database; each stage declares which part it needs."""


@dataclass(frozen=True, slots=True)
class MailService:
    """How an installation sends mail."""

    server: MailServer
    #: The address from which it comes.
    sender: str
    #: Domains to which it is sent, in lower case; empty for all.
    domains: frozenset[str]
    #: Bytes of a report that is attached.
    attached_bytes: int
    #: Our URL, for links.
    public_url: str | None


@dataclass(frozen=True, slots=True)
class ConversationService:
    """How an installation processes conversations of voice agents."""

    #: None if no key is configured.
    client: ElevenLabs | None
    #: What is missing for it, a sentence each, with what to do.
    lacks: tuple[str, ...]
    #: Bytes of a recording, at most.
    max_bytes: int
    #: Seconds for which a conversation that has not ended is waited for.
    wait_s: float


class Resources(Protocol):
    """What a worker offers to the stages that it builds. The worker closes what is opened here, in reverse order."""

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
        """Names of the recognizers that transcribe every recording."""

    @property
    def abilities(self) -> Mapping[str, frozenset[str]]:
        """By recognizer, the options of an upload that it supports."""

    @property
    def has_voices(self) -> bool:
        """Whether there is a model that tells voices apart."""

    @property
    def languages(self) -> Mapping[str, Languages]:
        """By recognizer, the languages that it hears."""

    @property
    def enrichments(self) -> tuple[str, ...]:
        """Kinds of enrichment that are made of each transcript."""

    @property
    def number_spelling(self) -> Spelling:
        """How numbers are written on which recognizers agree."""

    @property
    def error_rates(self) -> Mapping[str, float]:
        """Word error rates of recognizers that the operator states, 0 to 1, by name."""

    @property
    def accounts(self) -> EffectiveSettings:
        """What holds for each tenant."""

    @property
    def deadline_s(self) -> float:
        """Seconds after which a run goes on without the recognizers that have not answered."""

    @property
    def patience_s(self) -> float:
        """Seconds for which a fetch is retried if the host fails."""

    @property
    def part_tokens(self) -> int:
        """Tokens of a call that the text model reads at once."""

    @property
    def document_temperature(self) -> float:
        """The text model's temperature for titles and descriptions."""

    def is_behind(self) -> bool:
        """Whether more events wait in this process than it can start soon."""

    def leased_tasks(self, limit: int) -> LeasedTasks:
        """Background tasks under a lease, `limit` of them at a time."""

    def recognizer(self, name: str) -> Recognizer:
        """A recognizer by its name, which the stage closes. Raises `SettingsError` if it is not configured."""

    def limiter(self, recognizer: Recognizer, here: int | None = None) -> ProviderLimiter:
        """The fleet-wide limits of a recognizer. This worker adds `here` slots to those of one on this machine."""

    def mail_service(self) -> MailService | None:
        """How mail is sent; None if no mail server is configured."""

    def conversations(self) -> ConversationService:
        """How conversations are processed, with a client that the stage closes."""

    def audio_source(self, max_bytes: int | None = None) -> AudioSource:
        """Fetches and probes recordings, of `max_bytes` at most (None: as installed)."""

    def tiebreaker(self) -> Tiebreaker | None:
        """The recognizer that transcribes disputed intervals again; None if none is configured."""

    def voices(self) -> VoiceListener | None:
        """What tells voices apart; None if no voice model is installed."""

    async def span_adjudicator(self) -> SpanAdjudicator | None:
        """The language model that decides disputed words; None if none is configured."""

    async def text_questions(self) -> TextQuestions | None:
        """What asks a language model about texts; None if none is configured."""

    def run_in_background(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run `run`, which never returns, as long as the worker runs; it is restarted when it fails."""

    def embed_in_background(self) -> None:
        """Have vectors made of the passages that have none, as long as the worker runs, if a model is configured."""

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call `close` when the worker stops."""


#: Builds a stage; called once a process, with the stage's specification.
Build = Callable[["StageSpec", Resources], Awaitable[Stage]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """One stage. The roles of `concord worker`, consumer groups, topics and deployments are derived from these."""

    #: The stage's role, such as `persist` or `transcribe.whisper-base`. Its consumer group is `concord.<name>`.
    name: str
    #: The topics that it consumes.
    inputs: tuple[Topic, ...] = ()
    #: The topic of its own later events: retries, polls, deadlines. None for a stage that keeps a table.
    due: Topic | None = None
    #: The topics to which it publishes, besides the job's status.
    publishes: tuple[Topic, ...] = ()
    build: Build | None = None
    #: Set instead of `build` if the stage keeps a table of the newest record of each key of its topic.
    table: TableStage | None = None
    #: Set if the stage exists once per recognizer: the topic of a recognizer's requests.
    per_recognizer: Callable[[str], Topic] | None = None
    #: What such a stage publishes besides, by recognizer.
    also_publishes: Callable[[str], tuple[Topic, ...]] | None = None
    #: Set if the stage exists only in fleets with certain recognizers: whether it is used with that of a name.
    used_with: Callable[[str], bool] | None = None
    #: The kind of enrichment that it makes of transcripts. Such a stage is optional and never changes a run.
    enrichment: str | None = None
    #: The outcome of an event for its `due` topic that Kafka refuses for good. Without it, the run fails.
    refused: Callable[[Envelope, Failure], Outcome | None] | None = None

    def for_recognizer(self, recognizer: str) -> StageSpec:
        """The specification of the stage for one recognizer.

        Raises:
            ValueError: The stage does not exist once per recognizer.
        """
        if self.per_recognizer is None:
            raise ValueError(f"the stage {self.name} does not exist once per recognizer")
        topic, name = self.per_recognizer(recognizer), f"{self.name}.{recognizer}"
        publishes = (*self.publishes, *(self.also_publishes(recognizer) if self.also_publishes else ()))
        return replace(self, name=name, inputs=(topic,), due=topic, publishes=publishes, per_recognizer=None)

    async def open(self, resources: Resources) -> Stage:
        """The stage, ready to handle events.

        Raises:
            ValueError: The stage keeps a table and handles no events.
            SettingsError: A setting that it needs is missing or invalid.
        """
        if self.build is None:
            raise ValueError(f"the stage {self.name} keeps a table, and handles no events")
        return await self.build(self, resources)

    @property
    def reads(self) -> tuple[Topic, ...]:
        """Every topic that its consumer group reads."""
        topics = [*self.inputs, *([self.due] if self.due else [])]
        return tuple({topic.name: topic for topic in topics}.values())
