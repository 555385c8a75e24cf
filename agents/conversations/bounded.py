"""Bounds how much of an HTTP answer is read, whatever length its headers tell."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

from schemas.errors import ProviderError


class Bounded(httpx.AsyncByteStream):
    """A body of which at most `most` bytes are read; an answer with more is refused."""

    def __init__(self, stream: httpx.AsyncByteStream, most: int) -> None:
        self._stream, self._most = stream, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for portion in self._stream:
            size += len(portion)
            if size > self._most:
                raise ProviderError(f"ElevenLabs' answer is too large: at most {self._most} bytes are read")
            yield portion

    async def aclose(self) -> None:
        """Release the connection."""
        await self._stream.aclose()
