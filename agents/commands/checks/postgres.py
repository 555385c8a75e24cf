"""What `concord doctor` finds out about PostgreSQL: reachable, let in, with our roles, our schema and our time."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from agents.commands.checks.finding import CLOCK_S, CONNECT_S, Finding, stale
from agents.fleet.gauges import OVERDUE_S
from schemas.errors import ConcordError
from sinks.ports.outbox import Overdue
from sinks.postgres.connection.connect import POOLER, acts_as, connect, problem, worker_session
from sinks.postgres.migrate import migrations
from sinks.postgres.sql.queries import SQL

if TYPE_CHECKING:
    from agents.fleet.settings import Settings

#: Seconds within which a notification from one session must be with another.
HEARD_S = 2.0


async def postgres(settings: Settings, *, remembered: bool) -> list[Finding]:
    if settings.database_url is None:
        return [Finding("PostgreSQL", "ok", "none configured: `concord up` and `concord demo` start the embedded one")]
    dsn = settings.database_url.get_secret_value()
    what = f"PostgreSQL {_place(dsn)}"
    try:
        db = await asyncpg.connect(dsn, timeout=CONNECT_S)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
        found = problem(exc)
        finding = Finding(what, "fail", found.text, found.advice)
        return [stale(finding) if remembered and isinstance(exc, OSError) else finding]
    try:
        login = await db.fetchval("SELECT session_user")
        ok = Finding(what, "ok", f"PostgreSQL {db.get_server_version().major}, login as {login}")
        roles = await _roles(db)
        return [
            ok,
            roles,
            *(await _sessions(dsn) if roles.level == "ok" else []),
            await _migrated(db),
            await _clock(db),
            *await _outbox(db),
        ]
    finally:
        await db.close(timeout=CONNECT_S)


def _place(dsn: str) -> str:
    """Where a DSN leads, without its login."""
    try:
        parts = urlsplit(dsn)
        return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return ""


_ROLES = """
SELECT ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1)) AS there,
       ARRAY(SELECT rolname::text FROM pg_roles
             WHERE rolname = ANY($1) AND pg_has_role(session_user, oid, 'MEMBER')) AS ours,
       (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = session_user) AS may_make,
       has_database_privilege(current_database(), 'CREATE') AND has_schema_privilege('public', 'CREATE') AS may_create
"""


async def _roles(db: Any) -> Finding:
    """Stages act as `concord_worker`, HTTP as `concord_tenant`: row-level security stands on them."""
    wanted = ["concord_tenant", "concord_worker"]
    row = await db.fetchrow(_ROLES, wanted)
    missing = sorted(set(wanted) - set(row["there"]))
    if missing and not (row["may_make"] and row["may_create"]):
        advice = "let a superuser run `concord migrate` once, or give this login CREATEROLE and CREATE on the database"
        return Finding("PostgreSQL roles", "fail", f"no {', '.join(missing)}, and this login may not make them", advice)
    if missing:
        return Finding(
            "PostgreSQL roles",
            "warn",
            f"no {', '.join(missing)} yet",
            "`concord migrate`, or the first worker, makes them",
        )
    if len(row["ours"]) < len(wanted):
        grant = f"GRANT {', '.join(wanted)} TO this login"
        return Finding("PostgreSQL roles", "fail", "this login may not act as concord_worker and concord_tenant", grant)
    return Finding("PostgreSQL roles", "ok", "concord_worker and concord_tenant can be acted as")


async def _sessions(dsn: str) -> list[Finding]:
    """Connect as workers do, and see whether sessions stay with who opened them: workers listen and hold locks."""
    what = "PostgreSQL sessions"
    try:
        async with contextlib.AsyncExitStack() as stack:
            for role in ("concord_worker", "concord_tenant"):
                session = await connect(dsn, worker_session(role), timeout_s=CONNECT_S)
                stack.push_async_callback(session.close, timeout=CONNECT_S)
                await acts_as(session, role)
            other = await connect(dsn, worker_session("concord_worker"), timeout_s=CONNECT_S)
            stack.push_async_callback(other.close, timeout=CONNECT_S)
            shared = await _shared(session, other)
    except ConcordError as exc:
        text, _, advice = str(exc).partition(" What to do: ")
        return [Finding(what, "fail", text.removeprefix("PostgreSQL: "), advice)]
    if shared:
        return [Finding(what, "fail", f"{shared}: a connection pooler is between that lends out sessions", POOLER)]
    return [Finding(what, "ok", "act as concord_worker and concord_tenant, listen, and keep their locks")]


async def _shared(one: Any, other: Any) -> str:
    """What goes wrong when two connections are not two sessions; empty if they are."""
    heard = asyncio.Event()
    channel, lock = f"concord_doctor_{uuid4().hex}", secrets.randbits(31)
    await one.add_listener(channel, lambda *_: heard.set())
    await one.fetchval("SELECT pg_advisory_lock($1)", lock)
    if await other.fetchval("SELECT pg_try_advisory_lock($1)", lock):
        return "two connections hold the same lock"
    await other.execute("SELECT pg_notify($1, '')", channel)
    try:
        async with asyncio.timeout(HEARD_S):
            await heard.wait()
    except TimeoutError:
        return f"a notification did not arrive within {HEARD_S:.0f} s"
    return ""


async def _migrated(db: Any) -> Finding:
    what = "PostgreSQL schema"
    ours = {name: hashlib.sha256(sql.encode()).hexdigest() for name, sql in migrations()}
    try:
        there = {row["name"]: row["sha256"] for row in await db.fetch("SELECT name, sha256 FROM migrations")}
    except asyncpg.UndefinedTableError:
        return Finding(
            what, "warn", "empty: Concord was never here", "`concord migrate`, or the first worker, makes it"
        )
    except asyncpg.InsufficientPrivilegeError:
        return Finding(
            what, "warn", "this login may not read the table migrations", "check with the login that migrates"
        )
    changed = [name for name, digest in there.items() if ours.get(name, digest) != digest]
    if changed:
        return Finding(
            what, "fail", f"{changed[0]} was applied with another text", "is this another Concord's database?"
        )
    if newer := sorted(set(there) - set(ours)):
        return Finding(what, "fail", f"is newer than this program ({newer[-1]})", "update Concord here")
    if missing := sorted(set(ours) - set(there)):
        return Finding(
            what,
            "warn",
            f"{len(missing)} to apply: {', '.join(missing)}",
            "`concord migrate`, or the next worker, does it",
        )
    return Finding(what, "ok", f"up to date ({max(ours)})")


async def _outbox(db: Any) -> list[Finding]:
    """Whether what is due is published, and what Kafka has refused."""
    try:
        late = [Overdue(**row) for row in await db.fetch(SQL["overdue"], OVERDUE_S)]
        refused = await db.fetch(SQL["count_refused"])
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError):
        return []  # told by others: an older schema, another login
    found = [
        Finding(f"outbox {one.shard} {one.topic}", "fail", str(one), "see the relay's log, and what is said of Kafka")
        for one in late
    ]
    found += [
        Finding(
            f"outbox {row['topic']}", "warn", f"{row['rows']} set aside: Kafka refuses them", "`concord outbox list`"
        )
        for row in refused
    ]
    return found or [Finding("outbox", "ok", f"nothing is due for more than {OVERDUE_S:.0f} s, nothing was refused")]


async def _clock(db: Any) -> Finding:
    """The database's clock counts for retries and leases; ours is in logs and in what producers say."""
    before = datetime.now(UTC)
    there: datetime = await db.fetchval("SELECT clock_timestamp()")
    now = datetime.now(UTC)
    apart = (there - before - (now - before) / 2).total_seconds()
    said = f"the database's is {abs(apart):.3f} s {'ahead' if apart > 0 else 'behind'}"
    if abs(apart) > CLOCK_S:
        return Finding("clock", "warn", said, "let both follow NTP: times in logs and events will not fit together")
    return Finding("clock", "ok", said)
