"""The double of blobs that are about to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.errors import Contended
from schemas.ids import Key
from sinks.memory.state import NEVER, ORPHANED, Intent, MemoryState
from sinks.ports.upkeep.blob_intents import BlobIntents


@dataclass
class MemoryBlobIntents(MemoryState, BlobIntents):
    """`BlobIntents` in this process."""

    async def intend_blob(self, key: Key, uri: str) -> None:
        """Note that a blob is about to be written for a job."""
        self._intents[uri] = Intent(key, self.clock())

    async def hold_blob(self, key: Key, uri: str, seconds: float) -> None:
        """Note that a blob is about to be written, and an orphan after that time."""
        now, known = self.clock(), self._intents.get(uri)
        if known is not None and known.at == ORPHANED:
            raise Contended("an earlier upload of this recording, which broke off, is being deleted")
        lapses_at: datetime | None = now + timedelta(seconds=seconds)
        if known is not None:  # what is intended without a time stays so
            lapses_at = known.lapses_at and max(known.lapses_at, now + timedelta(seconds=seconds))
        self._intents[uri] = Intent(known.key if known else key, now, lapses_at)

    async def orphan_blobs(self, settled_s: float, age_s: float, limit: int) -> list[str]:
        """URIs of intended blobs that no file refers to."""
        orphans, now = [], self.clock()
        for uri, held in self._intents.items():
            if held.lapses_at is not None and held.lapses_at < now:
                self._intents[uri] = held._replace(at=ORPHANED)
        for uri, (key, at, lapses_at) in sorted(self._intents.items(), key=lambda intent: intent[1].at):
            age = (now - at).total_seconds()
            is_needed = lapses_at == NEVER and self._load(*key) is not None
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
