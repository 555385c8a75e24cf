"""Call rates and pauses of a provider, on PostgreSQL."""

from __future__ import annotations

from sinks.ports.providers.limits import LONGEST_S, TOLERATED, Limits
from sinks.postgres.connection.port import PostgresPort


class PostgresLimits(PostgresPort, Limits):
    """`Limits` on a pool."""

    async def reserve_calls(self, provider: str, calls: int, interval_s: float) -> float:
        """Reserve moments for calls; seconds until the first."""
        return float((await self._fetch("reserve_calls", provider, calls, interval_s))[0][0])

    async def space_calls(self, provider: str, calls: int, interval_s: float, within_s: float) -> float | None:
        """Space calls that are about to be made; seconds until the first, None if that is too long."""
        rows = await self._fetch("space_calls", provider, calls, interval_s, within_s)
        return float(rows[0][0]) if rows else None

    async def provider_failed(self, provider: str, retry_after: float | None) -> None:
        """Count a failed call, and pause all workers if it is time to."""
        await self._fetch("provider_failed", provider, retry_after, TOLERATED, LONGEST_S)

    async def provider_succeeded(self, provider: str) -> None:
        """Reset the count of failures."""
        await self._fetch("provider_succeeded", provider)
