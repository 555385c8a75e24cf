"""The double of idempotency keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from sinks.memory.state import MemoryState
from sinks.ports.api.idempotency import KEPT_DAYS, Answer, IdempotencyKeys, KnownKey


@dataclass
class MemoryIdempotency(MemoryState, IdempotencyKeys):
    """`IdempotencyKeys` in this process."""

    async def claim_key(self, tenant: str, key: str, fingerprint: str, claim: UUID, seconds: float) -> KnownKey:
        """Claim a key that is unused, or whose claim has lapsed with the same fingerprint."""
        now = self.clock()
        known, until = self._idempotency.get((tenant, key), (None, now))
        if known is None or known.created_at < now - timedelta(days=KEPT_DAYS):
            known = KnownKey(fingerprint, claim, now, None)
        elif known.answer is None and known.fingerprint == fingerprint and (until < now or known.claim == claim):
            known = replace(known, claim=claim)
        else:
            return known
        self._idempotency[tenant, key] = known, now + timedelta(seconds=seconds)
        return known

    async def answer_key(self, tenant: str, key: str, claim: UUID, answer: Answer) -> None:
        """Keep the response."""
        if (known := self._claimed(tenant, key, claim)) is not None:
            self._idempotency[tenant, key] = replace(known, answer=answer), self.clock()

    async def release_key(self, tenant: str, key: str, claim: UUID, *, forget: bool) -> None:
        """End a claim early."""
        if (known := self._claimed(tenant, key, claim)) is None:
            return
        if forget:
            del self._idempotency[tenant, key]
        else:
            self._idempotency[tenant, key] = known, self.clock() - timedelta(seconds=1)

    def _claimed(self, tenant: str, key: str, claim: UUID) -> KnownKey | None:
        known, _ = self._idempotency.get((tenant, key), (None, None))
        return known if known is not None and known.claim == claim else None
