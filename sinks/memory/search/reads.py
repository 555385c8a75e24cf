"""The double of searching: words without a dictionary, and every vector compared."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.ids import canonical_uuid
from schemas.search.chunks import Chunk, ChunkKey, Generation
from sinks.memory.database import MemoryDatabase
from sinks.ports.search.reads import EVERYWHERE, ChunkFilter, IndexState, Match, SearchIndex, Term, TextMatches

_WORD: Final = re.compile(r"\w+")

#: As PostgreSQL weighs a reading that was not chosen.
_OTHER_READING: Final = 0.4


@dataclass(frozen=True)
class MemorySearch(SearchIndex):
    """`SearchIndex` on the double of the database."""

    database: MemoryDatabase

    async def index_state(self, tenant: str) -> IndexState:
        """What can be searched."""
        generations = await self.database.generations()
        serving = next((one for one in generations if one.state == "serving"), None)
        waiting = [
            key for key in self.database.embedding if serving and key[0] == tenant and key[3] == serving.generation
        ]
        return IndexState(self.database.has_vectors, serving, len(waiting))

    async def matching_words(
        self, tenant: str, terms: Sequence[Term], which: ChunkFilter = EVERYWHERE, *, limit: int
    ) -> TextMatches:
        """The best passages by words."""
        scores = {chunk.key: _score(chunk, terms) for chunk in await self._wanted(tenant, which)}
        found = [Match(key, score) for key, score in scores.items() if score is not None]
        return TextMatches(sorted(found, key=lambda match: (-match.score, match.key))[:limit])

    async def nearest(
        self,
        tenant: str,
        generation: Generation,
        vector: Sequence[float],
        which: ChunkFilter = EVERYWHERE,
        *,
        limit: int,
    ) -> list[Match]:
        """The passages whose vectors are nearest."""
        of = {key: v for key, v in self.database.vectors.items() if key[3] == generation.generation}
        wanted = await self._wanted(tenant, which)
        found = [
            Match(chunk.key, _cosine(vector, of[key]))
            for chunk in wanted
            if (key := (tenant, chunk.job_id, chunk.run, generation.generation, chunk.hash)) in of
        ]
        return sorted(found, key=lambda match: -match.score)[:limit]

    async def chunks(self, tenant: str, keys: Sequence[ChunkKey]) -> dict[ChunkKey, Chunk]:
        """Passages by their keys."""
        return {key: self.database.chunks[tenant, *key] for key in keys if (tenant, *key) in self.database.chunks}

    async def marked(
        self,
        tenant: str,  # noqa: ARG002 - PostgreSQL looks at the dictionaries of a tenant's transcripts
        terms: Sequence[Term],
        texts: Sequence[tuple[str, str]],
    ) -> list[list[tuple[int, int]]]:
        """Where texts have the terms."""
        wanted = [(word, term.kind) for term in terms if term.use != "not" for word in _words(term.text)]
        return [
            [
                match.span()
                for match in _WORD.finditer(text)
                if any(_is(match.group().lower(), word, kind == "prefix") for word, kind in wanted)
            ]
            for _, text in texts
        ]

    async def _wanted(self, tenant: str, which: ChunkFilter) -> list[Chunk]:
        of_tenant = [chunk for key, chunk in sorted(self.database.chunks.items()) if key[0] == tenant]
        return [chunk for chunk in of_tenant if await self._is_wanted(chunk, which)]

    async def _is_wanted(self, chunk: Chunk, which: ChunkFilter) -> bool:
        job = await self.database.job(chunk.tenant_id, chunk.job_id)
        metadata = await self.database.metadata(chunk.tenant_id, chunk.job_id)
        return (
            (which.created_from is None or chunk.created_at >= which.created_from)
            and (which.created_to is None or chunk.created_at < which.created_to)
            and (which.job is None or chunk.job_id == self._named(chunk.tenant_id, which.job))
            and (which.reference is None or (job is not None and job.reference == which.reference))
            and (which.speaker is None or which.speaker in chunk.speakers)
            and (which.recognizer is None or which.recognizer in chunk.recognizers)
            and (which.entity is None or self._names(chunk, which.entity))
            and which.sentiment in (None, self._sentiment(chunk))
            and all(str(metadata.get(key)) == value for key, value in which.metadata)
        )

    def _named(self, tenant: str, name: str) -> str | None:
        """The id of the job of this id or reference."""
        jobs = [job for job in self.database.all_jobs() if job.tenant_id == tenant]
        by_id = [job.job_id for job in jobs if job.job_id in (name, canonical_uuid(name))]
        return next(iter([*by_id, *(job.job_id for job in jobs if job.reference == name)]), None)

    def _names(self, chunk: Chunk, entity: str) -> bool:
        of = (chunk.tenant_id, chunk.job_id, chunk.run, "entity", entity)
        return any(
            of == (one.tenant_id, one.job_id, one.run, one.kind, one.lookup) for one in self.database.summary_items
        )

    def _sentiment(self, chunk: Chunk) -> str | None:
        row = self.database.enrichments.get((chunk.tenant_id, chunk.job_id, chunk.run, "summary"))
        return (row.result or {}).get("sentiment") if row is not None else None


def _score(chunk: Chunk, terms: Sequence[Term]) -> float | None:
    """How well the chunk matches; None if it does not."""
    has = {n: _worth(chunk, term) for n, term in enumerate(terms)}
    if any(bool(has[n]) == (term.use == "not") for n, term in enumerate(terms) if term.use != "may"):
        return None
    worth = sum(has[n] * term.weight for n, term in enumerate(terms) if term.use != "not")
    return worth or None


def _worth(chunk: Chunk, term: Term) -> float:
    if _contains(_words(chunk.content), term):
        return 1.0
    return _OTHER_READING if any(_contains(_words(line), term) for line in chunk.heard.split("\n")) else 0.0


def _contains(words: Sequence[str], term: Term) -> bool:
    wanted = _words(term.text)
    places = range(len(words) - len(wanted) + 1) if wanted else ()
    is_prefix = term.kind == "prefix"
    return any(all(_is(words[at + n], word, is_prefix) for n, word in enumerate(wanted)) for at in places)


def _is(word: str, wanted: str, is_prefix: bool) -> bool:
    return word.startswith(wanted) if is_prefix else word == wanted


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / ((math.hypot(*one) * math.hypot(*other)) or 1.0)
