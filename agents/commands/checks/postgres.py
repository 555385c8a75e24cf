"""Checks of PostgreSQL: connection, login, roles, sessions, schema, clock and outbox."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from agents.commands.checks.finding import CLOCK_S, CONNECT_S, Finding, stale
from agents.commands.checks.search import search
from agents.fleet.gauges import OVERDUE_S
from schemas.errors import ConcordError
from sinks.ports.outbox import Overdue
from sinks.postgres.connection.connect import POOLER, acts_as, connect, problem, worker_session
from sinks.postgres.migrate import applied_digest, migrations
from sinks.postgres.sql.queries import SQL

if TYPE_CHECKING:
    from agents.fleet.settings import Settings

#: Seconds within which a notification from one session must reach another.
NOTIFY_S = 2.0


async def postgres(settings: Settings, *, remembered: bool) -> list[Finding]:
    """All checks of PostgreSQL. `remembered`: its address was left by an earlier `concord up`.

    Raises asyncpg's errors when PostgreSQL fails between two checks.
    """
    if settings.database_url is None:
        return [Finding("PostgreSQL", "ok", "none configured: `concord up` and `concord demo` start the embedded one")]
    dsn = settings.database_url.get_secret_value()
    subject = f"PostgreSQL {_address(dsn)}"
    try:
        db = await asyncpg.connect(dsn, timeout=CONNECT_S)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
        cause = problem(exc)
        finding = Finding(subject, "fail", cause.text, cause.advice)
        return [stale(finding) if remembered and isinstance(exc, OSError) else finding]
    try:
        login = await db.fetchval("SELECT session_user")
        connection = Finding(subject, "ok", f"PostgreSQL {db.get_server_version().major}, login as {login}")
        roles = await _roles(db)
        return [
            connection,
            roles,
            *(await _sessions(dsn) if roles.level == "ok" else []),
            await _schema(db),
            await _clock(db),
            *await _outbox(db),
            *await search(db, settings),
        ]
    finally:
        await db.close(timeout=CONNECT_S)


def _address(dsn: str) -> str:
    """Host, port and database of a DSN, without its login."""
    try:
        parts = urlsplit(dsn)
        return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return ""


#: The roles that connections act as.
ROLES: Final = ("concord_worker", "concord_tenant", "concord_writer")
_NAMED: Final = f"{', '.join(ROLES[:-1])} and {ROLES[-1]}"

_ROLES = """
SELECT ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1)) AS existing,
       ARRAY(SELECT rolname::text FROM pg_roles
             WHERE rolname = ANY($1) AND pg_has_role(session_user, oid, 'MEMBER')) AS granted,
       (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = session_user) AS may_create_roles,
       has_database_privilege(current_database(), 'CREATE') AND has_schema_privilege('public', 'CREATE') AS may_create
"""


async def _roles(db: Any) -> Finding:
    """Whether all roles can be used: stages act as `concord_worker`, HTTP reads as `concord_tenant` and writes as
    `concord_writer`; row-level security depends on them.
    """
    subject, roles = "PostgreSQL roles", sorted(ROLES)
    row = await db.fetchrow(_ROLES, roles)
    missing = sorted(set(roles) - set(row["existing"]))
    if missing and not (row["may_create_roles"] and row["may_create"]):
        advice = "let a superuser run `concord migrate` once, or give this login CREATEROLE and CREATE on the database"
        return Finding(subject, "fail", f"no {', '.join(missing)}, and this login may not create them", advice)
    if missing:
        advice = "`concord migrate`, or the first worker, creates them"
        return Finding(subject, "warn", f"no {', '.join(missing)} yet", advice)
    if len(row["granted"]) < len(roles):
        grant = f"GRANT {', '.join(roles)} TO this login"
        return Finding(subject, "fail", f"this login may not act as {_NAMED}", grant)
    return Finding(subject, "ok", f"this login may act as {_NAMED}")


async def _sessions(dsn: str) -> list[Finding]:
    """Whether each connection has a session of its own: workers listen for notifications and hold advisory locks."""
    subject = "PostgreSQL sessions"
    try:
        async with contextlib.AsyncExitStack() as stack:
            for role in ROLES:
                session = await connect(dsn, worker_session(role), timeout_s=CONNECT_S)
                stack.push_async_callback(session.close, timeout=CONNECT_S)
                await acts_as(session, role)
            other = await connect(dsn, worker_session("concord_worker"), timeout_s=CONNECT_S)
            stack.push_async_callback(other.close, timeout=CONNECT_S)
            symptom = await _pooler_symptom(session, other)
    except ConcordError as exc:
        text, _, advice = str(exc).partition(" What to do: ")
        return [Finding(subject, "fail", text.removeprefix("PostgreSQL: "), advice)]
    if symptom:
        return [Finding(subject, "fail", f"{symptom}: a connection pooler in between shares sessions", POOLER)]
    return [Finding(subject, "ok", f"act as {_NAMED}, listen, and keep their locks")]


async def _pooler_symptom(one: Any, other: Any) -> str:
    """How two connections behave that are not two sessions; empty if they are."""
    notified = asyncio.Event()
    channel, lock = f"concord_doctor_{uuid4().hex}", secrets.randbits(31)
    await one.add_listener(channel, lambda *_: notified.set())
    await one.fetchval("SELECT pg_advisory_lock($1)", lock)
    if await other.fetchval("SELECT pg_try_advisory_lock($1)", lock):
        return "two connections hold the same lock"
    await other.execute("SELECT pg_notify($1, '')", channel)
    try:
        async with asyncio.timeout(NOTIFY_S):
            await notified.wait()
    except TimeoutError:
        return f"a notification did not arrive within {NOTIFY_S:.0f} s"
    return ""


async def _schema(db: Any) -> Finding:
    subject = "PostgreSQL schema"
    known = {name: hashlib.sha256(sql.encode()).hexdigest() for name, sql in migrations()}
    try:
        rows = await db.fetch("SELECT name, sha256 FROM migrations")
    except asyncpg.UndefinedTableError:
        advice = "`concord migrate`, or the first worker, creates it"
        return Finding(subject, "warn", "empty: Concord's tables do not exist yet", advice)
    except asyncpg.InsufficientPrivilegeError:
        advice = "check with the login that migrates"
        return Finding(subject, "warn", "this login may not read the table migrations", advice)
    applied = {row["name"]: applied_digest(row["sha256"]) for row in rows}
    changed = [name for name, digest in applied.items() if known.get(name, digest) != digest]
    if changed:
        result = f"{changed[0]} was applied with another text"
        return Finding(subject, "fail", result, "is this another Concord's database?")
    if newer := sorted(set(applied) - set(known)):
        return Finding(subject, "fail", f"is newer than this program ({newer[-1]})", "update Concord here")
    if missing := sorted(set(known) - set(applied)):
        result = f"{len(missing)} to apply: {', '.join(missing)}"
        return Finding(subject, "warn", result, "`concord migrate`, or the next worker, applies them")
    return Finding(subject, "ok", f"up to date ({max(known)})")


async def _outbox(db: Any) -> list[Finding]:
    """Which outbox rows are overdue, and which Kafka has refused for good."""
    try:
        overdue = [Overdue(**row) for row in await db.fetch(SQL["overdue"], OVERDUE_S)]
        refused = await db.fetch(SQL["count_refused"])
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError):
        return []  # the checks of schema and roles report the cause
    advice = "see the relay's log, and the findings about Kafka"
    findings = [Finding(f"outbox {rows.shard} {rows.topic}", "fail", str(rows), advice) for rows in overdue]
    for row in refused:
        result = f"{row['rows']} set aside: Kafka refuses them"
        findings.append(Finding(f"outbox {row['topic']}", "warn", result, "`concord outbox list`"))
    return findings or [Finding("outbox", "ok", f"nothing is due for more than {OVERDUE_S:.0f} s, nothing was refused")]


async def _clock(db: Any) -> Finding:
    """Compare the database's clock, which times retries and leases, with this machine's, which is in logs."""
    before = datetime.now(UTC)
    database_time: datetime = await db.fetchval("SELECT clock_timestamp()")
    after = datetime.now(UTC)
    difference_s = (database_time - before - (after - before) / 2).total_seconds()
    result = f"the database's is {abs(difference_s):.3f} s {'ahead' if difference_s > 0 else 'behind'}"
    if abs(difference_s) > CLOCK_S:
        advice = "synchronise both by NTP: otherwise times in logs and events do not match"
        return Finding("clock", "warn", result, advice)
    return Finding("clock", "ok", result)
