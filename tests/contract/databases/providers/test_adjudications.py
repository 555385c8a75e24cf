"""What every database must do with adjudications; see `sinks.ports.providers.adjudications`."""

from __future__ import annotations

import asyncio

from tests.contract.databases.cases import (
    answer,
)


async def test_an_answer_serves_every_job_of_its_tenant_and_no_other(under_test):
    database = under_test.database
    await database.keep_adjudications([answer("q2", 1), answer("q1", None)])

    assert await database.adjudications("t", "another", 3, ["q1", "q2", "q3"]) == [answer("q1", None), answer("q2", 1)]
    assert await database.adjudications("other", "j", 1, ["q1", "q2"]) == []
    assert await database.adjudications("t", "j", 1, []) == []


async def test_a_fault_is_known_to_its_run_only(under_test):
    database = under_test.database
    await database.keep_adjudications([answer("q", None, fault="cut off")])

    assert await database.adjudications("t", "j", 1, ["q"]) == [answer("q", None, fault="cut off")]
    assert await database.adjudications("t", "j", 2, ["q"]) == []
    assert await database.adjudications("t", "k", 1, ["q"]) == []


async def test_an_answer_replaces_a_fault_and_is_never_replaced(under_test):
    database = under_test.database
    await database.keep_adjudications([answer("q", None, fault="cut off"), answer("r", 1)])
    await database.keep_adjudications([answer("q", 2, job_id="k"), answer("r", 0), answer("r", None, fault="late")])

    assert await database.adjudications("t", "x", 1, ["q", "r"]) == [answer("q", 2, job_id="k"), answer("r", 1)]


async def test_the_same_questions_kept_by_many_at_once_do_not_deadlock(under_test):
    database = under_test.database
    names = [f"q{n:02}" for n in range(40)]
    rows = [[answer(n, k) for n in (names if k % 2 else names[::-1])] for k in range(8)]
    await asyncio.gather(*(database.keep_adjudications(some) for some in rows))

    assert [row.question for row in await database.adjudications("t", "j", 1, names)] == names
