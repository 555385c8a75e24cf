"""What an error of PostgreSQL means for a step, by SQLSTATE: the one place where that is decided.

Waiting is the default. A job that fails because of a state of the server (a lock, a failover, a migration, a release
with a broken statement) is lost for its user; one that waits continues by itself when that state ends, and how long the
oldest step has waited is a metric. So only errors about the values themselves are final.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import Enum
from typing import Final

import asyncpg
from asyncpg import exceptions

from schemas.calls.time_limit import not_counted
from schemas.errors import Contended, StorageRefused, Unavailable


class Verdict(Enum):
    """What to do with a step that ended in an error of PostgreSQL."""

    AWAY = "the server, or the way to it, is not there at the moment: wait"
    CONTENDED = "others are at the same rows, or it takes too long in this batch: wait, and let other steps go on"
    MISFIT = "our statements and this schema, or our rights on it, do not fit: wait for a migration or another release"
    REFUSED = "these values will never be stored: the step's job ends"


_AWAY, _CONTENDED, _MISFIT, _REFUSED = Verdict

#: By SQLSTATE; where a code is not listed, its class (the first two characters) decides.
BY_STATE: Final[dict[str, Verdict]] = {
    "22023": _AWAY,  # invalid_parameter_value: role "concord_worker" does not exist (yet), said at connecting
    "23502": _MISFIT,  # not_null_violation: a newer schema has a column that this worker does not know
    "40001": _CONTENDED,  # serialization_failure
    "40P01": _CONTENDED,  # deadlock_detected
    "42501": _AWAY,  # insufficient_privilege: a restore grants last
    "42P05": _AWAY,  # duplicate_prepared_statement: a pooler gave us another's connection
    "55P03": _CONTENDED,  # lock_not_available: lock_timeout
    "57014": _CONTENDED,  # query_canceled: statement_timeout; a smaller batch may fit into it
}

BY_CLASS: Final[dict[str, Verdict]] = {
    "00": _MISFIT, "01": _MISFIT, "02": _MISFIT, "03": _MISFIT,  # success, warnings, no data, not complete: no errors
    "08": _AWAY,  # connection exceptions
    "09": _REFUSED,  # a trigger's action failed
    "0A": _MISFIT,  # feature not supported (a cached plan that became invalid has a class of its own, below)
    "0B": _MISFIT, "0F": _MISFIT, "0L": _MISFIT, "0Z": _MISFIT,
    "0P": _AWAY,  # invalid role: dropped, or not restored yet
    "10": _MISFIT, "20": _MISFIT,
    "21": _REFUSED,  # cardinality: one row twice in a statement
    "22": _REFUSED,  # data exceptions: NUL, numbers out of range, invalid text
    "23": _REFUSED,  # constraints
    "24": _MISFIT,
    "25": _AWAY,  # transaction state: read-only after a failover, timeouts of idle transactions, poolers
    "26": _AWAY,  # a prepared statement that a pooler's other connection does not know
    "27": _REFUSED,  # triggered data change
    "28": _AWAY,  # the login is refused: a password is being changed, a restore goes on
    "2B": _MISFIT, "2D": _MISFIT,
    "2F": _REFUSED,  # a routine of the operator's (trigger) failed
    "34": _MISFIT,
    "38": _REFUSED, "39": _REFUSED,  # external routines, as 2F
    "3B": _MISFIT,
    "3D": _AWAY,  # the database is not there: dropped, being restored
    "3F": _AWAY,  # nor the schema
    "40": _CONTENDED,  # transaction rolled back
    "42": _MISFIT,  # syntax and access: tables, columns, functions, conflict targets that are not there (any more, yet)
    "44": _REFUSED,  # a view's check option
    "53": _AWAY,  # disk full, out of memory, too many connections
    "54": _REFUSED,  # program limits: row or index entry too large
    "55": _AWAY,  # not in the prerequisite state
    "57": _AWAY,  # operator intervention: shutdown, crash, starting up, dropped database
    "58": _AWAY,  # system errors outside PostgreSQL: I/O, missing files
    "72": _CONTENDED,  # snapshot too old
    "F0": _AWAY,  # configuration files
    "HV": _MISFIT,  # foreign data wrappers; there are none
    "P0": _REFUSED,  # a PL/pgSQL trigger of the operator's says no
    "XX": _AWAY,  # internal errors, corruption: an operator's matter, and not the job's fault
}  # fmt: skip

#: What has no SQLSTATE, or says more than it; the first that matches counts.
_BY_TYPE: Final[tuple[tuple[type[BaseException], Verdict], ...]] = (
    (exceptions.InvalidCachedStatementError, _CONTENDED),  # a migration changed a table; the next try plans anew
    (exceptions.OutdatedSchemaCacheError, _CONTENDED),
    (exceptions.UnsupportedClientFeatureError, _MISFIT),
    (exceptions.UnsupportedServerFeatureError, _MISFIT),
    (exceptions.ClientConfigurationError, _MISFIT),
    (exceptions.FatalPostgresError, _AWAY),  # ended the connection, with a code that asyncpg does not know
    # Asyncpg's own view of a connection that is gone. `InternalClientError` is in no family ("cannot switch to state
    # 12" after a kill -9 of the server).
    (exceptions.InterfaceError, _AWAY),
    (exceptions.InternalClientError, _AWAY),
    (OSError, _AWAY),
    (TimeoutError, _AWAY),
    (EOFError, _AWAY),
    (MemoryError, _AWAY),
)


def verdict(exc: BaseException) -> Verdict | None:
    """What the error means; None for one that is not PostgreSQL's, asyncpg's or the network's."""
    of_type = next((meaning for kind, meaning in _BY_TYPE if isinstance(exc, kind)), None)
    if of_type is not None or not isinstance(exc, asyncpg.PostgresError):
        return of_type
    return of_state(getattr(exc, "sqlstate", None) or "")


def of_state(state: str) -> Verdict:
    """What a SQLSTATE means; an unknown one is waited out."""
    return BY_STATE.get(state) or BY_CLASS.get(state[:2], _AWAY)


def _classes() -> Iterator[type[BaseException]]:
    """Every class of asyncpg's errors that is waited out."""
    for kind in vars(exceptions).values():
        if isinstance(kind, type) and issubclass(kind, asyncpg.PostgresError) and getattr(kind, "sqlstate", None):
            cached = issubclass(kind, exceptions.InvalidCachedStatementError)
            if cached or of_state(str(kind.sqlstate)) is not _REFUSED:
                yield kind


_KINDS: Final = tuple(kind for kind, _ in _BY_TYPE)
_ERRORS: Final[tuple[type[BaseException], ...]] = (asyncpg.PostgresError, *_KINDS)

#: What to catch where any error but a refusal means that the server is away for now.
AWAY: Final[tuple[type[BaseException], ...]] = (*_KINDS, *_classes())

_TEXTS: Final[dict[Verdict, str]] = {
    _AWAY: "PostgreSQL does not answer",
    _CONTENDED: "PostgreSQL is busy with what this needs",
    _MISFIT: "PostgreSQL's schema, or what this login may do, does not fit this version of Concord",
}


@contextlib.contextmanager
def unavailable() -> Iterator[None]:
    """Translate what PostgreSQL says: `Contended` or `Unavailable` for what passes, `StorageRefused` for what is final.

    Only the error's name and SQLSTATE are told: its text may repeat what was to be stored.
    """
    try:
        with not_counted():
            yield
    except _ERRORS as exc:
        meaning = verdict(exc) or _AWAY
        name = " ".join(filter(None, (type(exc).__name__, getattr(exc, "sqlstate", None))))
        if meaning is _REFUSED:
            raise StorageRefused(f"PostgreSQL does not store this ({name})") from exc
        kind = Contended if meaning is _CONTENDED else Unavailable
        raise kind(f"{_TEXTS[meaning]} ({name}); the work waits for it") from exc
