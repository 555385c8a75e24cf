"""Connecting to PostgreSQL: the role, the session settings, and what it means when no connection is made.

Workers, migrations and `concord doctor` connect through here, so that what the doctor calls fine is what workers do.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from schemas.errors import Misconfigured, Unavailable
from sinks.postgres.connection.errors import AWAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The migration from which on the database refuses workers that do not know it.
SCHEMA = "0006"

#: Seconds without a statement after which an open transaction is ended: a process that hangs in one must not keep its
#: locks, for which others wait.
HUNG_S = 10

#: Seconds for which a statement waits for a lock. Longer than any of our own transactions takes, and short enough that
#: a row which an operator locks for an hour does not keep other rows' steps waiting; whatever an operator sets as
#: `lock_timeout` for the database or the role, this holds here.
LOCK_S = 3

#: Seconds after which the server ends a statement of ours, should the driver that gives up before be gone.
STATEMENT_S = 20


def worker_session(role: str) -> dict[str, str]:
    """The settings of a session that acts as `role`, sent with its first message: they cost no round trip."""
    return {
        "role": role,
        "application_name": "concord",
        "timezone": "UTC",
        "jit": "off",
        "concord.schema": SCHEMA,
        "idle_in_transaction_session_timeout": f"{HUNG_S}s",
        "lock_timeout": f"{LOCK_S}s",
        "statement_timeout": f"{STATEMENT_S}s",
    }


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there is no connection, in the server's words where it said any."""

    text: str
    advice: str
    #: Waiting does not help: the settings are wrong, or what lies between the worker and the server.
    final: bool = False


#: What to do about a pooler between us and the server.
POOLER = (
    "let DATABASE_URL name PostgreSQL itself: workers set a role and timeouts for their sessions, listen, and hold "
    "locks, which a pooler does not pass on"
)
_WRITE = "write postgresql://user:password@host:port/database"


def problem(exc: BaseException) -> Problem:
    """What an error of connecting means. Nothing in the text repeats DATABASE_URL's password."""
    match exc:
        case ConnectionRefusedError():
            return Problem("refused: nothing listens there", "start PostgreSQL, or correct DATABASE_URL's port")
        case socket.gaierror():
            return Problem(f"unknown host ({exc.strerror})", "correct the host in DATABASE_URL")
        case FileNotFoundError() | PermissionError() | IsADirectoryError():
            text = f"a certificate file cannot be read ({exc.strerror})"
            return Problem(text, "correct sslrootcert, sslcert or sslkey in DATABASE_URL", final=True)
        case TimeoutError():
            return Problem(
                "timed out: no answer", "is it PostgreSQL, is it overloaded, does a firewall swallow packets?"
            )
        case ssl.SSLError():
            return Problem(f"TLS failed ({exc.reason or exc})", "correct sslmode in DATABASE_URL", final=True)
        case ConnectionError() if "rejected SSL upgrade" in str(exc):
            return Problem(
                "the server has no TLS, and sslmode demands it",
                "turn `ssl` on there, or remove sslmode from DATABASE_URL where the network is trusted",
                final=True,
            )
        case asyncpg.ClientConfigurationError() if str(exc).startswith(("`sslmode`", "root certificate", "`ssl")):
            return Problem(str(exc).splitlines()[0], "correct it in DATABASE_URL", final=True)
        case ValueError() | asyncpg.ClientConfigurationError():
            return Problem("DATABASE_URL cannot be read", _WRITE, final=True)  # the message may repeat the password
        case asyncpg.PostgresError():
            return _refusal(exc)
        case _:
            return Problem(f"{type(exc).__name__}: {exc}", "look at PostgreSQL's log")


def _refusal(exc: asyncpg.PostgresError) -> Problem:
    """What the server refuses, by its SQLSTATE."""
    text = str(exc).splitlines()[0]
    match getattr(exc, "sqlstate", None):
        case "08P01" if "startup parameter" in text:  # PgBouncer, by default, for all but a few settings
            return Problem(f"a connection pooler refuses what workers need: {text}", POOLER, final=True)
        case "42704":
            advice = "remove it from DATABASE_URL: neither the driver (asyncpg) nor the server knows it"
            if "channel_binding" in text:
                advice = "remove it from DATABASE_URL: the driver (asyncpg) has no channel binding; sslmode=verify-full"
                advice += " also makes sure whom it talks to"
            return Problem(text, advice, final=True)
        case "28P01":
            return Problem(f"authentication failed: wrong password ({text})", "correct the password in DATABASE_URL")
        case "28000":
            return Problem(
                f"authentication failed: {text}", "correct the user in DATABASE_URL, or the server's pg_hba.conf"
            )
        case "3D000":
            return Problem(text, "create the database, or correct DATABASE_URL")
        case "53300":
            return Problem(text, "raise max_connections, or stop what holds them")
        case "22023" if text.startswith("role "):
            return Problem(text, "`concord migrate` makes the roles, and the first worker does")
        case "42501":
            return Problem(text, "GRANT concord_worker, concord_tenant, concord_writer TO this login")
        case state:
            return Problem(f"{text} ({state})", "look at PostgreSQL's log")


_FAILED: tuple[type[BaseException], ...] = (*AWAY, ValueError, ssl.SSLError, asyncpg.PostgresError)


@contextlib.contextmanager
def connecting() -> Iterator[None]:
    """Translate errors of connecting, with the server's words.

    Raises:
        Unavailable: waiting may help.
        Misconfigured: waiting does not help.
    """
    try:
        yield
    except _FAILED as exc:
        reason = problem(exc)
        kind = Misconfigured if reason.final else Unavailable
        raise kind(f"PostgreSQL: {reason.text}. What to do: {reason.advice}") from exc


async def acts_as(connection: Any, role: str) -> None:
    """Check that the session has the role that was asked for: a pooler that drops settings would leave the
    login's rights, under which row-level security may not hold.

    Raises Misconfigured.
    """
    current = await connection.fetchval("SELECT current_user")
    if current != role:
        raise Misconfigured(f"PostgreSQL: the session acts as {current}, not as {role}. What to do: {POOLER}")


async def connect(
    dsn: str, settings: Mapping[str, str], *, timeout_s: float = 10.0, command_timeout_s: float | None = 20.0
) -> Any:
    """One connection with these session settings.

    Raises Unavailable or Misconfigured, as `connecting` does.
    """
    with connecting():
        return await asyncpg.connect(
            dsn, timeout=timeout_s, command_timeout=command_timeout_s, server_settings=dict(settings)
        )
