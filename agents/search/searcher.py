"""Hybrid search: passages by words and by meaning, made one list, of which each entry is an utterance."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agents.embeddings.protocols import Embedder
from agents.search.fusion import Ranked, fused
from agents.search.hits import hits_of
from agents.search.query import terms
from schemas.errors import ProviderError, SettingsError, Transient
from schemas.search.chunks import ChunkKey, Generation
from schemas.search.results import Mode, Results, Searched
from sinks.ports.search.reads import EVERYWHERE, ChunkFilter, SearchIndex, Term

log = logging.getLogger(__name__)

#: Passages of each kind of search that are made one list, and so the most that all pages have together.
CANDIDATES: Final = 100

#: Vectors of questions that are remembered: the next page asks the same.
REMEMBERED: Final = 500

#: Seconds for the vector of a question, with a model on this machine that is busy with passages.
QUESTION_S: Final = 3.0


@dataclass
class Searcher:
    """Searches one tenant's transcripts. `open` opens an embedding model by its name, and raises SettingsError."""

    index: SearchIndex
    open: Callable[[str], Embedder]
    _embedders: dict[str, Embedder] = field(default_factory=dict)
    _vectors: OrderedDict[tuple[str, str], Sequence[float]] = field(default_factory=OrderedDict)

    async def search(
        self,
        tenant: str,
        text: str,
        which: ChunkFilter = EVERYWHERE,
        *,
        mode: Mode = "hybrid",
        language: str = "en",
        limit: int = 10,
        offset: int = 0,
        around: int = 1,
    ) -> Results:
        """A page of hits, with so many utterances around each.

        Raises:
            InvalidInput: there are too many words; or the tenant's name cannot be one.
            Unavailable: the database is away, or the search took too long.
        """
        # In a thread: a language's list of words is read when it is first needed.
        asked = await asyncio.to_thread(terms, text, language)
        ranked, searched = await self.ranked(tenant, text, asked, which, mode)
        page = ranked[offset : offset + limit]
        hits = await hits_of(self.index, tenant, page, asked, around, which.speaker)
        following = offset + limit if len(ranked) > offset + limit else None
        return Results(hits=hits, following=following, searched=searched)

    async def ranked(
        self, tenant: str, text: str, asked: Sequence[Term], which: ChunkFilter, mode: Mode
    ) -> tuple[list[Ranked], Searched]:
        """The passages that match, best first, and how they were looked for. Raises as `search`."""
        (by_words, is_cut), (by_vectors, searched) = await asyncio.gather(
            self._by_words(tenant, asked, which, mode), self._by_vectors(tenant, text, asked, which, mode)
        )
        lists = {name: keys for name, keys in (("text", by_words), ("vectors", by_vectors)) if keys}
        return fused(lists), Searched(
            by_text=mode != "vectors",
            by_vectors=searched.by_vectors,
            model=searched.model,
            reason=searched.reason,
            waiting=searched.waiting,
            is_cut=is_cut,
        )

    async def close(self) -> None:
        """Close the models that were opened."""
        embedders, self._embedders = [*self._embedders.values()], {}
        for embedder in embedders:
            await embedder.close()

    async def _by_words(
        self, tenant: str, asked: Sequence[Term], which: ChunkFilter, mode: Mode
    ) -> tuple[list[ChunkKey], bool]:
        if mode == "vectors":
            return [], False
        found = await self.index.matching_words(tenant, asked, which, limit=CANDIDATES)
        return [match.key for match in found.matches], found.is_cut

    async def _by_vectors(
        self, tenant: str, text: str, asked: Sequence[Term], which: ChunkFilter, mode: Mode
    ) -> tuple[list[ChunkKey], Searched]:
        def without(reason: str | None) -> tuple[list[ChunkKey], Searched]:
            return [], Searched(by_text=True, by_vectors=False, reason=reason)

        if mode == "text":
            return without(None)
        if any(term.use != "may" for term in asked):
            return without("phrases, beginnings of words and unwanted words are looked for in the words")
        state = await self.index.index_state(tenant)
        if not state.has_vectors:
            return without("the database has no pgvector")
        if state.serving is None:
            return without("no embedding model is configured, or none has answered yet")
        vector, reason = await self._vector(state.serving, text)
        if vector is None:
            return without(reason)
        nearest = await self.index.nearest(tenant, state.serving, vector, which, limit=CANDIDATES)
        searched = Searched(by_text=True, by_vectors=True, model=state.serving.model, waiting=state.waiting)
        return [match.key for match in nearest], searched

    async def _vector(self, generation: Generation, text: str) -> tuple[Sequence[float] | None, str | None]:
        """The vector of a question, or why there is none."""
        key = (generation.model, text)
        if key in self._vectors:
            self._vectors.move_to_end(key)
            return self._vectors[key], None
        try:
            embedder = self._embedders.get(generation.model) or self.open(generation.model)
            self._embedders[generation.model] = embedder
            async with asyncio.timeout(QUESTION_S):
                [vector] = (await embedder.question(text)).vectors
        except SettingsError as exc:
            log.warning("questions are not looked for by meaning: %s", exc)
            return None, f"this worker cannot use the model {generation.model}"
        except (Transient, ProviderError, TimeoutError) as exc:
            log.warning("a question has no vector: %s", exc)
            # No more than that: the error may name hosts.
            return None, f"the embedding model {'refuses' if isinstance(exc, ProviderError) else 'does not answer'}"
        if len(vector) != generation.dimensions:
            return None, "the embedding model answers with other dimensions than before"
        self._vectors[key] = vector
        while len(self._vectors) > REMEMBERED:
            self._vectors.popitem(last=False)
        return vector, None
