"""What `concord doctor` finds out about PostgreSQL: reachable, let in, with our roles, our schema and our time."""

from __future__ import annotations

import hashlib
import socket
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg

from agents.commands.finding import CONNECT_S, Finding, stale
from sinks.migrate import migrations

if TYPE_CHECKING:
    from agents.settings import Settings

#: Seconds by which our clock may differ from the database's before it is worth a word.
CLOCK_S = 2.0


async def postgres(settings: Settings, *, remembered: bool) -> list[Finding]:
    if settings.database_url is None:
        return [Finding("PostgreSQL", "ok", "none configured: `concord up` and `concord demo` start the embedded one")]
    dsn = settings.database_url.get_secret_value()
    what = f"PostgreSQL {_place(dsn)}"
    try:
        db = await asyncpg.connect(dsn, timeout=CONNECT_S)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
        finding = Finding(what, "fail", *trouble(exc))
        return [stale(finding) if remembered and isinstance(exc, OSError) else finding]
    try:
        ok = Finding(
            what,
            "ok",
            f"PostgreSQL {db.get_server_version().major}, login as {await db.fetchval('SELECT session_user')}",
        )
        return [ok, await _roles(db), await _migrated(db), await _clock(db)]
    finally:
        await db.close(timeout=CONNECT_S)


def _place(dsn: str) -> str:
    """Where a DSN leads, without its login."""
    try:
        parts = urlsplit(dsn)
        return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return ""


def trouble(exc: BaseException) -> tuple[str, str]:
    match exc:
        case ConnectionRefusedError():
            return (
                "refused: nothing listens there",
                "start PostgreSQL (`concord up` starts one), or correct DATABASE_URL's port",
            )
        case socket.gaierror():
            return f"unknown host ({exc.strerror})", "correct the host in DATABASE_URL"
        case TimeoutError():
            return (
                f"timed out: no answer in {CONNECT_S:.0f} s",
                "is it PostgreSQL, is it overloaded, does a firewall swallow packets?",
            )
        case asyncpg.InvalidPasswordError():
            return "authentication failed: wrong password", "correct the password in DATABASE_URL"
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"authentication failed: {exc}", "correct the user in DATABASE_URL, or the server's pg_hba.conf"
        case asyncpg.InvalidCatalogNameError():
            return str(exc), "create the database, or correct DATABASE_URL"
        case asyncpg.TooManyConnectionsError():
            return str(exc), "raise max_connections, or stop what holds them"
        case ssl.SSLError():
            return f"TLS failed ({exc.reason or exc})", "correct sslmode in DATABASE_URL"
        case ValueError() | asyncpg.ClientConfigurationError():
            # Its message may repeat the DSN, password and all.
            return "DATABASE_URL cannot be read", "write postgresql://user:password@host:port/database"
        case _:
            return f"{type(exc).__name__}: {exc}", "look at PostgreSQL's log"


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
