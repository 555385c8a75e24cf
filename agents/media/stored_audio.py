"""A job's recording as remote recognizers get it: the stored original, or a FLAC file of the sound as Concord decodes
it, for originals that others would decode differently.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from agents.media.transcode import Transcoder
from schemas.errors import Unavailable
from sinks.ports.blobs import Store

#: The content type of `DecodedAudio`.
FLAC = "audio/flac"
#: Bytes that are read at once.
_PORTION = 1 << 18


@dataclass(frozen=True, slots=True)
class StoredAudio:
    """The stored original, as `asr.protocols.Audio`."""

    store: Store
    uri: str
    #: Seconds for which its URL is valid.
    url_s: int

    def stream(self) -> AsyncIterator[bytes]:
        """Its bytes. Raises as `Store.stream` does."""
        return self.store.stream(self.uri)

    async def url(self) -> str | None:
        """A presigned URL, or None if the storage makes none."""
        return await self.store.presigned_url(self.uri, self.url_s)


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """The sound that local recognizers get, as `asr.protocols.Audio`: a FLAC file, encoded when it is read."""

    store: Store
    uri: str
    transcoder: Transcoder
    #: Intervals in which it is silent, in ms from the start; None is the end.
    muted: tuple[tuple[int, int | None], ...] = ()

    async def stream(self) -> AsyncIterator[bytes]:
        """The bytes of the FLAC file.

        Raises:
            NotFound: There is no such recording.
            RefusedMedia: The recording cannot be decoded.
            Transient: The encoding process died.
            Unavailable: The disk is full, or the store is away.
        """
        try:
            with TemporaryDirectory(prefix="concord-") as folder:
                flac = Path(folder) / "audio.flac"
                async with self.store.local_path(self.uri) as original:
                    await self.transcoder.transcode(original, flac, self.muted)
                with flac.open("rb") as file:
                    while portion := await asyncio.to_thread(file.read, _PORTION):
                        yield portion
        except OSError as exc:
            raise Unavailable(f"no room for a recording on its way to a recognizer ({exc.strerror})") from exc

    async def url(self) -> None:
        """None: the file exists only while it is read."""
