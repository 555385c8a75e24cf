"""The stages that make an enrichment of a completed run's transcript: once, with retries, never changing the run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from agents.runtime.failpoints import passing
from agents.runtime.stage import RETRIES, Stage, belonging
from agents.stages.spec import Resources, StageSpec
from schemas import topics
from schemas.envelope import Envelope
from schemas.events.enrichment import EnrichmentEvent, EnrichmentRequested, requested_generation, requested_version
from schemas.events.job import EnrichmentState, EnrichmentStatus
from schemas.jobs.enrichment import AFTER, is_waiting
from schemas.jobs.outcome import (
    IGNORED,
    NOTHING,
    EnrichmentChange,
    Failure,
    Later,
    Outcome,
    failed_enrichment,
)
from schemas.jobs.rows import File, Job, OfRun, Usage, run_fields
from schemas.search.chunks import TranscriptIndex
from schemas.summaries import SummaryItem
from schemas.topics import Topic
from sinks.ports.jobs import Jobs

#: For an enrichment that a provider makes: how often it is called again while the provider accepts nothing, which does
#: not count as an attempt. With ten minutes between them, a day and a half.
WAITS: Final = 200

#: The same while the provider does not answer, and may bill what it accepts. The pauses are 1, 4, 16, 64, 256 and then
#: 600 s, so an outage of two hours costs at most that many calls a question, and is caught up with within ten minutes.
#: As attempts, of which there are four within seven seconds, every outage of a minute was the end of what was asked.
OUTAGE_WAITS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Enriched:
    """The result of an enrichment."""

    #: Announces the result; `kind`, `version` and the time are filled in later. None if there is nothing to announce.
    event: EnrichmentEvent | None = None
    #: The search index of the transcript.
    index: TranscriptIndex | None = None
    files: tuple[File, ...] = ()
    usage: tuple[Usage, ...] = ()
    #: Of a summary: its items, which replace those of an earlier one.
    summary_items: tuple[SummaryItem, ...] | None = None


#: Makes the enrichment of a job whose current run has completed. It may be called twice for one run, with the same
#: result; None means that the work goes on in the background, and is asked for again. It raises `Transient` to be
#: called again later, `InvalidInput` or `ProviderError` if that would not help.
Make = Callable[[Job], Awaitable[Enriched | None]]

#: Seconds after which work in the background is asked for again.
RETURN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Enrichment:
    """Handles the events of one kind of enrichment."""

    kind: str
    #: The version of `make`, which each result states.
    version: str
    topic: Topic
    make: Make
    database: Jobs

    async def handle(self, envelope: Envelope) -> Outcome:
        """Make the enrichment of a run that has completed, or whose transcript was edited, or for which an operator has
        requested it again: of the transcript's newest version. If that is edited meanwhile, the database refuses the
        outcome, and the edit's own event makes the enrichment.

        Raises whatever `make` raises, and `Unavailable`.
        """
        data = cast("OfRun", envelope.data)
        job = await self.database.job(data.tenant_id, data.job_id)
        if job is None or job.run < data.run or (job.run == data.run and not job.ended):
            return IGNORED
        status = job.enrichment.get(self.kind)
        if job.run > data.run or status is None or status.state == "done":
            return NOTHING
        if status.state == "failed" and not envelope.replay:
            return NOTHING
        if status.state == "pending" and is_waiting(self.kind, job.enrichment):
            return NOTHING  # what it is made from ends with an event that this stage reads, too
        if self.kind in AFTER and envelope.record.topic != topics.due_name(self.kind):
            # It is made by events of its own, of which there is one once it is not pending any more.
            return self._asked_again(envelope, job, status, 0.0) if status.state == "pending" else NOTHING
        enriched = await self.make(job)
        if enriched is None:
            return self._asked_again(envelope, job, status, RETURN_S)
        passing(f"{self.kind}.stored")
        return self._done(envelope, job, status, enriched)

    def _asked_again(self, envelope: Envelope, job: Job, status: EnrichmentStatus, seconds: float) -> Outcome:
        request = EnrichmentRequested(
            **run_fields(job),
            kind=self.kind,
            transcript_version=job.transcript_version,
            generation=status.generation,
        )
        name = topics.due_name(self.kind)
        return Outcome(
            **belonging(envelope),
            enrichment=self._change(envelope, job, status, "running"),
            later=(Later(name, request, seconds, kind="enrichment.requested", attempt=envelope.attempt),),
            audit="",
        )

    def _change(
        self,
        envelope: Envelope,
        job: Job,
        status: EnrichmentStatus,
        state: EnrichmentState,
        result: dict[str, Any] | None = None,
    ) -> EnrichmentChange:
        return EnrichmentChange(
            run=job.run,
            transcript_version=job.transcript_version,
            generation=status.generation,
            kind=self.kind,
            state=state,
            attempts=envelope.attempt + 1,
            version=self.version,
            result=result,
            reopens=envelope.replay > 0,
        )

    def _done(self, envelope: Envelope, job: Job, status: EnrichmentStatus, enriched: Enriched) -> Outcome:
        if enriched.event is None:
            change = self._change(envelope, job, status, "done")
            return Outcome(**belonging(envelope), enrichment=change, files=enriched.files, usage=enriched.usage)
        of = {
            "kind": self.kind,
            "version": self.version,
            "transcript_version": job.transcript_version,
            "generation": status.generation,
        }
        event = enriched.event.model_copy(update=of)
        result = event.model_dump(mode="json", exclude_none=True, exclude={"tenant_id", "job_id", "run", "reference"})
        return Outcome(
            **belonging(envelope),
            enrichment=self._change(envelope, job, status, "done", result),
            index=enriched.index,
            files=enriched.files,
            usage=enriched.usage,
            summary_items=enriched.summary_items,
            later=(Later(self.topic.name, event),),
        )


def enrichment(
    kind: str,
    *,
    version: str,
    announces: Topic,
    make: Callable[[Resources], Awaitable[Make]],
    after: tuple[Topic, ...] = (),
    limit_s: float = 20.0,
    concurrency: int = 8,
    waits: int = 0,
    retries: int = RETRIES,
) -> StageSpec:
    """The specification of a stage that makes this kind of enrichment, and announces each on the topic `announces`.

    `make` is called once a process and returns the function that makes one enrichment, in at most `limit_s` seconds.
    `waits`: see `WAITS`. `after` has the topics that announce what it is made from (`schemas.jobs.enrichment.AFTER`).
    """
    inputs = (topics.PERSISTED, topics.EDITED, *((*after, topics.ENRICHMENT_FAILED) if after else ()))
    due = topics.due(kind, *inputs, enrichment_requested=EnrichmentRequested)

    def give_up(envelope: Envelope, failure: Failure) -> Outcome:
        return failed_enrichment(
            cast("OfRun", envelope.data),
            kind,
            failure,
            version=version,
            transcript_version=requested_version(envelope.data),
            generation=requested_generation(envelope.data),
            reopens=envelope.replay > 0,
        )

    async def build(spec: StageSpec, resources: Resources) -> Stage:
        handler = Enrichment(kind, version, announces, await make(resources), resources.database)
        return Stage(
            spec.name,
            spec.inputs,
            due,
            handler.handle,
            give_up,
            limit_s=limit_s,
            concurrency=concurrency,
            provider_waits=waits,
            outage_waits=min(waits, OUTAGE_WAITS),
            rank=3,
            retries=retries,
            enrichment=kind,
        )

    return StageSpec(
        name=kind,
        inputs=inputs,
        due=due,
        publishes=(announces, topics.ENRICHMENT_FAILED),
        build=build,
        enrichment=kind,
        refused=give_up,
    )
