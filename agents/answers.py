"""Keeps what recognizers answered to parts of a recording, beside it: what was paid for once is there for every run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from agents import names
from schemas.errors import NotFound, Unavailable
from sinks import Store

#: Seconds between two tries to store what was paid for.
STORE_S = 2.0


@dataclass(frozen=True, slots=True)
class Kept:
    """One recognizer's answers about one recording, as `agents.providers.Answers`; all runs share them."""

    store: Store
    tenant_id: str
    job_id: str
    provider: str

    async def get(self, key: str) -> bytes | None:
        try:
            return await self.store.get(self._uri(key))
        except NotFound:
            return None

    async def put(self, key: str, answer: bytes) -> None:
        while True:
            try:
                await self.store.put(self._name(key), answer, "application/json")
            except Unavailable:  # the answer is paid for, and nowhere else
                await asyncio.sleep(STORE_S)
            else:
                return

    def _name(self, key: str) -> str:
        return names.piece(self.tenant_id, self.job_id, self.provider, key)

    def _uri(self, key: str) -> str:
        return self.store.uri(self._name(key))
