"""Stores the recordings of conversations, each once it was probed as every other recording is."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from agents.media.probe_pool import ProbePool
from agents.runtime.failpoints import passing
from schemas.errors import RefusedMedia
from schemas.jobs.rows import Job
from sinks.ports.blobs import Blob, Store

#: Bytes that are read at once.
_PORTION: Final = 1 << 18

#: What readers are told.
NONE: Final = "ElevenLabs has no recording of this conversation."


class Deliveries(Protocol):
    """Delivers recordings; see `agents.conversations.client.ElevenLabs`."""

    async def save_audio(self, conversation_id: str, path: Path, max_bytes: int) -> bool:
        """Write a conversation's recording to a file; False if there is none."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A conversation's recording as it is stored; without a blob there is none, and the notes say why."""

    blob: Blob | None = None
    duration_ms: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recordings:
    """The recordings in a store."""

    client: Deliveries
    store: Store
    probe_pool: ProbePool

    async def stored(self, job: Job, conversation_id: str, max_bytes: int, name: str, *, again: bool) -> Recording:
        """The conversation's recording under this name, which is fetched unless an earlier attempt has stored it, as it
        may have with `again`. One that cannot be decoded is not stored: a note says so, and the conversation goes on
        without it.

        Raises:
            TooLarge: It has more than `max_bytes`.
            ProviderError, Transient, Unavailable: It is not delivered, or not stored.
        """
        existing = await self.store.stat(self.store.uri(name)) if again else None
        if existing is not None:
            async with self.store.local_path(existing.uri) as path:
                return await self._probed(job, path, name, existing)
        with tempfile.TemporaryDirectory(prefix="concord-") as folder:
            path = Path(folder) / f"{conversation_id}.mp3"
            if not await self.client.save_audio(conversation_id, path, max_bytes):
                return Recording(notes=(NONE,))
            return await self._probed(job, path, name)

    async def _probed(self, job: Job, path: Path, name: str, blob: Blob | None = None) -> Recording:
        try:
            probe = await self.probe_pool.probe(path, path.name, tenant=job.tenant_id)
        except RefusedMedia as exc:
            return Recording(notes=(f"The recording of this conversation cannot be read, and is not kept: {exc}.",))
        if blob is None:
            blob = await self.store.put(name, _portions(path), probe.content_type)
            passing("fetch.audio")
        return Recording(blob, probe.duration_ms, probe.notes)


async def _portions(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while portion := await asyncio.to_thread(file.read, _PORTION):
            yield portion
