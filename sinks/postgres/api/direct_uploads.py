"""Direct uploads on PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sinks.ports.api.direct_uploads import DirectUpload, DirectUploads
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.tables import DIRECT_UPLOADS


class PostgresDirectUploads(PostgresPort, DirectUploads):
    """`DirectUploads` on a pool."""

    async def begin_upload(self, upload: DirectUpload) -> None:
        """Note an upload."""
        await self._fetch("begin_upload", *DIRECT_UPLOADS.values([upload])[0])

    async def direct_upload(self, upload_id: UUID) -> DirectUpload | None:
        """The upload with this id."""
        rows = await self._fetch("direct_upload", upload_id)
        return DIRECT_UPLOADS.read(rows[0]) if rows else None

    async def expired_parts(self, seconds: float, limit: int) -> list[DirectUpload]:
        """Some uploads in parts that expired so many seconds ago."""
        return list(map(DIRECT_UPLOADS.read, await self._fetch("expired_parts", seconds, limit)))

    async def forget_parts(self, uploads: Collection[UUID]) -> None:
        """Note that the parts of these uploads are removed."""
        await self._fetch("forget_parts", list(uploads))
