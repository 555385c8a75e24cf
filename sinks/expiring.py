"""Answers that are kept for some seconds, and forgotten at once where a change is told."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

from schemas.calls.time_limit import not_counted

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: Answers that are kept at most; the oldest go first.
MANY = 10_000


class Expiring(Generic[K, V]):
    """`ask(key)`, whose answers are kept for `seconds`, counted from the question, where `keeps` says so.

    Whoever asks while a question for the same key is under way gets its answer, too: when the answer to whether there
    are keys expired, each of a thousand requests asked the database, and waited for a connection to it.
    """

    def __init__(
        self, ask: Callable[[K], Awaitable[V]], seconds: float, keeps: Callable[[V], bool] = lambda _: True
    ) -> None:
        self._ask, self._seconds, self._keeps = ask, seconds, keeps
        self._answers: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._asking: dict[K, asyncio.Task[V]] = {}
        self._changes = 0

    async def get(self, key: K) -> V:
        """The answer. One that was under way when a change was told is given, and not kept: it may be of before."""
        kept = self._answers.get(key)
        if kept is not None and time.monotonic() - kept[0] < self._seconds:
            return kept[1]
        question = self._asking.get(key)
        if question is None:
            question = self._asking[key] = asyncio.create_task(self._answer(key))
            question.add_done_callback(partial(self._answered, key))
        with not_counted():
            return await asyncio.shield(question)

    async def _answer(self, key: K) -> V:
        asked, changes = time.monotonic(), self._changes
        answer = await self._ask(key)
        if changes == self._changes and self._keeps(answer):
            self._answers[key] = asked, answer
            self._answers.move_to_end(key)
            if len(self._answers) > MANY:
                self._answers.popitem(last=False)
        return answer

    def _answered(self, key: K, question: asyncio.Task[V]) -> None:
        if self._asking.get(key) is question:
            del self._asking[key]
        if not question.cancelled():
            question.exception()  # noted here, too, where nobody waits for it any more

    def forget(self, key: K | None = None) -> None:
        """Forget the answer for one key; without a key, all. Who asks from now on joins no question of before."""
        self._changes += 1
        if key is None:
            self._answers.clear()
            self._asking.clear()
        else:
            self._answers.pop(key, None)
            self._asking.pop(key, None)
