"""The stage that decides what was said: it waits for the recognizers, or their deadline, and makes one transcript of
theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, cast

from agents.asr.tiebreaker import Tiebreaker
from agents.llm.adjudicator import RunId, SpanAdjudicator
from agents.runtime.failpoints import passing
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import Stage, belonging, failed_job
from agents.stages.spec import Resources, StageSpec
from agents.text.reconcile import Compared, compare
from schemas import blob_names, topics
from schemas.envelope import Envelope
from schemas.errors import ProviderError
from schemas.events.asr import AsrDeadline, AsrResult
from schemas.events.job import Reconciled, StepState
from schemas.jobs.outcome import IGNORED, Failure, Later, Outcome, Progress
from schemas.jobs.rows import ProviderRequest
from schemas.texts import ERROR_CHARS, readable
from schemas.words import Hypothesis, Reconciliation, adapter
from sinks.ports.blobs import Store
from sinks.ports.clock import Clock
from sinks.ports.jobs import Jobs
from sinks.ports.providers.requests import Requests

#: One at a time, in a thread: deciding is pure computation, and the relay's round trips must not wait for a queue of
#: it.
_DECIDING = ThreadPoolExecutor(1, thread_name_prefix="reconcile")

#: Seconds for which an event waits for others to be asked, and until the next look.
LOOK_S, NEXT_LOOK_S = 2.0, 1.0


#: Seconds by which a run's deadline is put off while a request of it is queued.
EXTENDED_S = 600.0


class Database(Clock, Jobs, Requests, Protocol):
    """What reconciling asks of the database."""


@dataclass(frozen=True)
class Reconcile:
    """What reconcile needs from outside."""

    database: Database
    store: Store
    #: Who is asked about disputed words, and the work in which that goes on; None where nobody is.
    adjudicator: SpanAdjudicator | None = None
    work: LeasedTasks | None = None
    #: Who hears disputed words again, before the judge is asked.
    tiebreak: Tiebreaker | None = None

    async def handle(self, envelope: Envelope) -> Outcome:
        """The last recognizer's result, or the end of waiting for it."""
        if isinstance(envelope.data, AsrDeadline):
            return await self._end_waiting(envelope, envelope.data)
        result = cast("AsrResult", envelope.data)
        if result.remaining:
            return IGNORED  # nobody needs it; and should it be the last one after a restore, it has the same id
        requests = await self.database.requests(result.tenant_id, result.job_id, result.run)
        if not requests or not all(r.ended for r in requests):
            return IGNORED  # read again after a restore, which has taken the answers away
        answered = [r for r in requests if r.state == "done" and r.hypothesis_uri]
        if not answered:
            reasons = "; ".join(f"{r.provider}: {r.error}" for r in requests)
            reason = readable(f"no recognizer has heard it ({reasons})", ERROR_CHARS)
            return failed_job("reconcile", envelope, Failure(reason, ProviderError.code, envelope.attempt + 1))
        return await self._decide(envelope, result, answered)

    async def _end_waiting(self, envelope: Envelope, data: AsrDeadline) -> Outcome:
        """The run goes on with those that answered; but one that had to queue has its time from when that was over."""
        pending = [r for r in await self.database.requests(data.tenant_id, data.job_id, data.run) if not r.ended]
        if wait_s := _left_s(pending, data.seconds, await self.database.now()):
            again = data.model_copy(update={"extended": data.extended + 1})
            later = Later(topics.RECONCILE_DUE.name, again, seconds=wait_s, kind="asr.deadline")
            return Outcome(**belonging(envelope), later=(later,), audit="")
        late = "no answer before the deadline"
        return Outcome(**belonging(envelope), run=data.run, give_up=late, audit="failed", error=late)

    async def _decide(self, envelope: Envelope, result: AsrResult, answered: list[ProviderRequest]) -> Outcome:
        decided = await self._decided(result, answered)
        if decided is None:
            return self._look_again(envelope, result)
        name = blob_names.raw_transcript(result.tenant_id, result.job_id, result.run)
        blob = await self.store.put(name, adapter(Reconciliation).dump_json(decided), "application/json")
        passing("reconcile.stored")
        return Outcome(
            **belonging(envelope),
            progress=Progress(
                run=result.run,
                status="persisting",
                stage="reconcile",
                step=StepState(state="done", attempts=envelope.attempt + 1, progress=1.0),
            ),
            later=(Later(topics.RECONCILED.name, _announced(result, decided, blob.uri)),),
        )

    async def _decided(self, result: AsrResult, answered: list[ProviderRequest]) -> Reconciliation | None:
        """The transcript; None while others are being asked, which goes on outside the event."""
        if not (self.adjudicator or self.tiebreak) or self.work is None or len(answered) < 2:
            return (await self._compared(answered)).decided

        async def settled(tell: Callable[[float], None]) -> Reconciliation:
            compared = await self._compared(answered)
            decided = compared.decided
            if self.tiebreak is not None:
                job = await self.database.job(result.tenant_id, result.job_id)
                # A tiebreaker hides nothing, so that it may not add to what was to be hidden.
                if job is not None and not job.options.get("redact_pii"):
                    decided = await self.tiebreak.settled(compared, replace(job, run=result.run), tell)
            if self.adjudicator is not None:
                run = RunId(result.tenant_id, result.job_id, result.run)
                decided = await self.adjudicator.adjudicated(decided, run, tell)
            passing("reconcile.judged")
            return decided

        key = f"reconcile/{result.tenant_id}/{result.job_id}/{result.run}"
        return cast("Reconciliation | None", await self.work.run(key, settled, LOOK_S))

    @staticmethod
    def _look_again(envelope: Envelope, result: AsrResult) -> Outcome:
        """Later; without news of the job, whose status says `reconciling` already."""
        kind = topics.RESULTS.name
        return Outcome(
            **belonging(envelope),
            run=result.run,
            later=(
                Later(
                    topics.RECONCILE_DUE.name,
                    result,
                    seconds=NEXT_LOOK_S,
                    kind=kind,
                    index="look",
                    attempt=envelope.attempt,
                ),
            ),
            audit="",
        )

    async def _compared(self, answered: list[ProviderRequest]) -> Compared:
        heard = await asyncio.gather(*(self._load(r.hypothesis_uri or "") for r in answered))
        return await asyncio.get_running_loop().run_in_executor(_DECIDING, compare, heard)

    async def _load(self, uri: str) -> Hypothesis:
        return cast("Hypothesis", adapter(Hypothesis).validate_json(await self.store.get(uri)))

    def give_up(self, envelope: Envelope, failure: Failure) -> Outcome:
        """The run fails."""
        return failed_job("reconcile", envelope, failure)


def _left_s(pending: Sequence[ProviderRequest], seconds: float, now: datetime) -> float:
    """For how long the run waits on: until none queues any more and each of them has had that many seconds."""
    ends = [r.admitted_at + timedelta(seconds=seconds) for r in pending if r.queued_at and r.admitted_at]
    queueing = any(r.queued_at and not r.admitted_at for r in pending)
    return max([EXTENDED_S * queueing, *((end - now).total_seconds() for end in ends), 0.0])


def stage(reconcile: Reconcile) -> Stage:
    """Reconcile as a stage."""
    return Stage("reconcile", (topics.RESULTS,), topics.RECONCILE_DUE, reconcile.handle, reconcile.give_up, rank=1)


async def _build(_: StageSpec, resources: Resources) -> Stage:
    adjudicator = await resources.span_adjudicator()
    tasks = resources.leased_tasks(16)  # they only wait
    tiebreaker = resources.tiebreaker()  # closed before the tasks: it finishes what it has paid for
    return stage(Reconcile(resources.database, resources.store, adjudicator, tasks, tiebreaker))


SPEC = StageSpec(
    name="reconcile",
    inputs=(topics.RESULTS,),
    due=topics.RECONCILE_DUE,
    publishes=(topics.RECONCILED,),
    build=_build,
)


def _announced(result: AsrResult, decided: Reconciliation, uri: str) -> Reconciled:
    whose: dict[str, Any] = {"tenant_id": result.tenant_id, "job_id": result.job_id, "run": result.run}
    return Reconciled(
        **whose,
        raw_uri=uri,
        method=decided.method,
        confidence=decided.quality.confidence,
        agreement=decided.quality.agreement,
    )
