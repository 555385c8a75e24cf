"""Work that is claimed, polled until none is due."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from agents.upkeep.claims import polling
from schemas.errors import Unavailable


async def test_what_is_due_is_done_at_once_and_an_outage_is_waited_out():
    answers = iter([True, True, False, Unavailable("away"), True, False])
    slept, left = [], asyncio.Event()

    async def turn():
        answer = next(answers, None)
        if answer is None:
            left.set()
            await asyncio.Event().wait()
        if isinstance(answer, Unavailable):
            raise answer
        slept.append(answer)
        return answer

    task = asyncio.create_task(polling.poll_claims(turn, 0.0, logging.getLogger("test"), "it waits"))
    async with asyncio.timeout(5):
        await left.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    assert slept == [True, True, False, True, False]
