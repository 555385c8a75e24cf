"""Idempotency keys on PostgreSQL."""

from __future__ import annotations

from uuid import UUID

from schemas.errors import Contended
from sinks.ports.api.idempotency import KEPT_DAYS, Answer, IdempotencyKeys, KnownKey
from sinks.postgres.connection.port import PostgresPort


class PostgresIdempotency(PostgresPort, IdempotencyKeys):
    """`IdempotencyKeys` on a pool."""

    async def claim_key(self, tenant: str, key: str, fingerprint: str, claim: UUID, seconds: float) -> KnownKey:
        """Claim a key that is unused, or whose claim has lapsed with the same fingerprint."""
        asked = (tenant, key, fingerprint, claim, seconds, KEPT_DAYS)
        # A key that another request has just begun with is not seen by the statement that lost; the next one sees it.
        rows = await self._fetch("claim_key", *asked) or await self._fetch("claim_key", *asked)
        if not rows:
            raise Contended("another request with this Idempotency-Key has begun at this moment")
        [row] = rows
        answer = None if row["status"] is None else Answer(row["status"], row["headers"], row["body"])
        return KnownKey(row["fingerprint"], row["claim"], row["created_at"], answer)

    async def answer_key(self, tenant: str, key: str, claim: UUID, answer: Answer) -> None:
        """Keep the response."""
        await self._fetch("answer_key", tenant, key, claim, answer.status, dict(answer.headers), answer.body)

    async def release_key(self, tenant: str, key: str, claim: UUID, *, forget: bool) -> None:
        """End a claim early."""
        await self._fetch("forget_key" if forget else "release_key", tenant, key, claim)
