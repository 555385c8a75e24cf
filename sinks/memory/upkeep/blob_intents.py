"""The double of blobs that are about to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.ids import Key
from sinks.memory.state import MemoryState
from sinks.ports.upkeep.blob_intents import BlobIntents


@dataclass
class MemoryBlobIntents(MemoryState, BlobIntents):
    """`BlobIntents` in this process."""

    async def intend_blob(self, key: Key, uri: str) -> None:
        """Note that a blob is about to be written for a job."""
        self._intents[uri] = (key, self.clock())

    async def orphan_blobs(self, settled_s: float, age_s: float, limit: int) -> list[str]:
        """URIs of intended blobs that no file refers to."""
        orphans = []
        for uri, (key, at) in sorted(self._intents.items(), key=lambda intent: intent[1][1]):
            age = (self.clock() - at).total_seconds()
            if age > age_s or (age > settled_s and self._has_files(key)):
                orphans.append(uri)
        referred = {file.uri for file in self.files.values()}
        await self.forget_blobs([uri for uri in orphans if uri in referred])
        return [uri for uri in orphans if uri not in referred][:limit]

    def _has_files(self, key: Key) -> bool:
        """Whether the job has left the status in which its files are written."""
        job = self._load(*key)
        return job is not None and job.status != "uploaded"

    async def forget_blobs(self, uris: Sequence[str]) -> None:
        """Remove the notes of these blobs."""
        for uri in uris:
            self._intents.pop(uri, None)
