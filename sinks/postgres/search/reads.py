"""Searching on PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from schemas.search.chunks import Chunk, ChunkKey, Generation
from sinks.ports.search.reads import EVERYWHERE, ChunkFilter, IndexState, Match, SearchIndex, Term, TextMatches
from sinks.postgres.search.conditions import Conditions
from sinks.postgres.search.text_query import LAST, TermQuery, ranked, statement, steps
from sinks.postgres.sql.queries import SQL
from sinks.postgres.sql.tables import CHUNKS

if TYPE_CHECKING:
    from sinks.postgres.reader import Reader

#: Passages among which every vector is compared. Of more, an index is asked, which goes on until it has enough of those
#: that are wanted; of a small part of a large index it would have to visit most of it.
FEW: Final = 12_000

#: Dimensions that an index can have; vectors with more are compared one by one.
MAX_INDEXED: Final = 4000

_MARK: Final = re.compile("[\x02\x03]")


class PostgresSearch(SearchIndex):
    """`SearchIndex` over a reader's connections and slots."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def index_state(self, tenant: str) -> IndexState:
        """What can be searched."""
        async with self._reader.searching(tenant) as db:
            if not await db.fetchval(SQL["vectors_possible"]):
                return IndexState()
            generations = [Generation(**row) for row in await db.fetch(SQL["read_generations"])]
            serving = next((one for one in generations if one.state == "serving"), None)
            if serving is None:
                return IndexState(has_vectors=True)
            waiting = await db.fetchval(SQL["count_embedding_work"], tenant, serving.generation)
            return IndexState(has_vectors=True, serving=serving, waiting=waiting)

    async def matching_words(
        self, tenant: str, terms: Sequence[Term], which: ChunkFilter = EVERYWHERE, *, limit: int
    ) -> TextMatches:
        """The best passages by words."""
        async with self._reader.searching(tenant) as db:
            queries = await _term_queries(db, tenant, terms)
            strictness = steps(tenant, terms, queries)
            if not strictness:
                return TextMatches()
            conditions = Conditions(tenant, which)
            sql = statement(len(strictness), conditions.texts, len(conditions.arguments) + 1)
            rows = await db.fetch(sql, *conditions.arguments, *strictness, *ranked(terms, queries), limit)
        return TextMatches([_match(row) for row in rows], is_cut=bool(rows) and rows[0]["reached"] >= LAST)

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
        conditions = Conditions(tenant, which)
        async with self._reader.searching(tenant) as db:
            few = await _are_few(db, generation, conditions)
            exactly = few or generation.dimensions > MAX_INDEXED
            if not exactly:
                await db.execute(_INDEX_SETTINGS)
            sql = _nearest(generation, conditions, _text(vector), limit, exactly=exactly)
            return [_match(row) for row in await db.fetch(sql, *conditions.arguments)]

    async def chunks(self, tenant: str, keys: Sequence[ChunkKey]) -> dict[ChunkKey, Chunk]:
        """Passages by their keys, read as the tenant."""
        columns = [[key[n] for key in keys] for n in range(3)]
        rows = await self._reader.read(tenant, "read_chunks", *columns, tenant)
        return {chunk.key: chunk for chunk in map(CHUNKS.read, rows)}

    async def marked(
        self, tenant: str, terms: Sequence[Term], texts: Sequence[tuple[str, str]]
    ) -> list[list[tuple[int, int]]]:
        """Where texts have the terms."""
        async with self._reader.searching(tenant) as db:
            queries = await _term_queries(db, tenant, [term for term in terms if term.use != "not"])
            any_of: dict[str, list[str]] = {}
            for dictionary, _, query in queries:
                any_of.setdefault(dictionary, []).extend([f"({query})"] if query else [])
            asked = [(dictionary, text, " | ".join(any_of.get(dictionary, []))) for dictionary, text in texts]
            rows = await db.fetch(SQL["mark_terms"], *([one[n] for one in asked] for n in range(3)))
        return [_marks(text, row["marked"]) for (_, text), row in zip(texts, rows, strict=True)]


#: The index is asked for more until enough are wanted; what it returns is sorted again. Of a million passages, these
#: settings find all of the ten nearest in a graph that is built with 128 candidates (migration 0043), and 0.94 in one
#: that is built with 64.
_INDEX_SETTINGS: Final = """SET LOCAL hnsw.iterative_scan = 'relaxed_order'; SET LOCAL hnsw.ef_search = 300;
SET LOCAL hnsw.max_scan_tuples = 40000"""


async def _term_queries(db: Any, tenant: str, terms: Sequence[Term]) -> list[TermQuery]:
    rows = await db.fetch(SQL["term_queries"], tenant, [term.kind for term in terms], [term.text for term in terms])
    return [(row["dictionary"], row["n"], row["query"]) for row in rows]


async def _are_few(db: Any, generation: Generation, conditions: Conditions) -> bool:
    """Whether so few passages are wanted that all are compared."""
    source = "chunk_vectors c" if not conditions.texts else "chunks c"
    of_generation = [f"c.generation = {generation.generation}"] if not conditions.texts else []
    where = " AND ".join(["c.tenant_id = $1", *of_generation, *conditions.texts])
    sql = f"SELECT count(*) FROM (SELECT FROM {source} WHERE {where} LIMIT {FEW + 1}) AS wanted"  # noqa: S608
    count: int = await db.fetchval(sql, *conditions.arguments)
    return count <= FEW


_OF_TEXT: Final = "(c.tenant_id, c.job_id, c.run, c.hash) = (v.tenant_id, v.job_id, v.run, v.hash)"


def _nearest(generation: Generation, conditions: Conditions, vector: str, limit: int, *, exactly: bool) -> str:
    """The statement, whose arguments are those of the conditions. The generation and its dimensions are numbers of
    ours: as arguments, they would not let the planner use the index of that generation.
    """
    kind = f"halfvec({generation.dimensions})"
    distance = f"(v.embedding::{kind} <=> {conditions.argument(vector)}::text::{kind})"
    # An expression that no index has: all vectors are compared.
    order = f"{distance} + 0" if exactly else distance
    join = f"JOIN chunks c ON {_OF_TEXT}" if conditions.texts else ""
    where = " AND ".join(["v.tenant_id = $1", f"v.generation = {generation.generation}", *conditions.texts])
    return f"""
SELECT c.job_id, c.run, c.number, 1 - v.distance AS score
FROM (SELECT v.tenant_id, v.job_id, v.run, v.hash, {distance} AS distance
      FROM chunk_vectors v {join} WHERE {where} ORDER BY {order} LIMIT {limit}) AS v
JOIN chunks c ON {_OF_TEXT}
ORDER BY v.distance, c.job_id, c.number LIMIT {limit}"""  # noqa: S608 - constants and numbers


def _text(vector: Sequence[float]) -> str:
    return "[" + ",".join(f"{value:.6g}" for value in vector) + "]"


def _match(row: Any) -> Match:
    return Match((row["job_id"], row["run"], row["number"]), row["score"] or 0.0)


def _marks(text: str, marked: str) -> list[tuple[int, int]]:
    """The places between marks. None where PostgreSQL has changed the text otherwise, as it does with HTML's tags."""
    if _MARK.sub("", marked) != text:
        return []
    places: list[tuple[int, int]] = []
    at = begin = 0
    for part in re.split("([\x02\x03])", marked):
        if part == "\x02":
            begin = at
        elif part == "\x03":
            places.append((begin, at))
        else:
            at += len(part)
    return places
