"""The checks of the search index: whether its model can be used here and vectors be kept, which model serves, and what
waits for its vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from agents.commands.checks.finding import Finding
from agents.fleet.search.serving import open_embedder
from schemas.errors import SettingsError
from sinks.postgres.sql.queries import SQL

if TYPE_CHECKING:
    from agents.fleet.settings import Settings

_SUBJECT: Final = "search"

_WAITING: Final = """
SELECT count(*) AS runs, min(error) AS error FROM embedding_work
WHERE generation IN (SELECT generation FROM embedding_models WHERE state <> 'retired')"""


async def embedding_model(settings: Settings) -> list[Finding]:
    """Whether the model for meanings can be used on this machine, without which no worker of `index` starts; it is not
    called, because that is billed.
    """
    model = settings.embeddings_model
    if model is None:
        return [Finding("embedding model", "ok", "not configured: transcripts are found by words alone")]
    subject = f"embedding model {model}"
    try:
        await open_embedder(model, settings).close()
    except SettingsError as exc:
        return [Finding(subject, "fail", "cannot be used here, and no worker of `index` starts", str(exc))]
    if "index" not in settings.enrichments:
        advice = "add `index` to CONCORD_ENRICHMENTS, or unset EMBEDDINGS_MODEL"
        return [Finding(subject, "warn", "makes no vectors: transcripts are not indexed", advice)]
    return [Finding(subject, "ok", "can be used (it was not called)")]


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
