"""How fast searches are among many passages, and whether the nearest are found.

    python -m bench.search_million [--passages 1000000] [--report FILE]

Vectors are random ones of 384 dimensions around 2000 centres, as texts of some topics are; passages are made of words
of Zipf's frequencies. One tenant has 90 % of them, one 1 %, and others the rest. Measured are the fleet's own searches
(`sinks.postgres.search`), beside comparing every vector, on a PostgreSQL of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
import numpy as np
import orjson

from agents.embedded.postgres import EmbeddedPostgres
from schemas.search.chunks import Generation, text_hash
from sinks.ports.search.reads import Match, Term
from sinks.postgres.database import connect_pool
from sinks.postgres.migrate import migrate
from sinks.postgres.reader import Reader
from sinks.postgres.search import reads
from sinks.postgres.search.reads import PostgresSearch

DIMENSIONS: Final = 384
#: Tenants, and their shares of a hundred passages.
SHARES: Final = {"large": 90, "small": 1} | {f"other{n}": 1 for n in range(9)}
#: Passages of a job, and those that are written at once.
OF_JOB, SLICE = 40, 5000
QUESTIONS: Final = 200
WORDS: Final = 30_000


class Made:
    """Random passages."""

    def __init__(self, seed: int = 7) -> None:
        self.random = np.random.default_rng(seed)
        self.centres = self.random.normal(size=(2000, DIMENSIONS)).astype(np.float32)
        self.rates = 1 / np.arange(1, WORDS + 1)
        self.rates /= self.rates.sum()

    def vectors(self, count: int) -> np.ndarray:
        """Unit vectors, each near a centre."""
        near = self.centres[self.random.integers(0, len(self.centres), count)]
        made = near + self.random.normal(scale=0.8, size=near.shape).astype(np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    def texts(self, count: int) -> list[str]:
        """Texts of 40 words, the commonest of them often."""
        words = self.random.choice(WORDS, size=(count, 40), p=self.rates)
        return [" ".join(f"wort{word}" for word in row) for row in words]


async def fill(db: Any, made: Made, passages: int) -> None:
    """Write passages of all tenants."""
    tenants = [tenant for tenant, share in SHARES.items() for _ in range(share)]
    for begin in range(0, passages, SLICE):
        count = min(SLICE, passages - begin)
        texts, vectors = made.texts(count), made.vectors(count)
        rows = [
            (tenants[number % 100], f"job{number // OF_JOB}", number % OF_JOB, text, text_hash(f"{number}"))
            for number, text in enumerate(texts, begin)
        ]
        columns: list[list[Any]] = [[row[n] for row in rows] for n in range(5)]
        await db.execute(
            """INSERT INTO chunks (tenant_id, job_id, run, number, transcript_version, text, content, heard, dictionary,
                   hash, speakers, recognizers, utterances, alternatives, created_at)
               SELECT t, j, 1, n, 1, x, x, '', 'simple', h, '["A"]', '["a"]', '[]', '[]', now()
               FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[]) AS r (t, j, n, x, h)""",
            *columns,
        )
        rounded = np.round(vectors, 4)
        texts_of_vectors = [orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode() for vector in rounded]
        await db.execute(
            """INSERT INTO chunk_vectors (tenant_id, job_id, run, generation, hash, embedding)
               SELECT t, j, 1, 1, h, v::halfvec FROM
                   unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS r (t, j, h, v)""",
            columns[0],
            columns[1],
            columns[4],
            texts_of_vectors,
        )


async def timed(asked: Sequence[Any], search: Callable[[Any], Awaitable[list[Match]]]) -> tuple[list[list[Match]], str]:
    """What is found for each, and the times: the median and the 95th percentile."""
    found, times = [], []
    for one in asked:
        began = time.perf_counter()
        found.append(await search(one))
        times.append(1000 * (time.perf_counter() - began))
    return found, f"{statistics.median(times):.0f} / {statistics.quantiles(times, n=20)[-1]:.0f}"


def recall(found: Sequence[list[Match]], exact: Sequence[list[Match]]) -> float:
    """The share of the ten nearest that are found."""
    shares = [
        len({m.key for m in one[:10]} & {m.key for m in all_of[:10]}) / 10
        for one, all_of in zip(found, exact, strict=True)
    ]
    return sum(shares) / len(shares)


async def measured(pool: Any, made: Made) -> list[str]:
    """A line of the table for each tenant and kind of search."""
    search, generation = PostgresSearch(Reader(pool)), Generation(1, "m", DIMENSIONS, "serving")
    few, lines = reads.FEW, []
    vectors = made.vectors(QUESTIONS)
    choice = random.Random(7)
    questions = [
        [Term(f"wort{int(WORDS ** choice.random())}", weight=n + 1) for n in range(4)] for _ in range(QUESTIONS)
    ]
    for tenant in ("large", "small"):
        found, times = await timed(vectors, lambda v, t=tenant: search.nearest(t, generation, v, limit=100))
        reads.FEW = 10**9
        exact = [await search.nearest(tenant, generation, v, limit=10) for v in vectors[:40]]
        reads.FEW = few
        lines.append(f"| vectors | {tenant} | {times} | {recall(found[:40], exact):.3f} |")
        _, times = await timed(questions, lambda q, t=tenant: _matches(search, t, q))
        lines.append(f"| words | {tenant} | {times} | |")
    return lines


async def _matches(search: PostgresSearch, tenant: str, terms: Sequence[Term]) -> list[Match]:
    return (await search.matching_words(tenant, terms, limit=100)).matches


async def run(passages: int, report: Path | None) -> None:
    """Fill, build, measure."""
    with tempfile.TemporaryDirectory(prefix="concord-bench-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder))
        await server.start()
        try:
            dsn = await server.create_database("search")
            await migrate(dsn)
            db = await asyncpg.connect(dsn)
            await db.execute(
                "SET maintenance_work_mem = '2GB'; SET synchronous_commit = off; SELECT begin_generation('m', 384)"
            )
            await db.execute("DROP INDEX chunk_vectors_g1")
            made, began = Made(), time.perf_counter()
            await fill(db, made, passages)
            filled = time.perf_counter()
            await db.execute("SELECT index_generation(1)")
            built = time.perf_counter()
            await db.execute("VACUUM ANALYZE chunks, chunk_vectors")
            size = await db.fetchval("SELECT pg_size_pretty(pg_relation_size('chunk_vectors_g1'))")
            pool = await connect_pool(dsn)
            lines = await measured(pool, made)
            await pool.close()
            await db.close()
            took = f"Written in {filled - began:.0f} s; the HNSW index built in {built - filled:.0f} s, {size}."
            asked = (
                f"{passages:,} passages of {DIMENSIONS} dimensions, {QUESTIONS} questions of each kind, one at a time."
            )
            head = "| searched by | tenant | ms, median / p95 | recall@10 against comparing all |"
            text = "\n".join([asked, took, "", head, "| --- | --- | --- | --- |", *lines])
            print(text)
            if report is not None:
                report.write_text(f"# Search among many passages\n\n{text}\n")
        finally:
            server.kill()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--report", type=Path, help="a file for the table")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.passages, arguments.report))


if __name__ == "__main__":
    main()
