"""The double of direct uploads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from sinks.memory.state import MemoryState
from sinks.ports.api.direct_uploads import DirectUpload, DirectUploads


@dataclass
class MemoryDirectUploads(MemoryState, DirectUploads):
    """`DirectUploads` in this process."""

    async def begin_upload(self, upload: DirectUpload) -> None:
        """Note an upload."""
        self._direct[upload.upload_id] = upload, self.clock()

    async def direct_upload(self, upload_id: UUID) -> DirectUpload | None:
        """The upload with this id."""
        return self._direct[upload_id][0] if upload_id in self._direct else None

    async def expired_parts(self, seconds: float, limit: int) -> list[DirectUpload]:
        """Some uploads in parts that expired so many seconds ago."""
        before = self.clock() - timedelta(seconds=seconds)
        expired = [row for row, _ in self._direct.values() if row.parts_id and row.expires_at < before]
        return sorted(expired, key=lambda row: row.expires_at)[:limit]

    async def forget_parts(self, uploads: Collection[UUID]) -> None:
        """Note that the parts of these uploads are removed."""
        for id in uploads:
            row, at = self._direct[id]
            self._direct[id] = replace(row, parts_id=None), at
