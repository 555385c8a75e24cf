"""Passages that wait for vectors, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.jobs.rows import Usage
from schemas.search.chunks import EmbeddingWork, Generation
from sinks.ports.search.embedding import EmbeddingQueue
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import USAGE


class PostgresEmbedding(PostgresPort, EmbeddingQueue):
    """`EmbeddingQueue` on a pool."""

    async def use_vectors(self) -> bool:
        """Whether there is a column for vectors."""
        return bool((await self._fetch("vectors_possible"))[0][0])

    async def generations(self) -> list[Generation]:
        """Those that are in use."""
        return [Generation(**row) for row in await self._fetch("read_generations")]

    async def begin_generation(self, model: str, dimensions: int) -> None:
        """Begin one, unless there is one of this model."""
        await self._fetch("begin_generation", model, dimensions)

    async def claim_embedding_work(self, generation: int, limit: int, seconds: float) -> list[EmbeddingWork]:
        """Claim runs that are due."""
        return [EmbeddingWork(**row) for row in await self._fetch("claim_embedding_work", generation, limit, seconds)]

    async def texts_without_vector(self, work: EmbeddingWork, limit: int) -> dict[str, str]:
        """The run's passages that have no vector yet."""
        run = (work.tenant_id, work.job_id, work.run, work.generation)
        return {row["hash"]: row["text"] for row in await self._fetch("texts_without_vector", *run, limit)}

    async def keep_vectors(
        self, work: EmbeddingWork, vectors: Mapping[str, Sequence[float]], usage: Sequence[Usage], seconds: float
    ) -> bool:
        """Store vectors and what they cost, and renew the claim."""
        texts = [str(list(map(float, vector))) for vector in vectors.values()]
        async with self._transaction() as db:
            await db.execute(SQL["insert_vectors"], *_claim(work)[:4], list(vectors), texts)
            if usage:
                await db.execute(SQL["record_usage"], *USAGE.arguments(usage))
            return await db.fetchval(SQL["renew_embedding_claim"], *_claim(work), seconds) is not None

    async def put_off_embedding(self, work: EmbeddingWork, seconds: float, error: str) -> None:
        """Have the run be due later."""
        await self._fetch("put_off_embedding", *_claim(work), seconds, error)

    async def end_embedding_work(self, work: EmbeddingWork) -> None:
        """All of the run's passages have vectors."""
        await self._fetch("end_embedding_work", *_claim(work))

    async def keep_generations(self, rows: int) -> bool:
        """Change to a complete generation, and remove rows of earlier ones."""
        return bool((await self._fetch("keep_generations", rows))[0][0])


def _claim(work: EmbeddingWork) -> tuple[Any, ...]:
    return work.tenant_id, work.job_id, work.run, work.generation, work.attempts
