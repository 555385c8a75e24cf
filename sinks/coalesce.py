"""Questions that are asked at the same moment become one: a round trip per batch, not per event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: Keys in one question at most.
MANY = 200


class Coalesce(Generic[K, V]):
    """`ask_many(keys)`, which answers in the order of its (distinct) keys, as a function of one key.

    While one question is under way the next keys gather. Two callers with the same key in one batch get the same answer.
    """

    def __init__(self, ask_many: Callable[[Sequence[K]], Awaitable[Sequence[V]]]) -> None:
        self._ask_many = ask_many
        self._waiting: dict[K, list[asyncio.Future[V]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, key: K) -> V:
        """The answer for one key."""
        answer: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(answer)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await answer

    async def _drain(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # whoever else is about to ask in this turn of the loop comes along
            keys = list(self._waiting)[:MANY]
            batch = {key: self._waiting.pop(key) for key in keys}
            try:
                answers = await self._ask_many(keys)
            except Exception as exc:  # it is the askers' to handle: each gets it
                self._settle(batch, lambda future, _, exc=exc: future.set_exception(exc))
                continue
            found = dict(zip(keys, answers, strict=True))
            self._settle(batch, lambda future, key, found=found: future.set_result(found[key]))

    @staticmethod
    def _settle(batch: dict[K, list[asyncio.Future[V]]], settle: Callable[[asyncio.Future[V], K], None]) -> None:
        for key, futures in batch.items():
            for future in futures:
                if not future.done():
                    settle(future, key)
