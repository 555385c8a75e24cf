"""URLs that were issued, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.conversations.rows import IssuedUrl
from schemas.ids import Key
from sinks.ports.conversations.issued_urls import IssuedUrls
from sinks.postgres.connection.port import PostgresPort, by_column


class PostgresIssuedUrls(PostgresPort, IssuedUrls):
    """`IssuedUrls` on a pool."""

    async def issued_urls(self, key: Key) -> list[IssuedUrl]:
        """Those of a job's files."""
        return [IssuedUrl(**row) for row in await self._fetch("issued_urls", *key)]

    async def keep_issued_urls(self, urls: Sequence[IssuedUrl]) -> None:
        """Store them."""
        rows = [(one.tenant_id, one.job_id, one.uri, one.url, one.expires_at) for one in urls]
        await self._fetch("keep_issued_urls", *by_column(rows, 5))
