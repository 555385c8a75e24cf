"""Batching of calls: questions that are asked at the same moment share one statement, a round trip per batch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from schemas.calls.time_limit import not_counted
from schemas.errors import Contended, InvalidInput

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: Keys in one batch at most.
MANY = 200


class Coalesce(Generic[K, V]):
    """`ask_many(keys)`, which answers in the order of its (distinct) keys, as a function of one key.

    While one batch is under way the next keys gather, and where batches follow each other, until `pause_s` seconds
    after the last one began. Two callers with the same key in one batch get the same answer.
    """

    def __init__(self, ask_many: Callable[[Sequence[K]], Awaitable[Sequence[V]]], pause_s: float = 0.0) -> None:
        self._ask_many = ask_many
        self._pause_s = pause_s
        self._next_at = 0.0
        self._waiting: dict[K, list[asyncio.Future[V]]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no batch is under way."""
        return not self._waiting and (self._task is None or self._task.done())

    async def __call__(self, key: K) -> V:
        """The answer for one key."""
        answer: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(answer)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        with not_counted():
            return await answer

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            # Also for the keys of tasks that run in this turn of the loop.
            await asyncio.sleep(max(self._next_at - loop.time(), 0))
            self._next_at = loop.time() + self._pause_s
            keys = list(self._waiting)[:MANY]
            await self._answer({key: self._waiting.pop(key) for key in keys})

    async def _answer(self, batch: dict[K, list[asyncio.Future[V]]]) -> None:
        keys = list(batch)
        try:
            answers = await self._ask_many(keys)
        except Exception as exc:  # noqa: BLE001 - each caller gets it
            if isinstance(exc, Contended | InvalidInput) and len(keys) > 1:
                # The cause is one of the keys: a row that is locked, a key that the database refuses.
                for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
                    await self._answer({key: batch[key] for key in half})
                return
            for future in _open(batch.values()):
                future.set_exception(exc)
            return
        for key, answer in zip(keys, answers, strict=True):
            for future in _open([batch[key]]):
                future.set_result(answer)


def _open(futures: Iterable[list[asyncio.Future[V]]]) -> list[asyncio.Future[V]]:
    """Those whose callers still wait."""
    return [future for some in futures for future in some if not future.done()]
