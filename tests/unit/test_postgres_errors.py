"""Every error of asyncpg is classified: waited out, contention, schema mismatch, or permanent."""

from __future__ import annotations

import asyncpg
import pytest
from asyncpg import exceptions

from schemas.errors import Contended, InvalidInput, StorageRefused, Unavailable
from sinks.postgres.connection.errors import AWAY, BY_CLASS, Verdict, unavailable, verdict

CLASSES = sorted(
    {
        kind
        for kind in vars(exceptions).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
    },
    key=lambda kind: kind.__name__,
)
WITH_STATE = [kind for kind in CLASSES if getattr(kind, "sqlstate", None)]


def test_there_is_a_word_on_every_class_of_states_that_asyncpg_knows():
    assert len(CLASSES) > 250
    assert {kind.sqlstate[:2] for kind in WITH_STATE} - set(BY_CLASS) == set()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_what_is_caught_as_away_is_what_is_not_final(kind):
    meaning = verdict(kind("x"))

    assert isinstance(meaning, Verdict)
    if kind is not asyncpg.PostgresError:  # the base of all of them; the server never raises it
        assert issubclass(kind, AWAY) == (meaning is not Verdict.REFUSED)


@pytest.mark.parametrize(
    ("exc", "meaning"),
    [
        (exceptions.SerializationError("x"), Verdict.CONTENDED),
        (exceptions.DeadlockDetectedError("x"), Verdict.CONTENDED),
        (exceptions.LockNotAvailableError("x"), Verdict.CONTENDED),
        (exceptions.QueryCanceledError("x"), Verdict.CONTENDED),
        (exceptions.InvalidCachedStatementError("x"), Verdict.CONTENDED),
        (exceptions.ReadOnlySQLTransactionError("x"), Verdict.AWAY),
        (exceptions.TooManyConnectionsError("x"), Verdict.AWAY),
        (exceptions.CannotConnectNowError("x"), Verdict.AWAY),
        (exceptions.CrashShutdownError("x"), Verdict.AWAY),
        (exceptions.AdminShutdownError("x"), Verdict.AWAY),
        (exceptions.DatabaseDroppedError("x"), Verdict.AWAY),
        (exceptions.DiskFullError("x"), Verdict.AWAY),
        (exceptions.OutOfMemoryError("x"), Verdict.AWAY),
        (exceptions.IdleInTransactionSessionTimeoutError("x"), Verdict.AWAY),
        (exceptions.ObjectNotInPrerequisiteStateError("x"), Verdict.AWAY),
        (exceptions.InvalidAuthorizationSpecificationError("x"), Verdict.AWAY),
        (exceptions.InvalidParameterValueError('role "concord_worker" does not exist'), Verdict.AWAY),
        (exceptions.InsufficientPrivilegeError("x"), Verdict.AWAY),
        (exceptions.InvalidSQLStatementNameError("x"), Verdict.AWAY),
        (exceptions.UndefinedTableError("x"), Verdict.MISFIT),
        (exceptions.UndefinedColumnError("x"), Verdict.MISFIT),
        (exceptions.InvalidColumnReferenceError("no unique constraint matching ON CONFLICT"), Verdict.MISFIT),
        (exceptions.NotNullViolationError("x"), Verdict.MISFIT),
        (exceptions.PostgresSyntaxError("x"), Verdict.MISFIT),
        (exceptions.InterfaceError("connection is closed"), Verdict.AWAY),
        (exceptions.InternalClientError("cannot switch to state 12"), Verdict.AWAY),
        (ConnectionResetError(), Verdict.AWAY),
        (TimeoutError(), Verdict.AWAY),
        (exceptions.DataError("x"), Verdict.REFUSED),
        (exceptions.CheckViolationError("x"), Verdict.REFUSED),
        (exceptions.NumericValueOutOfRangeError("x"), Verdict.REFUSED),
        (exceptions.ProgramLimitExceededError("x"), Verdict.REFUSED),
        (exceptions.UntranslatableCharacterError("x"), Verdict.REFUSED),
        (exceptions.UniqueViolationError("x"), Verdict.REFUSED),
        (exceptions.RaiseError("a trigger of the operator's"), Verdict.REFUSED),
    ],
    ids=lambda p: type(p).__name__ if isinstance(p, BaseException) else p.name,
)
def test_what_each_error_means(exc, meaning):
    assert verdict(exc) is meaning


def test_what_is_no_error_of_a_database_passes_through():
    assert verdict(ValueError()) is None
    with pytest.raises(KeyError), unavailable():
        raise KeyError


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (exceptions.DataError("a secret value"), StorageRefused),
        (exceptions.LockNotAvailableError("a secret value"), Contended),
        (exceptions.DiskFullError("a secret value"), Unavailable),
        (ConnectionResetError("a secret value"), Unavailable),
    ],
    ids=lambda p: p.__name__ if isinstance(p, type) else "",
)
def test_an_error_is_described_without_the_values_in_it(raised, becomes):
    with pytest.raises(becomes) as told, unavailable():
        raise raised

    assert type(told.value) is becomes
    assert issubclass(becomes, InvalidInput) != issubclass(becomes, Unavailable)
    assert "secret" not in str(told.value)
    assert type(raised).__name__ in str(told.value)


def test_an_unknown_sqlstate_is_waited_out():
    unknown = asyncpg.PostgresError.new({"S": "ERROR", "C": "ZZ123", "M": "x"})

    assert verdict(unknown) is Verdict.AWAY
