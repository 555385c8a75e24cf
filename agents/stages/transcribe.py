"""The stage of one recognizer: it has a recording transcribed, and stores the hypothesis before announcing it.

A request to a remote recognizer is submitted once, and then polled by events that become due later. A recognizer that
works in this process, or sends the recording in chunks, runs as a leased task, which such events ask for its result. A
request to one that reads Kafka is published.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, cast

from agents.asr.outside.over_kafka import published_topics
from agents.asr.paid_calls import PaidCalls, until_stored
from agents.asr.protocols import (
    Audio,
    ChunkedRecognizer,
    Languages,
    LocalRecognizer,
    PublishedRecognizer,
    Recognizer,
    UploadingRecognizer,
)
from agents.asr.rate_limit import ProviderLimiter
from agents.asr.response_cache import StoredResponses
from agents.media.stored_audio import DecodedAudio, StoredAudio
from agents.media.transcode import Transcoder
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import Stage, belonging
from agents.stages.asr_requests import remote
from agents.stages.asr_requests.hypotheses import Hypotheses
from agents.stages.asr_requests.languages import LanguageGate
from agents.stages.asr_requests.model_queue import ModelQueue
from agents.stages.asr_requests.published import PublishedRequests
from agents.stages.asr_requests.remote import URL_S, RemoteRequests, put_off_while_paused
from agents.stages.asr_requests.request_event import POLL_S, QUEUED_S, WAIT_S, RequestEvent
from agents.stages.asr_requests.stopping import Stopping
from agents.stages.spec import Resources, StageSpec
from schemas import topics
from schemas.envelope import Envelope
from schemas.errors import NotAccepted, Unavailable
from schemas.events.asr import AsrRequest
from schemas.jobs.outcome import IGNORED, NOTHING, Failure, Outcome, RequestChange
from schemas.jobs.rows import OfRun, ProviderRequest
from schemas.words import Hypothesis
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Store
from sinks.ports.jobs import Jobs
from sinks.ports.providers.slots import Slots

#: Requests of a recognizer on this machine that have a slot and wait for its model, until something more urgent takes
#: their slot. Slots are given out each second, in which some short recordings may end.
STANDBY: Final = 3


class Database(remote.Database, Jobs, Slots, Protocol):
    """What transcribing asks of the database."""


@dataclass(frozen=True)
class Transcribe:
    """Handles the requests to one recognizer."""

    recognizer: Recognizer
    database: Database
    store: Store
    tasks: LeasedTasks
    limiter: ProviderLimiter
    paid: PaidCalls = field(default_factory=PaidCalls)
    #: For recordings that a remote recognizer would mishear in their original format. The caller closes it.
    transcoder: Transcoder = field(default_factory=Transcoder)
    #: The languages of the run's recognizers, by name, and the run's deadline: see `LanguageGate`.
    languages: Mapping[str, Languages] = field(default_factory=dict)
    deadline_s: float = 3600.0
    #: What holds for each tenant.
    accounts: EffectiveSettings | None = None
    #: The order in which a recognizer on this machine hears recordings.
    models: ModelQueue = field(default_factory=ModelQueue)
    #: Ends what such a recognizer hears in vain.
    stopping: Stopping = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stopping", Stopping(self.database, self.recognizer.name))

    async def handle(self, envelope: Envelope) -> Outcome:
        """Start the request that the event is about, or continue it.

        Raises:
            ProviderError: The recognizer refuses the request for good.
            InvalidInput: The recording cannot be decoded.
            Unavailable: The database or the store is away.
        """
        event = RequestEvent(envelope, cast("AsrRequest", envelope.data))
        gate = LanguageGate(self.database, self.store, self.languages, self.deadline_s)
        if outcome := await gate.outcome(event):
            return outcome
        hypotheses = Hypotheses(self.store)
        if isinstance(self.recognizer, LocalRecognizer | ChunkedRecognizer):
            return await self._run_task(self.recognizer, event, hypotheses)
        if isinstance(self.recognizer, PublishedRecognizer):
            of_fleet = self.database, self.store, self.tasks, self.limiter, self.transcoder
            return await PublishedRequests(self.recognizer, *of_fleet, self.accounts, self.deadline_s).handle(event)
        requests = RemoteRequests(self.recognizer, self.database, self.tasks, self.limiter, hypotheses, self._audio)
        return await requests.handle(event)

    def _audio(self, event: RequestEvent) -> Audio:
        if event.data.transcode:
            return DecodedAudio(self.store, event.data.audio_uri, self.transcoder)
        return StoredAudio(self.store, event.data.audio_uri, URL_S)

    async def _run_task(
        self, recognizer: LocalRecognizer | ChunkedRecognizer, event: RequestEvent, hypotheses: Hypotheses
    ) -> Outcome:
        """Start the recognizer in a leased task, or ask that task for its result."""
        row = await event.row(self.database)
        if row is None or row.ended:
            return NOTHING if row else IGNORED
        key = event.task_key("transcribe")
        if row.admitted_at is None and not await self.limiter.acquire_slot(*event.run):
            await self.tasks.drop(key)  # it stood by, and something more urgent has taken its slot
            return event.queued(QUEUED_S)
        if isinstance(recognizer, ChunkedRecognizer) and (
            outcome := await put_off_while_paused(event, key, self.tasks, self.limiter)
        ):
            return outcome

        async def transcribe(progress: Callable[[float], None]) -> Hypothesis | None:
            return await self._transcribe(recognizer, event, row, hypotheses, progress)

        try:
            result = await self.tasks.run(key, transcribe, WAIT_S)
        except NotAccepted as exc:
            return event.put_off(exc)
        if result is None:
            return self._continues(recognizer, event, key)
        return event.answered(row.token, cast("Hypothesis", result), hypotheses.uri(event))

    def _continues(self, recognizer: LocalRecognizer | ChunkedRecognizer, event: RequestEvent, key: str) -> Outcome:
        """The task goes on: it runs, or waits until the model is free. What runs elsewhere is not spoken of here."""
        share = self.tasks.progress(key)
        if not isinstance(recognizer, LocalRecognizer):
            return event.continues(POLL_S, attempt=event.attempt, share=share or 0.0)
        if share is None:
            return event.continues(POLL_S, attempt=event.attempt)
        if not self.models.is_running(key):
            return event.queued(POLL_S, attempt=event.attempt)
        return event.continues(POLL_S, attempt=event.attempt, share=share)

    async def _transcribe(
        self,
        recognizer: LocalRecognizer | ChunkedRecognizer,
        event: RequestEvent,
        row: ProviderRequest,
        hypotheses: Hypotheses,
        progress: Callable[[float], None],
    ) -> Hypothesis | None:
        """The hypothesis, which is stored; None if it is not needed any more, or not now."""
        if (stored := await hypotheses.stored(event)) is not None:  # by another worker, which died before its commit
            return stored
        async with self.store.local_path(event.data.audio_uri) as path:
            request = event.request(row)
            if isinstance(recognizer, ChunkedRecognizer):
                of_job = request.tenant_id, request.job_id, row.provider
                cache = StoredResponses(self.store, *of_job, self.paid, restricted=request.redact_pii)
                hypothesis = await recognizer.transcribe_chunks(path, request, progress, cache, self.limiter)
            else:
                heard = await self._transcribe_here(recognizer, event, row, path, progress)
                if heard is None:
                    return None
                hypothesis = heard
        if request.redact_pii and ((now := await event.row(self.database)) is None or now.ended):
            return hypothesis  # its run went on without it, and may have forgotten by now what is not redacted
        await until_stored(lambda: hypotheses.save(event, hypothesis))  # it may have taken hours of computing
        with contextlib.suppress(Unavailable):  # the next look is not waited for
            await self.database.expedite_job(request.tenant_id, request.job_id, row.provider)
        return hypothesis

    async def _transcribe_here(
        self,
        recognizer: LocalRecognizer,
        event: RequestEvent,
        row: ProviderRequest,
        path: Path,
        progress: Callable[[float], None],
    ) -> Hypothesis | None:
        """The hypothesis of a recognizer on this machine; None if the request ended or lost its slot while it waited
        for the model, or ended while it was heard.
        """
        job = await self.database.job(*event.run[:2])
        since = row.admitted_at or await self.database.now()
        async with self.models.turn(event.task_key("transcribe"), (9 - job.priority if job else 9, since)):
            if not await self.database.begin(*event.run, row.provider):
                return None
            work = recognizer.transcribe(path, event.request(row), progress)
            return await self.stopping.unless_ended(event.run, work)

    def give_up(self, envelope: Envelope, failure: Failure) -> Outcome:
        """This recognizer's request fails; the run goes on with the others."""
        run = cast("OfRun", envelope.data).run  # the data may be no more than that, if the event could not be read
        columns = {"state": "failed", "error": failure.reason}
        change = RequestChange(run=run, provider=self.recognizer.name, token=None, columns=columns)
        return Outcome(**belonging(envelope), request=change)


def stage(transcribe: Transcribe) -> Stage:
    """One recognizer's stage."""
    name = transcribe.recognizer.name
    topic = topics.requests(name)
    # Its events mostly wait for a provider's server.
    return Stage(f"transcribe.{name}", (topic,), topic, transcribe.handle, transcribe.give_up, concurrency=256)


def _tasks_of(recognizer: Recognizer) -> int:
    """Tasks that run for a recognizer at once. On this machine, some stand by, so that none begins with a delay; and
    those whose slots others have taken are there until their next event.
    """
    if isinstance(recognizer, LocalRecognizer):
        return recognizer.at_once + 2 * STANDBY
    return 16 if isinstance(recognizer, UploadingRecognizer) else 2


async def _build(spec: StageSpec, resources: Resources) -> Stage:
    recognizer = resources.recognizer(spec.name.removeprefix(f"{SPEC.name}."))
    tasks = resources.leased_tasks(_tasks_of(recognizer))
    resources.on_close(recognizer.close)  # before its tasks: it completes calls that are paid for
    here = recognizer.at_once + STANDBY if isinstance(recognizer, LocalRecognizer) else 0
    limiter = resources.limiter(recognizer, here)
    transcriber = Transcribe(
        recognizer,
        resources.database,
        resources.store,
        tasks,
        limiter,
        resources.paid,
        languages=resources.languages,
        deadline_s=resources.deadline_s,
        accounts=resources.accounts,
        models=ModelQueue(recognizer.at_once if isinstance(recognizer, LocalRecognizer) else 1),
    )
    resources.on_close(transcriber.transcoder.close)
    return stage(transcriber)


SPEC = StageSpec(
    name="transcribe",
    publishes=(topics.RESULTS,),
    per_recognizer=topics.requests,
    also_publishes=published_topics,
    build=_build,
)
