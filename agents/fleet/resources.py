"""The resources of which stages are built: each is opened when a stage requests it, and closed with the worker."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from agents.asr.protocols import LocalRecognizer, Recognizer
from agents.asr.rate_limit import ProviderLimiter
from agents.asr.tiebreaker import Tiebreaker
from agents.conversations.client import ElevenLabs
from agents.embedded import weights
from agents.fleet.fleet import Fleet
from agents.fleet.gauges import WORKER
from agents.fleet.models.opening import open_adjudicator, open_text_model
from agents.fleet.recognizers import abilities, languages, open_recognizer, open_tiebreaker
from agents.fleet.search.serving import embed_in_background
from agents.llm.adjudicator import SpanAdjudicator
from agents.llm.texts.questions import TextQuestions
from agents.media.clips import Clips
from agents.media.probe_pool import ProbePool
from agents.media.source.audio_source import AudioSource
from agents.runtime.backpressure import Backpressure
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages.spec import ConversationService, MailService
from agents.voices.listening import Listener
from agents.voices.protocols import VoiceListener


@dataclass
class StageResources:
    """`agents.stages.spec.Resources` for one stage of a fleet."""

    role: str
    fleet: Fleet
    backpressure: Backpressure
    stack: contextlib.AsyncExitStack

    def __post_init__(self) -> None:
        settings = self.fleet.settings
        self.database, self.store, self.paid = self.fleet.database, self.fleet.store, self.fleet.paid
        self.recognizers, self.abilities = settings.recognizers, abilities(settings)
        self.languages, self.number_spelling = languages(settings), settings.numbers
        self.has_voices = weights.has_voices(settings.cache)
        self.enrichments, self.error_rates = settings.enrichments, settings.error_rates
        self.accounts = self.fleet.accounts
        self.part_tokens, self.document_temperature = settings.part_tokens, settings.document_temperature
        self.deadline_s, self.patience_s = settings.deadline_s, settings.patience_s
        self._holder = f"{WORKER}/{self.role}"

    def is_behind(self) -> bool:
        """See `Resources`."""
        return self.backpressure.behind

    def leased_tasks(self, limit: int) -> LeasedTasks:
        """See `Resources`."""
        tasks = LeasedTasks(self.database, self._holder, limit)
        self.on_close(tasks.close)
        return tasks

    def recognizer(self, name: str) -> Recognizer:
        """See `Resources`. The stage closes it, before its tasks: it completes calls that are paid for."""
        return open_recognizer(name, self.fleet.settings)

    def limiter(self, recognizer: Recognizer, here: int | None = None) -> ProviderLimiter:
        """See `Resources`. A local recognizer has as many slots as all workers add. The limits are refreshed
        continually, also for the metrics, except for a local recognizer to which this worker adds none.
        """
        name, settings = recognizer.name, self.fleet.settings
        slots, rate = settings.limits_of(name)
        local = isinstance(recognizer, LocalRecognizer)
        if local and here:
            limiter = ProviderLimiter(self.database, name, slots, here=here, holder=self._holder)
        else:
            limiter = ProviderLimiter(self.database, name, slots, 1 / rate if rate else 0.0)
        if here or not local:
            self.fleet.limiters.append(limiter)
        return limiter

    def mail_service(self) -> MailService | None:
        """See `Resources`."""
        return self.fleet.settings.mail_service(self.fleet.settings.public_url)

    def conversations(self) -> ConversationService:
        """See `Resources`. Raises `SettingsError`."""
        settings = self.fleet.settings
        key, url = settings.elevenlabs_key, settings.elevenlabs_url
        rate = self.fleet.conversation_limiter() if key else None
        return ConversationService(
            ElevenLabs(key.get_secret_value(), url, rate=rate) if key else None,
            settings.lacks_for_conversations,
            settings.conversation_audio_mb << 20,
            settings.conversation_wait_s,
        )

    def audio_source(self, max_bytes: int | None = None) -> AudioSource:
        """See `Resources`."""
        settings = self.fleet.settings
        probe_pool = ProbePool(max_duration_ms=int(settings.max_audio_hours * 3_600_000))
        self.on_close(probe_pool.close)
        source = AudioSource(
            self.store,
            probe_pool,
            settings.roots,
            settings.allow_hosts,
            max_bytes or settings.max_audio_mb << 20,
            (settings.storage, *(settings.data / server for server in ("kafka", "postgres", "tables"))),
            self.database.intend_blob,
        )
        self.on_close(source.close)
        return source

    def tiebreaker(self) -> Tiebreaker | None:
        """See `Resources`. Raises `SettingsError`."""
        fleet, recognizer = self.fleet, open_tiebreaker(self.fleet.settings)
        if recognizer is None:
            return None
        clips = Clips()
        self.on_close(recognizer.close)
        self.on_close(clips.close)
        return Tiebreaker(
            recognizer,
            self.database,
            self.store,
            clips,
            self.limiter(recognizer),
            fleet.settings.tiebreaker_s,
            fleet.metrics,
            paid=self.paid,
        )

    def voices(self) -> VoiceListener | None:
        """See `Resources`."""
        if not self.has_voices:
            return None
        listener = Listener(partial(weights.voices_path, self.fleet.settings.cache))
        self.on_close(listener.close)
        return listener

    async def span_adjudicator(self) -> SpanAdjudicator | None:
        """See `Resources`."""
        fleet, adjudicator = self.fleet, open_adjudicator(self.fleet.settings)
        if adjudicator is None or not fleet.settings.gemini_spans:
            return None
        self.on_close(adjudicator.close)
        await adjudicator.prepare()
        self.on_close(self.paid.close)  # before the adjudicator, so that calls in flight are answered
        return SpanAdjudicator(adjudicator, self.database, fleet.settings.gemini_spans, fleet.metrics, paid=self.paid)

    async def text_questions(self) -> TextQuestions | None:
        """See `Resources`. All stages of the process share one."""
        fleet = self.fleet
        model = open_text_model(fleet.settings) if fleet.text_questions is None else None
        if model is None:
            return fleet.text_questions
        self.on_close(model.close)
        await model.prepare()
        self.on_close(self.paid.close)  # before the model, so that calls in flight are answered
        limiter = fleet.text_limiter(model.name.partition("/")[0])
        budget = fleet.settings.job_tokens
        fleet.text_questions = TextQuestions(
            model, self.store, self.database, limiter, self.accounts, budget, fleet.metrics, paid=self.paid
        )
        return fleet.text_questions

    def run_in_background(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """See `Resources`."""
        self.fleet.background[name] = run

    def embed_in_background(self) -> None:
        """See `Resources`."""
        embed_in_background(self.fleet, self.stack)

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """See `Resources`."""
        self.stack.push_async_callback(close)
