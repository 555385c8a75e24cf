"""A job's recording as recognizers get it: as it came, or as Concord decodes it, where others would mishear it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from agents.media.transcode import Transcoder
from schemas.errors import Unavailable
from sinks.ports.blobs import Store

#: The content type of what `DecodedAudio` gives.
FLAC = "audio/flac"
#: Bytes that are read at once.
_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class StoredAudio:
    """The stored original, as `asr.protocols.Audio`."""

    store: Store
    uri: str
    #: Seconds for which its URL is good.
    url_s: int

    def stream(self) -> AsyncIterator[bytes]:
        """Its bytes."""
        return self.store.stream(self.uri)

    async def url(self) -> str | None:
        """Where they can be fetched from, if the storage has URLs to give."""
        return await self.store.presigned_url(self.uri, self.url_s)


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """The same sound that recognizers on this machine hear, as `asr.protocols.Audio`: a FLAC file, made when it is
    read.
    """

    store: Store
    uri: str
    transcoder: Transcoder

    async def stream(self) -> AsyncIterator[bytes]:
        """Its bytes. Raises `RefusedMedia`, `Transient` when the packing process died, `Unavailable` without room."""
        try:
            with TemporaryDirectory(prefix="concord-") as folder:
                flac = Path(folder) / "audio.flac"
                async with self.store.local_path(self.uri) as original:
                    await self.transcoder.transcode(original, flac)
                with flac.open("rb") as file:
                    while piece := await asyncio.to_thread(file.read, _PIECE):
                        yield piece
        except OSError as exc:
            raise Unavailable(f"no room for a recording on its way to a recognizer ({exc.strerror})") from exc

    async def url(self) -> None:
        """It is nowhere but here."""
