"""The double of what steps write of the search index, and of the passages that wait for vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from schemas.jobs.rows import Usage
from schemas.jobs.transitions import Written
from schemas.search.chunks import Chunk, EmbeddingWork, Generation
from sinks.memory.providers.usage import MemoryUsage
from sinks.ports.search.embedding import EmbeddingQueue

#: Tenant, job, run.
_Run = tuple[str, str, int]


@dataclass
class MemoryIndex(MemoryUsage, EmbeddingQueue):
    """`EmbeddingQueue` in this process, and the rows of the search index."""

    #: By tenant, job, run and number.
    chunks: dict[tuple[str, str, int, int], Chunk] = field(default_factory=dict)
    #: By tenant, job, run, generation and hash of the text.
    vectors: dict[tuple[str, str, int, int, str], list[float]] = field(default_factory=dict)
    #: By tenant, job, run and generation: the work, and when it is due.
    embedding: dict[tuple[str, str, int, int], tuple[EmbeddingWork, datetime]] = field(default_factory=dict)
    has_vectors: bool = True
    _generations: dict[int, Generation] = field(default_factory=dict)
    _last_generation: int = 0

    def _write_index(self, written: Written) -> None:
        if (index := written.index) is None:
            return
        run = (index.tenant_id, index.job_id, index.run)
        self.chunks = {key: chunk for key, chunk in self.chunks.items() if not _is_replaced(key, run)}
        self.chunks |= {(*run, chunk.number): chunk for chunk in index.chunks}
        texts = {(*run, chunk.hash) for chunk in index.chunks}
        self.vectors = {
            key: vector
            for key, vector in self.vectors.items()
            if not _is_replaced(key, run) or (*key[:3], key[4]) in texts
        }
        self.embedding = {k: work for k, work in self.embedding.items() if not _is_replaced(k, run) or k[:3] == run}
        for generation in self._generations:
            self._queue_embedding(run, generation, index.transcript_version)

    def _queue_embedding(self, run: _Run, generation: int, version: int) -> None:
        before = self.embedding.get((*run, generation))
        tenant_id, job_id, number = run
        work = EmbeddingWork(
            tenant_id=tenant_id,
            job_id=job_id,
            run=number,
            generation=generation,
            transcript_version=version,
            attempts=before[0].attempts + 1 if before else 0,
        )
        self.embedding[*run, generation] = work, self.clock()

    async def use_vectors(self) -> bool:
        """Whether this double is told to have vectors."""
        return self.has_vectors

    async def generations(self) -> list[Generation]:
        """Those that are in use."""
        return [*self._generations.values()]

    async def begin_generation(self, model: str, dimensions: int) -> None:
        """Begin one, unless there is one of this model."""
        if any(one.model == model for one in self._generations.values()):
            return
        self._generations = {n: one for n, one in self._generations.items() if one.state == "serving"}
        self._last_generation += 1
        number = self._last_generation
        self._generations[number] = Generation(
            number, model, dimensions, "building" if self._generations else "serving"
        )
        for run in {key[:3] for key in self.chunks}:
            versions = (chunk.transcript_version for key, chunk in self.chunks.items() if key[:3] == run)
            self._queue_embedding(run, number, max(versions))

    async def claim_embedding_work(self, generation: int, limit: int, seconds: float) -> list[EmbeddingWork]:
        """Claim runs that are due."""
        now = self.clock()
        due = [key for key, (_, at) in self.embedding.items() if key[3] == generation and at <= now][:limit]
        for key in due:
            work = self.embedding[key][0]
            self.embedding[key] = replace(work, attempts=work.attempts + 1), now + timedelta(seconds=seconds)
        return [self.embedding[key][0] for key in due]

    async def texts_without_vector(self, work: EmbeddingWork, limit: int) -> dict[str, str]:
        """The run's passages that have no vector yet."""
        run = (work.tenant_id, work.job_id, work.run)
        texts = {chunk.hash: chunk.text for key, chunk in sorted(self.chunks.items()) if key[:3] == run}
        missing = [hash for hash in texts if (*run, work.generation, hash) not in self.vectors]
        return {hash: texts[hash] for hash in missing[:limit]}

    async def keep_vectors(
        self, work: EmbeddingWork, vectors: Mapping[str, Sequence[float]], usage: Sequence[Usage], seconds: float
    ) -> bool:
        """Keep vectors and what they cost, and renew the claim."""
        run = (work.tenant_id, work.job_id, work.run)
        hashes = {chunk.hash for key, chunk in self.chunks.items() if key[:3] == run}
        for hash, vector in vectors.items():
            if hash in hashes:
                self.vectors.setdefault((*run, work.generation, hash), [*vector])
        self._keep_usage(usage)
        return self._change(work, seconds, None)

    async def put_off_embedding(self, work: EmbeddingWork, seconds: float, error: str) -> None:
        """Have the run be due later."""
        self._change(work, seconds, error)

    def _change(self, work: EmbeddingWork, seconds: float, error: str | None) -> bool:
        key = (work.tenant_id, work.job_id, work.run, work.generation)
        if key not in self.embedding or self.embedding[key][0].attempts != work.attempts:
            return False
        self.embedding[key] = replace(self.embedding[key][0], error=error), self.clock() + timedelta(seconds=seconds)
        return True

    async def end_embedding_work(self, work: EmbeddingWork) -> None:
        """All of the run's passages have vectors."""
        if self._change(work, 0, None):
            del self.embedding[work.tenant_id, work.job_id, work.run, work.generation]

    async def keep_generations(self, rows: int) -> bool:  # noqa: ARG002 - all at once here
        """Change to a complete generation, and forget the vectors of earlier ones."""
        building = next((n for n, one in self._generations.items() if one.state == "building"), None)
        waiting = {key[:3] for key in self.embedding if key[3] == building}
        if building is not None and waiting <= {key[:3] for key in self.embedding if key[3] != building}:
            self._generations = {building: replace(self._generations[building], state="serving")}
        self.vectors = {key: vector for key, vector in self.vectors.items() if key[3] in self._generations}
        self.embedding = {key: work for key, work in self.embedding.items() if key[3] in self._generations}
        return False


def _is_replaced(key: tuple[object, ...], run: _Run) -> bool:
    """Whether a row belongs to this run, or to an earlier one of its job."""
    return key[:2] == run[:2] and isinstance(key[2], int) and key[2] <= run[2]
