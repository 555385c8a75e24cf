"""The check of the search index: whether vectors can be kept, which model serves, and what waits for its vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from agents.commands.checks.finding import Finding
from sinks.postgres.sql.queries import SQL

if TYPE_CHECKING:
    from agents.fleet.settings import Settings

_SUBJECT: Final = "search"

_WAITING: Final = """
SELECT count(*) AS runs, min(error) AS error FROM embedding_work
WHERE generation IN (SELECT generation FROM embedding_models WHERE state <> 'retired')"""


async def search(db: Any, settings: Settings) -> list[Finding]:
    """Whether transcripts are found by their words alone, and why; none if the tables do not exist yet."""
    try:
        has_vectors = await db.fetchval(SQL["vectors_possible"])
        generations = {row["state"]: row["model"] for row in await db.fetch(SQL["read_generations"])}
        waiting = await db.fetchrow(_WAITING)
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        return []  # the checks of schema and roles report the cause
    if settings.embeddings_model is None:
        return [Finding(_SUBJECT, "ok", "by words alone: EMBEDDINGS_MODEL names no model for meanings")]
    if not has_vectors:
        advice = "install pgvector 0.7 or newer there, and `CREATE EXTENSION vector` if this login may not"
        return [Finding(_SUBJECT, "warn", "by words alone: PostgreSQL has no pgvector", advice)]
    serving = generations.get("serving")
    result = f"by words, and by meaning with {serving}" if serving else "by words; no vectors are made yet"
    if building := generations.get("building"):
        result += f", until the vectors of {building} are complete"
    if waiting["runs"]:
        result += f"; {waiting['runs']} transcripts wait for vectors"
    if waiting["error"]:
        return [Finding(_SUBJECT, "warn", f"{result} ({waiting['error']})", "they are tried again by themselves")]
    return [Finding(_SUBJECT, "ok", result)]
