"""Requests to external recognizers, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from schemas import topics
from schemas.jobs.rows import ProviderRequest
from sinks.coalesce import Coalesce
from sinks.ports.providers.requests import Claim, Requests
from sinks.postgres.connection.port import PostgresPort, by_column
from sinks.postgres.sql.tables import PROVIDER_REQUESTS


class PostgresRequests(PostgresPort, Requests):
    """`Requests` on a pool. Questions of the same moment share a statement."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, shards: int = 1) -> None:
        super().__init__(pool, shards=shards)
        self._requests_of = Coalesce(self._many_requests)
        self._claims = Coalesce(self._claim)

    async def requests(self, tenant_id: str, job_id: str, run: int) -> list[ProviderRequest]:
        """The run's provider requests, by name of the provider."""
        return await self._requests_of((tenant_id, job_id, run))

    async def _many_requests(self, runs: Sequence[tuple[str, str, int]]) -> list[list[ProviderRequest]]:
        requests: dict[tuple[str, str, int], list[ProviderRequest]] = {run: [] for run in runs}
        for row in map(PROVIDER_REQUESTS.read, await self._fetch("requests", *by_column(runs, 3))):
            requests[row.tenant_id, row.job_id, row.run].append(row)
        return [requests[run] for run in runs]

    async def claim(
        self, tenant_id: str, job_id: str, run: int, provider: str, seconds: float
    ) -> Claim | ProviderRequest | None:
        """Commit the intention to submit a waiting request; its row instead if it does not wait."""
        claim = await self._claims((tenant_id, job_id, run, provider, seconds))
        # Two callers of one batch share its answer, but only one may submit.
        return claim.pop() if claim else await self._request(tenant_id, job_id, run, provider)

    async def _claim(self, keys: Sequence[tuple[str, str, int, str, float]]) -> list[list[Claim]]:
        columns = by_column(keys, 5)
        rows = await self._fetch("claim", *columns[:4], max(columns[4]))
        claims = [Claim(PROVIDER_REQUESTS.read(row), strays=row["strays"]) for row in rows]
        held = {(c.request.tenant_id, c.request.job_id, c.request.run, c.request.provider): [c] for c in claims}
        return [held.get(key[:4], []) for key in keys]

    async def _request(self, tenant_id: str, job_id: str, run: int, provider: str) -> ProviderRequest | None:
        rows = await self._requests_of((tenant_id, job_id, run))
        return next((row for row in rows if row.provider == provider), None)

    async def expedite_poll(self, provider: str, provider_id: str) -> bool:
        """Make the next look at a submitted request due now."""
        return bool(await self._fetch("expedite_poll", provider, provider_id, topics.requests(provider).name))

    async def expedite_job(self, tenant_id: str, job_id: str, provider: str) -> bool:
        """Make the next look at a request due now, whatever its state."""
        return bool(await self._fetch("expedite_job", tenant_id, job_id, topics.requests(provider).name))

    async def doubtful(self, limit: int) -> list[ProviderRequest]:
        """The newest requests that are parked or were left behind."""
        return [PROVIDER_REQUESTS.read(row) for row in await self._fetch("doubtful", limit)]
