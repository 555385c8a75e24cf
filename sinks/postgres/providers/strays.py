"""Requests that a provider has and no row knows, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from sinks.ports.providers.strays import Stray, Strays
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.tables import STRAYS


class PostgresStrays(PostgresPort, Strays):
    """`Strays` on a pool."""

    async def strays(self, provider: str) -> list[Stray]:
        """The provider's strays that no row has meanwhile."""
        await self._fetch("drop_known_strays", provider)
        return [STRAYS.read(row) for row in await self._fetch("strays", provider)]

    async def keep_strays(self, strays: Sequence[Stray]) -> list[Stray]:
        """Keep those of these requests that no row knows, and return them."""
        rows = await self._fetch("keep_strays", *STRAYS.arguments(strays)) if strays else []
        return [STRAYS.read(row) for row in rows]

    async def forget_stray(self, provider: str, provider_id: str) -> bool:
        """Remove a stray; False if there is no such stray."""
        return bool(await self._fetch("forget_stray", provider, provider_id))
