"""What every database must do with strays; see `sinks.ports.providers.strays`."""

from __future__ import annotations

from sinks.ports.providers.strays import Stray
from tests.contract.databases.cases import (
    changed,
    created,
    job,
)


async def test_strays_are_what_no_row_knows_until_one_does(under_test):
    database = under_test.database
    await database.commit([created(job(status="transcribing"), "a")])
    await database.commit([changed("a", None, state="submitted", provider_id="p1")])
    now = await database.now()
    known, upload, other = (
        Stray("a", "p1", now, ("https://x/1",), None),
        Stray("a", "p2", None, None, None),
        Stray("a", "p3", now, (), "marker"),
    )
    kept = await database.keep_strays([known, upload, other])
    await database.commit([created(job("k", status="transcribing"), "a")])
    claim = await database.claim("t", "k", 1, "a", 30)

    assert sorted(kept, key=lambda stray: stray.provider_id) == [upload, other]
    assert await database.strays("a") == [upload, other]
    assert await database.strays("b") == []
    assert claim.strays
    await database.commit([changed("a", 1, "k", state="submitted", provider_id="p2")])
    assert await database.strays("a") == [other]
    assert await database.forget_stray("a", "p3")
    assert not await database.forget_stray("a", "p3")
    assert await database.keep_strays([]) == []
