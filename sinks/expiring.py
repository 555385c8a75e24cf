"""Answers that are kept for some seconds, and forgotten at once where a change is told."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: Answers that are kept at most; the oldest go first.
MANY = 10_000


class Expiring(Generic[K, V]):
    """`ask(key)`, whose answers are kept for `seconds`, counted from the question, where `keeps` says so."""

    def __init__(
        self, ask: Callable[[K], Awaitable[V]], seconds: float, keeps: Callable[[V], bool] = lambda _: True
    ) -> None:
        self._ask, self._seconds, self._keeps = ask, seconds, keeps
        self._answers: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._changes = 0

    async def get(self, key: K) -> V:
        """The answer. One that was under way when a change was told is given, and not kept: it may be of before."""
        kept = self._answers.get(key)
        asked = time.monotonic()
        if kept is not None and asked - kept[0] < self._seconds:
            return kept[1]
        changes = self._changes
        answer = await self._ask(key)
        if changes == self._changes and self._keeps(answer):
            self._answers[key] = asked, answer
            self._answers.move_to_end(key)
            if len(self._answers) > MANY:
                self._answers.popitem(last=False)
        return answer

    def forget(self, key: K | None = None) -> None:
        """Forget the answer for one key; without a key, all."""
        self._changes += 1
        if key is None:
            self._answers.clear()
        else:
            self._answers.pop(key, None)
