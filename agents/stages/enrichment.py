"""How a stage makes an enrichment of a completed run's transcript: once, retried, and without touching the run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from agents.runtime.failpoints import passing
from agents.runtime.stage import Stage, belonging
from agents.stages.spec import Resources, StageSpec
from schemas import topics
from schemas.envelope import Envelope
from schemas.events.enrichment import EnrichmentEvent, EnrichmentRequested
from schemas.jobs.outcome import (
    IGNORED,
    NOTHING,
    EnrichmentChange,
    Failure,
    Later,
    Outcome,
    failed_enrichment,
)
from schemas.jobs.rows import File, Job, OfRun, Usage
from schemas.topics import Topic
from sinks.ports.jobs import Jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Enriched:
    """What was made of a transcript."""

    #: Announces it; `kind`, `version` and the time are filled in.
    event: EnrichmentEvent
    files: tuple[File, ...] = ()
    usage: tuple[Usage, ...] = ()


#: Makes the enrichment of a job whose current run has completed. May be called twice for one run, with the same result.
#: Raises `Transient` to be called again later, `InvalidInput` or `ProviderError` where that will not help.
Make = Callable[[Job], Awaitable[Enriched]]


@dataclass(frozen=True, slots=True)
class Enrichment:
    """One kind of enrichment as a stage handles it."""

    kind: str
    #: Of what makes it. A result says which version made it.
    version: str
    topic: Topic
    make: Make
    database: Jobs

    async def handle(self, envelope: Envelope) -> Outcome:
        """A run has completed, or its enrichment is asked for again."""
        data = cast("OfRun", envelope.data)
        job = await self.database.job(data.tenant_id, data.job_id)
        if job is None or job.run < data.run or (job.run == data.run and not job.ended):
            return IGNORED
        status = job.enrichment.get(self.kind)
        if job.run > data.run or status is None or status.state == "done":
            return NOTHING
        again = envelope.replay > 0
        if status.state == "failed" and not again:
            return NOTHING
        made = await self.make(job)
        passing(f"{self.kind}.stored")
        event = made.event.model_copy(update={"kind": self.kind, "version": self.version})
        result = event.model_dump(mode="json", exclude_none=True, exclude={"tenant_id", "job_id", "run", "reference"})
        return Outcome(
            **belonging(envelope),
            enrichment=EnrichmentChange(
                run=data.run,
                kind=self.kind,
                state="done",
                attempts=envelope.attempt + 1,
                version=self.version,
                result=result,
                reopens=again,
            ),
            files=made.files,
            usage=made.usage,
            later=(Later(self.topic.name, event),),
        )


def enrichment(
    kind: str,
    *,
    version: str,
    announces: Topic,
    make: Callable[[Resources], Awaitable[Make]],
    limit_s: float = 20.0,
    concurrency: int = 8,
) -> StageSpec:
    """The specification of a stage that makes this kind of enrichment, and announces each on a topic of its own.

    `make` is called once a process and returns what makes one enrichment, in at most `limit_s` seconds.
    """
    due = topics.due(kind, topics.PERSISTED, enrichment_requested=EnrichmentRequested)

    def give_up(envelope: Envelope, failure: Failure) -> Outcome:
        return failed_enrichment(
            cast("OfRun", envelope.data), kind, failure, version=version, reopens=envelope.replay > 0
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
            rank=3,
            enrichment=kind,
        )

    return StageSpec(
        name=kind,
        inputs=(topics.PERSISTED,),
        due=due,
        publishes=(announces, topics.ENRICHMENT_FAILED),
        build=build,
        enrichment=kind,
        refused=give_up,
    )
