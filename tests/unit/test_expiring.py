"""Answers that are kept for a while: each is asked for once, and none of before a change is kept or joined."""

from __future__ import annotations

import asyncio

import pytest

from sinks.expiring import Expiring


class Source:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self.fault: Exception | None = None

    async def ask(self, key: str) -> str:
        self.asked += 1
        number = self.asked
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        return f"{key} {number}"


async def begun(kept: Expiring[str, str], count: int) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(kept.get("a")) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_a_thousand_who_ask_at_once_cost_one_question() -> None:
    source = Source()
    kept = Expiring(source.ask, 60)
    tasks = await begun(kept, 1000)
    tasks[0].cancel()
    await asyncio.sleep(0)
    source.go.set()

    assert set(await asyncio.gather(*tasks[1:])) == {"a 1"}
    assert await kept.get("a") == "a 1"
    assert tasks[0].cancelled()


async def test_who_asks_after_a_change_does_not_get_an_answer_of_before() -> None:
    source = Source()
    kept = Expiring(source.ask, 60)
    (before,) = await begun(kept, 1)
    kept.forget("a")
    (after,) = await begun(kept, 1)
    source.go.set()

    assert (await before, await after) == ("a 1", "a 2")
    assert await kept.get("a") == "a 2"


async def test_all_who_wait_get_the_error_and_the_next_asks_again() -> None:
    source = Source()
    source.fault = ValueError("away")
    kept = Expiring(source.ask, 60)
    tasks = await begun(kept, 3)
    source.go.set()

    for task in tasks:
        with pytest.raises(ValueError, match="away"):
            await task
    source.fault = None
    assert await kept.get("a") == "a 2"
