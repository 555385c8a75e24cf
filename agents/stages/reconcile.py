"""The stage that reconciles: it waits for all recognizers, or their deadline, and makes one transcript of their
hypotheses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, cast

from agents.asr.protocols import ANY, Languages, languages_of_model
from agents.asr.tiebreaker import Tiebreaker
from agents.llm.adjudicator import RunId, SpanAdjudicator
from agents.runtime.failpoints import passing
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import Stage, belonging, failed_job
from agents.stages.spec import Resources, StageSpec
from agents.text.calibration.calibrate import shipped
from agents.text.reconcile import Compared, compare
from agents.text.spelling import Spelling
from agents.text.spoken_language import primary
from schemas import blob_names, topics
from schemas.envelope import Envelope
from schemas.errors import ProviderError
from schemas.events.asr import AsrDeadline, AsrResult
from schemas.events.job import Reconciled, StepState
from schemas.jobs.outcome import IGNORED, Failure, Later, Outcome, Progress
from schemas.jobs.rows import ProviderRequest, run_fields
from schemas.texts import ERROR_CHARS, readable
from schemas.words import Hypothesis, Reconciliation, adapter
from sinks.ports.blobs import Store
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

    async def handle(self, envelope: Envelope) -> Outcome:
        """Reconcile after the last recognizer's result, or end the waiting for it at the deadline.

        Raises:
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
        reconciliation = await self._reconciliation(result, answered)
        if reconciliation is None:
            return self._poll_again(envelope, result)
        reconciliation = replace(reconciliation, notes=(*reconciliation.notes, *notes))
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
            ),
            later=(Later(topics.RECONCILED.name, _event(result, reconciliation, blob.uri)),),
        )

    async def _reconciliation(self, result: AsrResult, answered: list[ProviderRequest]) -> Reconciliation | None:
        """The transcript; None while the tiebreaker or the adjudicator runs, which continues outside the event."""
        if not (self.adjudicator or self.tiebreaker) or self.tasks is None or len(answered) < 2:
            return (await self._compare(answered)).decided

        async def decide(progress: Callable[[float], None]) -> Reconciliation:
            compared = await self._compare(answered)
            reconciliation = compared.decided
            if self.tiebreaker is not None:
                job = await self.database.job(result.tenant_id, result.job_id)
                # A tiebreaker does not redact, so that its words could reveal personal data that others have redacted.
                if job is not None and not job.options.get("redact_pii") and self._is_heard(reconciliation.language):
                    reconciliation = await self.tiebreaker.settled(compared, replace(job, run=result.run), progress)
            if self.adjudicator is not None:
                run = RunId(result.tenant_id, result.job_id, result.run)
                reconciliation = await self.adjudicator.adjudicated(reconciliation, run, progress)
            passing("reconcile.judged")
            return reconciliation

        key = f"reconcile/{result.tenant_id}/{result.job_id}/{result.run}"
        return cast("Reconciliation | None", await self.tasks.run(key, decide, WAIT_S))

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

    async def _compare(self, answered: list[ProviderRequest]) -> Compared:
        hypotheses = await asyncio.gather(*(self._load(request.hypothesis_uri or "") for request in answered))
        return await asyncio.get_running_loop().run_in_executor(
            _COMPARING, partial(compare, hypotheses, shipped().with_rates(self.error_rates), self.spelling)
        )

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
    return stage(
        Reconcile(
            resources.database, resources.store, adjudicator, tasks, tiebreaker,
            resources.number_spelling, resources.languages, resources.error_rates,
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
