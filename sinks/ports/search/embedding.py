"""The port of vectors: which passages have none yet, and what is made of the answers of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from schemas.jobs.rows import Usage
from schemas.search.chunks import EmbeddingWork, Generation


class EmbeddingQueue(Protocol):
    """Runs whose passages wait for vectors are rows that are due; a claim puts them off, and holds until then.

    Raises `Unavailable` if the database cannot be reached.
    """

    async def use_vectors(self) -> bool:
        """Whether the database can keep vectors."""

    async def generations(self) -> list[Generation]:
        """Those that are in use: the serving one, and the one that is built beside it."""

    async def begin_generation(self, model: str, dimensions: int) -> None:
        """Have vectors of this model made of every passage; no effect if there is such a generation. If another one
        serves, it goes on to until this is complete.
        """

    async def claim_embedding_work(self, generation: int, limit: int, seconds: float) -> list[EmbeddingWork]:
        """Claim at most `limit` runs that are due, for so many seconds."""

    async def texts_without_vector(self, work: EmbeddingWork, limit: int) -> dict[str, str]:
        """At most so many of the run's passages that have no vector yet: text by hash."""

    async def keep_vectors(
        self, work: EmbeddingWork, vectors: Mapping[str, Sequence[float]], usage: Sequence[Usage], seconds: float
    ) -> bool:
        """Store vectors by the hashes of their texts, with what they cost, and renew the claim. Whether the claim still
        holds: if not, the vectors are stored as far as their passages exist, because they are paid for.
        """

    async def put_off_embedding(self, work: EmbeddingWork, seconds: float, error: str) -> None:
        """Have the run be due then, and say why; no effect if the claim does not hold any more."""

    async def end_embedding_work(self, work: EmbeddingWork) -> None:
        """All of the run's passages have vectors; no effect if the claim does not hold any more."""

    async def keep_generations(self, rows: int) -> bool:
        """Have a complete generation serve, and remove at most so many rows of earlier ones; whether more may be
        left.
        """
