"""How a Faust app runs and ends: its failure is raised, and an app that does not end is not started again."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from agents.runtime import faust_binding
from agents.runtime.faust_binding import run_app
from agents.runtime.offsets import Offsets
from agents.runtime.supervision import Hung, Position, StageCrashed

UPLOADED, DUE = TP("audio.uploaded", 2), TP("intake.due", 0)


class App:
    """As much of Faust's app as `run_app` sees. Its parts do not stop before they are cancelled so many times."""

    def __init__(self, *, deaf: int = 0, thread: threading.Thread | None = None) -> None:
        self.conf = SimpleNamespace(id="concord.intake")
        self.should_stop, self.crash_reason = False, None
        self.stopped = False
        self._deaf = deaf
        self.consumer: Any = SimpleNamespace(
            offsets=Offsets(), _read_offset={DUE: 3}, _thread=SimpleNamespace(_thread=thread)
        )

    async def start(self) -> None: ...

    async def stop(self) -> None:
        for _ in range(self._deaf):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue
        self.stopped = True

    def crash(self) -> None:
        self.consumer.offsets.received(UPLOADED, 17)
        self.crash_reason, self.should_stop = RuntimeError("an accident"), True


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    for name, seconds in {"CHECK_S": 0.001, "SERVICE_STOP_S": 0.02, "HUNG_S": 0.1}.items():
        monkeypatch.setattr(faust_binding, name, seconds)


async def test_what_crashes_says_where_it_was_and_of_what():
    app, started = App(), asyncio.Event()
    running = asyncio.create_task(run_app(app, started.set, 1))
    await started.wait()
    app.crash()
    with pytest.raises(StageCrashed) as failed:
        await running

    assert failed.value.positions == (Position("audio.uploaded", 2, 17), Position("intake.due", 0, 3))
    assert failed.value.__cause__ is app.crash_reason
    assert app.stopped


async def test_parts_that_wait_for_a_thread_that_is_gone_are_given_up_one_after_the_other():
    app = App(deaf=3)
    app.crash()
    with pytest.raises(StageCrashed):
        await run_app(app, lambda: None, 1)

    assert app.stopped


async def test_a_consumer_whose_thread_still_runs_stays_in_its_group_so_no_other_is_started():
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        app = App(thread=thread)
        app.crash()
        with pytest.raises(Hung):
            await run_app(app, lambda: None, 1)
    finally:
        end.set()


async def test_what_is_cancelled_stops_within_its_time():
    app, started = App(deaf=1), asyncio.Event()
    running = asyncio.create_task(run_app(app, started.set, 0.05))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 1)
