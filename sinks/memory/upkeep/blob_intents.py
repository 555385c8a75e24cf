"""The double of blobs that are about to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from schemas.errors import Contended
from schemas.ids import Key
from sinks.memory.state import NEVER, ORPHANED, MemoryState
from sinks.ports.upkeep.blob_intents import BlobIntents


@dataclass
class MemoryBlobIntents(MemoryState, BlobIntents):
    """`BlobIntents` in this process."""

    async def intend_blob(self, key: Key, uri: str) -> None:
        """Note that a blob is about to be written for a job."""
        self._intents[uri] = (key, self.clock())
        self._lapses.pop(uri, None)

    async def hold_blob(self, key: Key, uri: str, seconds: float) -> None:
        """Note that a blob is about to be written, and an orphan after that time."""
        if self._intents.get(uri, (key, self.clock()))[1] == ORPHANED:
            raise Contended("an earlier upload of this recording, which broke off, is being deleted")
        if uri not in self._intents or uri in self._lapses:
            lapses = self.clock() + timedelta(seconds=seconds)
            self._lapses[uri] = max(self._lapses.get(uri, lapses), lapses)
        self._intents[uri] = (key, self.clock())

    async def orphan_blobs(self, settled_s: float, age_s: float, limit: int) -> list[str]:
        """URIs of intended blobs that no file refers to."""
        orphans = []
        for uri in [uri for uri, lapses in self._lapses.items() if lapses < self.clock()]:
            self._intents[uri] = (self._intents[uri][0], ORPHANED)
        for uri, (key, at) in sorted(self._intents.items(), key=lambda intent: intent[1][1]):
            age = (self.clock() - at).total_seconds()
            is_needed = self._lapses.get(uri) == NEVER and self._load(*key) is not None
            if (age > age_s and not is_needed) or (age > settled_s and self._has_files(key)):
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
            self._lapses.pop(uri, None)
