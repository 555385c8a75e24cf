"""Stores a recognizer's answers about parts of a recording beside it, so that every run reuses what was paid for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from agents.asr.paid_calls import PaidCalls, until_stored
from schemas import blob_names
from schemas.errors import NotFound
from sinks.ports.blobs import Store


@dataclass(frozen=True, slots=True)
class StoredResponses:
    """The answers of one recognizer about one recording, as `asr.protocols.ResponseCache`; all runs share them."""

    store: Store
    tenant_id: str
    job_id: str
    provider: str
    paid: PaidCalls = field(default_factory=PaidCalls)
    #: Whether they are kept where only readers of what is not redacted may read.
    restricted: bool = False

    async def get(self, key: str) -> bytes | None:
        """See `ResponseCache`."""
        try:
            return await self.store.get(self._uri(key))
        except NotFound:
            return None

    async def put(self, key: str, answer: bytes) -> None:
        """See `ResponseCache`. If this call is cancelled, storing continues: the answer is paid for and exists only
        here.
        """

        async def write() -> None:
            await self.store.put(self._name(key), answer, "application/json")

        owner = self.tenant_id, self.job_id, self.provider
        await self.paid.through(owner, partial(until_stored, write))

    def _name(self, key: str) -> str:
        return blob_names.chunk(self.tenant_id, self.job_id, self.provider, key, restricted=self.restricted)

    def _uri(self, key: str) -> str:
        return self.store.uri(self._name(key))
