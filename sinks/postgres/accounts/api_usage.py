"""How often keys use the HTTP interface, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.accounts.api_usage import UsedRoute
from sinks.ports.accounts.api_usage import ApiUsage
from sinks.postgres.connection.port import PostgresPort, by_column


class PostgresApiUsage(PostgresPort, ApiUsage):
    """`ApiUsage` on a pool."""

    async def count_requests(self, counts: Mapping[UsedRoute, int]) -> None:
        """Add these, in the order of their keys: two workers that add the same rows do not wait for each other."""
        rows = sorted(
            (one.tenant_id, one.key_id, one.route, one.status_class, one.minute, count) for one, count in counts.items()
        )
        await self._fetch("count_requests", *by_column(rows, 6))
