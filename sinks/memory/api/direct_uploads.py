"""The double of direct uploads."""

from __future__ import annotations

from dataclasses import dataclass
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
