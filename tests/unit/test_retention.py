"""Rounds of deleting old rows: the order of slices, tables and rounds."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from agents.upkeep import retention
from agents.upkeep.retention import REST, SLICE, Retention
from schemas.errors import Unavailable


class Tables:
    """A database that forgets: by table, what each call finds, the last again and again."""

    def __init__(self, **slices: list[int | Exception | None]) -> None:
        self.slices, self.calls = slices, list[str]()
        self.takes_s = 0.0

    async def forget(self, table: str, _days: float, rows: int) -> int | None:
        self.calls.append(table)
        assert rows == SLICE
        await asyncio.sleep(self.takes_s)
        left = self.slices[table]
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def _no_pauses(monkeypatch):
    for name in ("ROUND_S", "PAUSE_S"):
        monkeypatch.setattr(retention, name, 0.0)


@pytest.mark.usefixtures("_no_pauses")
async def test_a_round_takes_slices_of_each_table_until_one_is_not_full():
    tables = Tables(inbox=[SLICE, SLICE, 7], leases=[0])

    assert await Retention(tables, {"inbox": 14.0, "leases": 1.0}).round() == 2 * SLICE + 7
    assert tables.calls == ["inbox"] * 3 + ["leases"]


@pytest.mark.usefixtures("_no_pauses")
async def test_a_table_at_which_another_worker_is_is_left_to_it_and_the_others_are_not():
    tables = Tables(inbox=[None], leases=[3])

    assert await Retention(tables, {"inbox": 14.0, "leases": 1.0}).round() == 3
    assert tables.calls == ["inbox", "leases"]


@pytest.mark.usefixtures("_no_pauses")
async def test_a_round_that_finds_the_database_away_is_only_missed():
    tables = Tables(inbox=[Unavailable("away"), 0])
    running = asyncio.create_task(Retention(tables, {"inbox": 14.0}).run())
    while len(tables.calls) < 3:
        await asyncio.sleep(0)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.mark.usefixtures("_no_pauses")
async def test_after_each_full_slice_the_database_rests_in_proportion():
    tables = Tables(inbox=[SLICE, SLICE, 0])
    tables.takes_s = 0.004
    began = time.monotonic()
    await Retention(tables, {"inbox": 14.0}).round()

    assert time.monotonic() - began >= 3 * tables.takes_s + 2 * REST * tables.takes_s
