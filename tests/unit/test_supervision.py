"""A part that fails is restarted alone, with pauses; repeated failures are reported until it is steady."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from agents.runtime import supervision
from agents.runtime.supervision import Hung, Position, StageCrashed, SupervisedTask


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(supervision, "PAUSE_S", 0.001)
    monkeypatch.setattr(supervision, "LONGEST_PAUSE_S", 0.004)


class Unlucky:
    """Fails so many times, then runs."""

    def __init__(self, times: int, exc: Exception | None = None) -> None:
        self.times, self.exc, self.runs = times, exc or RuntimeError("an accident"), 0

    async def __call__(self, started: Callable[[], None]) -> None:
        self.runs += 1
        if self.runs <= self.times:
            raise self.exc
        started()
        await asyncio.Event().wait()


async def kept(unlucky: Unlucky) -> tuple[SupervisedTask, asyncio.Task[None], list[int]]:
    told: list[int] = []
    part = SupervisedTask("intake", unlucky, lambda: told.append(1))
    task = asyncio.create_task(part.supervise())
    async with asyncio.timeout(2):
        while unlucky.runs <= unlucky.times and not task.done():
            await asyncio.sleep(0.001)
    return part, task, told


async def test_one_failure_is_no_loop():
    part, task, told = await kept(Unlucky(1))

    assert (part.restarts, part.crash_looping, part.hung, len(told)) == (1, False, False, 1)
    task.cancel()


async def test_what_fails_again_says_where_and_of_what_until_it_is_steady(monkeypatch):
    failed = StageCrashed((Position("audio.uploaded", 2, 17), Position("intake.due", 0, 3)))
    failed.__cause__ = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    part, task, _ = await kept(Unlucky(3, failed))

    assert part.crash_looping
    assert part.summary.startswith("failed 3 times at audio.uploaded/2/17, intake.due/0/3: UnicodeDecodeError: ")
    monkeypatch.setattr(supervision, "STEADY_S", 0.0)
    assert not part.crash_looping
    task.cancel()


async def test_failures_that_lie_far_apart_are_no_loop(monkeypatch):
    monkeypatch.setattr(supervision, "STEADY_S", 0.0)
    part, task, _ = await kept(Unlucky(4))
    monkeypatch.setattr(supervision, "STEADY_S", 60.0)

    assert (part.restarts, part.crash_looping) == (4, False)
    task.cancel()


async def test_a_part_that_returns_has_failed():
    async def over(_):
        return

    part = SupervisedTask("relay 0", over)
    task = asyncio.create_task(part.supervise())
    await part.begun.wait()
    assert part.error == "RuntimeError: it has ended"
    task.cancel()


async def test_what_hangs_is_not_started_again():
    unlucky = Unlucky(9, Hung("concord.intake has crashed and does not end"))
    part, task, _ = await kept(unlucky)
    with pytest.raises(Hung):
        await task

    assert (part.hung, unlucky.runs) == (True, 1)
    assert "does not end" in part.summary


async def test_a_part_that_fails_at_its_start_does_not_delay_others():
    part, task, _ = await kept(Unlucky(1))
    await asyncio.wait_for(part.begun.wait(), 1)
    task.cancel()
