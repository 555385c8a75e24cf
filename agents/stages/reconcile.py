"""The stage that reconciles: it waits for all recognizers, or their deadline, and makes one transcript of their
hypotheses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol, cast

from agents.asr.protocols import ANY, Languages, languages_of_model
from agents.asr.tiebreaker import Tiebreaker
from agents.llm.adjudicator import RunId, SpanAdjudicator
from agents.media.transcode import Transcoder
from agents.runtime.failpoints import passing
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import Stage, belonging, failed_job
from agents.stages.redacting import Redaction, changes
from agents.stages.speaking import Diarization, Recognition
from agents.stages.spec import Resources, StageSpec
from agents.stages.uploads.options import Abilities, check_redaction
from agents.text.calibration.calibrate import shipped
from agents.text.reconcile import Compared, compare
from agents.text.speakers.channels import reconcile_channels
from agents.text.spelling import Spelling
from agents.text.spoken_language import primary
from schemas import blob_names, ids, topics
from schemas.corrections.voices import SpeakerVoice
from schemas.envelope import Envelope
from schemas.errors import ProviderError, UnsupportedOption
from schemas.events.asr import AsrDeadline, AsrResult
from schemas.events.job import Reconciled, StepState
from schemas.jobs.outcome import IGNORED, NOTHING, Failure, Later, Outcome, Progress
from schemas.jobs.rows import Job, ProviderRequest, run_fields
from schemas.texts import ERROR_CHARS, readable
from schemas.words import Hypothesis, Reconciliation, adapter
from sinks.ports.blobs import Blob, Store
from sinks.ports.clock import Clock
from sinks.ports.jobs import Jobs
from sinks.ports.providers.requests import Requests

#: One comparison at a time, in a thread: it is pure computation, and the relay's round trips must not wait for several.
_COMPARING = ThreadPoolExecutor(1, thread_name_prefix="reconcile")

#: Seconds for which an event waits for the tiebreaker and the adjudicator, and until the next event about them.
WAIT_S, POLL_S = 2.0, 1.0

#: Seconds by which a run's deadline is extended while one of its requests is queued.
EXTENDED_S = 600.0


class Database(Clock, Jobs, Requests, Protocol):
    """What reconciling asks of the database."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A transcript for readers and, where personal data are hidden in it, the recording for readers; of a conversation
    its text.
    """

    reconciliation: Reconciliation
    for_readers: Blob | None = None
    #: What its speakers sound like, where the tenant allows that this is kept.
    voices: tuple[SpeakerVoice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A transcript, and what it was made of."""

    decided: Reconciliation
    hypotheses: Sequence[Hypothesis]
    #: None if the channels of the recording were compared apart: then each word has a speaker.
    compared: Compared | None


@dataclass(frozen=True)
class Reconcile:
    """Handles the results of recognizers, and the deadline of waiting for them."""

    database: Database
    store: Store
    #: The language model that decides disputed words; None if none is configured.
    adjudicator: SpanAdjudicator | None = None
    #: Runs the adjudicator and the tiebreaker outside the event.
    tasks: LeasedTasks | None = None
    #: Transcribes disputed intervals again, before the adjudicator is asked; None if none is configured.
    tiebreaker: Tiebreaker | None = None
    #: How numbers are written on which recognizers agree.
    spelling: Spelling = "recognizer"
    #: The languages of the recognizers, by name; and word error rates that the operator states.
    languages: Mapping[str, Languages] = field(default_factory=dict)
    error_rates: Mapping[str, float] = field(default_factory=dict)
    #: Hides personal data, outside the event. Without it, a job that asks for that fails.
    redaction: Redaction | None = None
    #: Tells speakers apart, outside the event. Without it, a job that asks for that and has one channel fails.
    diarization: Diarization | None = None
    #: Compares them with those of earlier recordings; None: nothing that is derived from voices is kept.
    recognition: Recognition | None = None
    #: Which options the recognizers support.
    abilities: Abilities = field(default_factory=dict)

    async def handle(self, envelope: Envelope) -> Outcome:
        """Reconcile after the last recognizer's result, or end the waiting for it at the deadline.

        Raises:
            UnsupportedOption: Personal data are to be hidden, and cannot be.
            Unavailable: The database or the store is away.
        """
        if isinstance(envelope.data, AsrDeadline):
            return await self._end_waiting(envelope, envelope.data)
        result = cast("AsrResult", envelope.data)
        if result.remaining:
            await self._look_again(result)
            return IGNORED  # only the last result counts; after a restore this may be the last, with the same id
        requests = await self.database.requests(result.tenant_id, result.job_id, result.run)
        if not requests or not all(r.ended for r in requests):
            return IGNORED  # the event is read again after a restore of PostgreSQL that has lost answers
        answered = [r for r in requests if r.state == "done" and r.hypothesis_uri]
        if not answered:
            reasons = "; ".join(f"{r.provider}: {r.error}" for r in requests)
            reason = readable(f"no recognizer has heard it ({reasons})", ERROR_CHARS)
            return failed_job("reconcile", envelope, Failure(reason, ProviderError.code, envelope.attempt + 1))
        left_out = tuple(f"{r.provider} is {r.error}." for r in requests if r.state == "done" and not r.hypothesis_uri)
        return await self._reconcile(envelope, result, answered, left_out)

    async def _look_again(self, result: AsrResult) -> None:
        """Recognizers of one language that wait for an answer that tells it (`LanguageGate`) look at once."""
        if self.languages.get(result.provider, ANY).one is None:
            for name in [name for name, heard in self.languages.items() if heard.one is not None]:
                await self.database.expedite_job(result.tenant_id, result.job_id, name)

    async def _end_waiting(self, envelope: Envelope, data: AsrDeadline) -> Outcome:
        """The run goes on with the recognizers that have answered. For a request that was queued, the time until the
        deadline counts from its admission.
        """
        pending = [r for r in await self.database.requests(data.tenant_id, data.job_id, data.run) if not r.ended]
        if wait_s := _remaining_s(pending, data.seconds, await self.database.now()):
            again = data.model_copy(update={"extended": data.extended + 1})
            later = Later(topics.RECONCILE_DUE.name, again, seconds=wait_s, kind="asr.deadline")
            return Outcome(**belonging(envelope), later=(later,), audit="")
        reason = "no answer before the deadline"
        return Outcome(**belonging(envelope), run=data.run, give_up=reason, audit="failed", error=reason)

    async def _reconcile(
        self, envelope: Envelope, result: AsrResult, answered: list[ProviderRequest], notes: tuple[str, ...]
    ) -> Outcome:
        job = await self.database.job(result.tenant_id, result.job_id)
        if job is None or job.run < result.run:
            return IGNORED
        if job.run > result.run or job.ended:
            return NOTHING
        decided = await self._decided(job, answered)
        if decided is None:
            return self._poll_again(envelope, result)
        reconciliation = replace(decided.reconciliation, notes=(*decided.reconciliation.notes, *notes))
        files, columns = changes(job, decided.for_readers, self.store) if job.is_redacted else ((), {})
        name = blob_names.raw_transcript(result.tenant_id, result.job_id, result.run)
        blob = await self.store.put(name, adapter(Reconciliation).dump_json(reconciliation), "application/json")
        passing("reconcile.stored")
        return Outcome(
            **belonging(envelope),
            progress=Progress(
                run=result.run,
                status="persisting",
                stage="reconcile",
                step=StepState(state="done", attempts=envelope.attempt + 1, progress=1.0),
                columns=columns,
            ),
            files=files,
            voices=decided.voices,
            later=(Later(topics.RECONCILED.name, _event(result, reconciliation, blob.uri)),),
        )

    async def _decided(self, job: Job, answered: list[ProviderRequest]) -> Decided | None:
        """The transcript; None while the tiebreaker, the diarization, the adjudicator or the redaction runs, which
        continues outside the event.
        """
        is_helped = len(answered) > 1 and bool(self.adjudicator or self.tiebreaker)
        needs_task = job.is_redacted or job.is_diarized
        if not needs_task and (not is_helped or self.tasks is None):
            return Decided((await self._compare(job, answered)).decided)
        if self.tasks is None:
            raise UnsupportedOption("options.redact_pii, diarize: personal data and voices need a worker with tasks")

        async def decide(progress: Callable[[float], None]) -> Decided:
            decided = await self._decide(job, answered, progress)
            passing("reconcile.judged")
            return decided

        key = ids.task_key("reconcile", job.tenant_id, job.job_id, job.run)
        return cast("Decided | None", await self.tasks.run(key, decide, WAIT_S))

    async def _decide(self, job: Job, answered: list[ProviderRequest], progress: Callable[[float], None]) -> Decided:
        comparison = await self._compare(job, answered)
        compared, has_several = comparison.compared, len(answered) > 1
        reconciliation = comparison.decided
        if compared is not None and self.tiebreaker and has_several and self._is_heard(reconciliation.language):
            reconciliation = await self.tiebreaker.settled(compared, job, progress)
        if compared is not None and job.is_diarized:
            diarization = self.diarization or Diarization(self.store, None, self.abilities)
            reconciliation = await diarization.told(job, reconciliation, comparison.hypotheses, progress)
        voices: tuple[SpeakerVoice, ...] = ()
        if self.recognition is not None and job.is_diarized:
            reconciliation, voices = await self.recognition.recognised(job, reconciliation, progress)

        async def adjudicated(before: Reconciliation) -> Reconciliation:
            if self.adjudicator is None or not has_several:
                return before
            run = RunId(job.tenant_id, job.job_id, job.run)
            return await self.adjudicator.adjudicated(before, run, progress)

        if not job.is_redacted:
            return Decided(await adjudicated(reconciliation), voices=voices)
        if self.redaction is None:
            raise UnsupportedOption("options.redact_pii: personal data are not hidden by this worker")
        by_recognizers = all("redact_pii" in self.abilities.get(name, ()) for name in reconciliation.providers)
        check_redaction(reconciliation.language, by_recognizers)
        # Before the adjudicator: it sees no personal data.
        return Decided(*await self.redaction.redacted(job, reconciliation, comparison.hypotheses, adjudicated))

    def _is_heard(self, language: str | None) -> bool:
        """Whether the tiebreaker hears the recording's language; unknown languages are heard by all."""
        heard = languages_of_model(self.tiebreaker.recognizer.name) if self.tiebreaker else ANY
        return language is None or heard.hears(primary(language))

    @staticmethod
    def _poll_again(envelope: Envelope, result: AsrResult) -> Outcome:
        """Continue with a later event. The job's status does not change: it is `reconciling` already."""
        kind = topics.RESULTS.name
        return Outcome(
            **belonging(envelope),
            run=result.run,
            later=(
                Later(
                    topics.RECONCILE_DUE.name,
                    result,
                    seconds=POLL_S,
                    kind=kind,
                    index="look",
                    attempt=envelope.attempt,
                ),
            ),
            audit="",
        )

    async def _compare(self, job: Job, answered: list[ProviderRequest]) -> _Comparison:
        hypotheses = await asyncio.gather(*(self._load(request.hypothesis_uri or "") for request in answered))
        calibration = shipped().with_rates(self.error_rates)

        def compare_all() -> _Comparison:
            if job.is_diarized:
                by_channel = reconcile_channels(hypotheses, calibration, self.spelling)
                if by_channel is not None:
                    return _Comparison(by_channel, hypotheses, None)
            compared = compare(hypotheses, calibration, self.spelling)
            return _Comparison(compared.decided, [column.hypothesis for column in compared.network.columns], compared)

        return await asyncio.get_running_loop().run_in_executor(_COMPARING, compare_all)

    async def _load(self, uri: str) -> Hypothesis:
        return cast("Hypothesis", adapter(Hypothesis).validate_json(await self.store.get(uri)))

    def give_up(self, envelope: Envelope, failure: Failure) -> Outcome:
        """The run fails."""
        return failed_job("reconcile", envelope, failure)


def _remaining_s(pending: Sequence[ProviderRequest], seconds: float, now: datetime) -> float:
    """Seconds for which the run still waits: until none is queued, and each had `seconds` since its admission."""
    ends = [r.admitted_at + timedelta(seconds=seconds) for r in pending if r.queued_at and r.admitted_at]
    queueing = any(r.queued_at and not r.admitted_at for r in pending)
    return max([EXTENDED_S * queueing, *((end - now).total_seconds() for end in ends), 0.0])


def stage(reconcile: Reconcile) -> Stage:
    """Reconcile as a stage."""
    return Stage("reconcile", (topics.RESULTS,), topics.RECONCILE_DUE, reconcile.handle, reconcile.give_up, rank=1)


async def _build(_: StageSpec, resources: Resources) -> Stage:
    adjudicator = await resources.span_adjudicator()
    tasks = resources.leased_tasks(16)  # they mostly wait for providers
    tiebreaker = resources.tiebreaker()  # closed before the tasks: it completes calls that are paid for
    transcoder = Transcoder()
    resources.on_close(transcoder.close)
    listener = resources.voices()
    return stage(
        Reconcile(
            resources.database, resources.store, adjudicator, tasks, tiebreaker,
            resources.number_spelling, resources.languages, resources.error_rates,
            Redaction(resources.store, transcoder, resources.accounts),
            Diarization(resources.store, listener, resources.abilities),
            Recognition(resources.store, resources.database, resources.accounts, listener), resources.abilities,
        )
    )  # fmt: skip


SPEC = StageSpec(
    name="reconcile",
    inputs=(topics.RESULTS,),
    due=topics.RECONCILE_DUE,
    publishes=(topics.RECONCILED,),
    build=_build,
)


def _event(result: AsrResult, reconciliation: Reconciliation, uri: str) -> Reconciled:
    return Reconciled(
        **run_fields(result),
        raw_uri=uri,
        method=reconciliation.method,
        confidence=reconciliation.quality.confidence,
        agreement=reconciliation.quality.agreement,
    )
