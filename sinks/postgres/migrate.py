"""Migrations: numbered SQL files, each applied once, all under one lock."""

from __future__ import annotations

import hashlib
import logging
from importlib.resources import files
from typing import Final

import asyncpg

from schemas.errors import SettingsError
from sinks.postgres.connection.connect import HUNG_S, connect
from sinks.postgres.connection.errors import unavailable

log = logging.getLogger(__name__)


#: By sha256, other texts of a migration that a version applied, and the text that it has: the same statements, only a
#: comment differs. (On 2026-11-30 a moved path was rewritten in the first one.)
_SAME_STATEMENTS: Final = {
    "7b3a936177434b5a9f934fdd50b3cf43c24229c729231517c8cb4c3cf2136c4b": (
        "8c2f2e2906f70eda8e8292c38d68b477d054b9c50e7182603df4fb63f70759bd"
    )
}


def applied_digest(sha256: str) -> str:
    """The sha256 of the text that a migration has, from the one under which a database applied it."""
    return _SAME_STATEMENTS.get(sha256, sha256)


def migrations() -> list[tuple[str, str]]:
    """(name, SQL) of every migration, in order."""
    folder = files("sinks.postgres").joinpath("migrations")
    return sorted((f.name.removesuffix(".sql"), f.read_text()) for f in folder.iterdir() if f.name.endswith(".sql"))


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing; the names of what was applied. Safe to call from many workers at once.

    Raises:
        SettingsError: a migration that was applied earlier has another text now, or the login may not do this.
        Unavailable: the database does not answer.
    """
    with unavailable():
        return await _migrate(dsn)


async def _migrate(dsn: str) -> list[str]:
    # A process that hangs while it holds the lock must not keep every other worker from starting. But a large table
    # takes its time, whatever timeout an operator sets for other statements.
    session = {
        "idle_in_transaction_session_timeout": f"{HUNG_S}s",
        "lock_timeout": "0",
        "statement_timeout": "0",
    }
    connection = await connect(dsn, session, timeout_s=15, command_timeout_s=None)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('concord migrations'))")
            applied = await _apply(connection)
            if not await connection.fetchval("SELECT use_pgvector()"):
                log.info("PostgreSQL has no pgvector: transcripts are found by their words alone")
            return applied
    except asyncpg.InsufficientPrivilegeError as exc:
        raise SettingsError(
            f"the login of DATABASE_URL may not migrate: {exc}. It needs CREATE and CREATEROLE."
        ) from exc
    finally:
        await connection.close(timeout=5)


async def _apply(connection: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations "
        "(name text PRIMARY KEY, sha256 text NOT NULL, at timestamptz NOT NULL DEFAULT now())"
    )
    rows = await connection.fetch("SELECT name, sha256 FROM migrations")
    applied_before = {row["name"]: applied_digest(row["sha256"]) for row in rows}
    applied = []
    for name, sql in migrations():
        digest = hashlib.sha256(sql.encode()).hexdigest()
        if name not in applied_before:
            log.info("applying migration %s", name)
            await connection.execute(sql)
            await connection.execute("INSERT INTO migrations (name, sha256) VALUES ($1, $2)", name, digest)
            applied.append(name)
        elif applied_before[name] != digest:
            raise SettingsError(
                f"migration {name} was applied with another text; a migration never changes, add a new one"
            )
    return applied
