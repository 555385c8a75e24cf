"""Makes vectors of the passages that have none: of new transcripts, and of all of them when the model is changed.

Work is a row for each run and generation of vectors, which is claimed for a time. What a call has answered is stored
before the next is made, by the hash of its text: so a kill repeats the calls that were in flight, and nothing else is
paid for twice. While the model is away, rows stay due; nothing is given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from agents.asr.paid_calls import PaidCalls, until_stored
from agents.asr.rate_limit import ProviderLimiter
from agents.embeddings.protocols import Embedded, Embedder
from agents.runtime.failpoints import passing
from agents.runtime.metrics import Metrics
from schemas import ids, topics
from schemas.errors import ProviderError, SettingsError, Transient, Unavailable
from schemas.events.enrichment import EmbeddingsGenerated
from schemas.jobs.outcome import Later, Outcome, Step
from schemas.jobs.rows import run_fields, used
from schemas.search.chunks import EmbeddingWork, Generation
from sinks.ports.search.embedding import EmbeddingQueue
from sinks.ports.steps import Steps

log = logging.getLogger(__name__)

#: The stage's name in the audit log.
NAME: Final = "embed"

#: Seconds of a claim: longer than a call and what is written after it can take.
LEASE_S: Final = 120.0

#: Seconds between two looks for work; least seconds, while there is some; and where the database has no vectors.
LOOK_S, PAUSE_S, WITHOUT_S = 1.0, 0.02, 30.0

#: Runs of which vectors are made at once, by a model elsewhere.
AT_ONCE: Final = 4

#: Seconds after which a run that failed is due again: twice as long each time, up to the longest.
FIRST_S, LONGEST_S = 5.0, 600.0

#: Rows of earlier generations that are removed at once.
SLICE: Final = 1000


class Database(EmbeddingQueue, Steps, Protocol):
    """What making vectors asks of the database."""


@dataclass
class EmbeddingMaker:
    """Makes vectors until it is cancelled."""

    database: Database
    #: The model of which vectors are to be.
    model: str
    #: Opens a model by its name. Raises SettingsError.
    open: Callable[[str], Embedder]
    limiter: ProviderLimiter
    #: Texts of one call.
    batch: int = 20
    paid: PaidCalls = field(default_factory=PaidCalls)
    metrics: Metrics = field(default_factory=Metrics)
    _embedders: dict[str, Embedder] = field(default_factory=dict)
    _failures: dict[tuple[str, str, int, int], int] = field(default_factory=dict)

    async def run(self) -> None:
        """Make what is missing, as it becomes due."""
        while True:
            try:
                wait_s = await self.look()
            except Unavailable as exc:
                log.debug("vectors wait for the database: %s", exc)
                wait_s = LOOK_S
            await asyncio.sleep(wait_s)

    async def close(self) -> None:
        """Close the models that were opened, once the calls in flight have ended."""
        await self.paid.close()
        embedders, self._embedders = [*self._embedders.values()], {}
        for embedder in embedders:
            await embedder.close()

    async def look(self) -> float:
        """Make vectors of some runs that are due, and change to a generation that is complete; seconds to wait.

        Raises `Unavailable`.
        """
        if not await self.database.use_vectors():
            return WITHOUT_S
        generations = await self.database.generations()
        if not any(one.model == self.model for one in generations):
            return await self._begin()
        found = 0
        for generation in generations:
            embedder = self._opened(generation.model)
            if embedder is None:
                continue
            limit = 1 if embedder.is_local else AT_ONCE
            claimed = await self.database.claim_embedding_work(generation.generation, limit, LEASE_S)
            await asyncio.gather(*(self._embed(work, generation, embedder) for work in claimed))
            found += len(claimed)
        more = await self.database.keep_generations(SLICE)
        return PAUSE_S if found or more else LOOK_S

    def _opened(self, model: str) -> Embedder | None:
        """The model; None if it cannot be used here any more, and what was made by it serves as long as it can."""
        if model not in self._embedders:
            try:
                self._embedders[model] = self.open(model)
            except SettingsError as exc:
                log.debug("%s makes no vectors here: %s", model, exc)
                return None
        return self._embedders[model]

    async def _begin(self) -> float:
        """Begin the generation of the configured model, whose dimensions its first answer tells."""
        embedder = self._opened(self.model)
        if embedder is None:
            return WITHOUT_S
        try:
            answer = await self._called(embedder, ["dimensions"])
        except (Transient, ProviderError) as exc:
            log.warning("no vectors are made: %s", exc)
            return WITHOUT_S
        await self.database.begin_generation(self.model, len(answer.vectors[0]))
        log.info("vectors of %s are made, of %d dimensions", self.model, len(answer.vectors[0]))
        return PAUSE_S

    async def _embed(self, work: EmbeddingWork, generation: Generation, embedder: Embedder) -> None:
        """Make all missing vectors of a run, or say why not and when again."""
        key = (work.tenant_id, work.job_id, work.run, work.generation)
        try:
            await self._make(work, generation, embedder)
        except (Transient, ProviderError) as exc:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            wait_s = max(min(FIRST_S * 2 ** (failures - 1), LONGEST_S), getattr(exc, "retry_after", None) or 0.0)
            await self.database.put_off_embedding(work, wait_s, str(exc))
        else:
            self._failures.pop(key, None)

    async def _make(self, work: EmbeddingWork, generation: Generation, embedder: Embedder) -> None:
        """Raises what `Embedder.passages` does, and `Unavailable`."""
        # A call of an earlier claim here may still be on its way to be stored.
        await self.paid.settled(work.job_id)
        while texts := await self.database.texts_without_vector(work, self.batch):
            self.paid.require_room()
            if not await self.paid.through(work.job_id, partial(self._batch, work, generation, embedder, texts)):
                return  # another has claimed it, or the transcript was edited
            passing("embed.kept")
        await self._announce(work, generation)
        passing("embed.announced")
        await self.database.end_embedding_work(work)

    async def _batch(
        self, work: EmbeddingWork, generation: Generation, embedder: Embedder, texts: dict[str, str]
    ) -> bool:
        """Make one call, and store its answer; whether the claim still holds."""
        answer = await self._called(embedder, [*texts.values()])
        if len(answer.vectors[0]) != generation.dimensions:
            raise ProviderError(
                f"{generation.model} answers with {len(answer.vectors[0])} dimensions in place of "
                f"{generation.dimensions}: name another model in EMBEDDINGS_MODEL, and its vectors are made anew"
            )
        passing("embed.answered")
        vectors = dict(zip(texts, answer.vectors, strict=True))
        usage = used(work, embedder.provider, answer.ref, answer.usage)
        kept = [False]

        async def keep() -> None:
            kept[0] = await self.database.keep_vectors(work, vectors, usage, LEASE_S)

        await until_stored(keep)
        self.metrics.used(usage)
        return kept[0]

    async def _called(self, embedder: Embedder, texts: list[str]) -> Embedded:
        """One call, within the limits that hold for all workers."""
        if embedder.is_local:
            return await embedder.passages(texts)
        await self.limiter.wait()
        try:
            answer = await embedder.passages(texts)
        except Transient as exc:
            await self.limiter.failed(exc)
            raise
        await self.limiter.worked()
        return answer

    async def _announce(self, work: EmbeddingWork, generation: Generation) -> None:
        """Publish that all is done, once, however often this is called."""
        owner = run_fields(work)
        about = f"{work.job_id}/{work.run}/{work.transcript_version}/{generation.generation}"
        event = EmbeddingsGenerated(
            **owner,
            transcript_version=work.transcript_version,
            model=generation.model,
            dimensions=generation.dimensions,
        )
        outcome = Outcome(tenant_id=work.tenant_id, job_id=work.job_id, later=(Later(topics.EMBEDDINGS.name, event),))
        await self.database.commit([Step(NAME, ids.ingress_id(work.tenant_id, NAME, about), outcome)])
