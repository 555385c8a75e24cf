"""A store with a fallback: what the main store does not take now is kept in a spare one, and moved later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from schemas.errors import Misconfigured, NotFound, Unavailable
from sinks.blobs.rules import check_expiry
from sinks.ports.blobs import Blob, Store

log = logging.getLogger(__name__)

#: Seconds between attempts to reach a store that is away, and between looks for blobs that other workers put into the
#: spare.
RETRY_S: Final = 5.0
LOOK_S: Final = 10.0


class FallbackStore(Store):
    """`main`, and `spare` for what `main` does not take now.

    URIs are always `main`'s, so nothing that was announced changes when a blob moves. The spare is read first: it holds
    only blobs that `main` does not have, or has in an older version. Workers on several machines must share the spare's
    folder, or one does not find what another wrote there. `move` must run as long as the store is used: once `main` has
    failed, calls go to the spare without waiting for timeouts until `move` sees `main` working again.
    """

    def __init__(self, main: Store, spare: Store) -> None:
        self._main = main
        self._spare = spare
        #: Whether `main` failed and has not been seen working since.
        self.away = False

    async def put(
        self, name: str, content: bytes | AsyncIterator[bytes], content_type: str, *, once: bool = False
    ) -> Blob:
        """See `Store`. Content in pieces cannot be read again after `main` failed: that raises `Unavailable`, and the
        caller's next try goes to the spare. `once` holds within each of the two.
        """
        if not self.away:
            try:
                blob = await self._main.put(name, content, content_type, once=once)
            except Unavailable as exc:
                self._lost(exc)
                if not isinstance(content, bytes):
                    raise
            else:
                if not once:  # an older one in the spare would hide this one, and replace it when it is moved
                    await self._spare.delete(self._spare.uri(name))
                return blob
        return self._renamed(await self._spare.put(name, content, content_type, once=once))

    async def get(self, uri: str) -> bytes:
        return b"".join([piece async for piece in self.stream(uri)])

    async def stream(self, uri: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        if (spare := await self._in_spare(uri)) is not None:
            try:
                async for piece in self._spare.stream(spare.uri, start, end):
                    yield piece
            except NotFound:  # moved before the first piece: an open file stays readable
                pass
            else:
                return
        async for piece in self._main.stream(uri, start, end):
            yield piece

    async def stat(self, uri: str) -> Blob | None:
        spare = await self._in_spare(uri)
        return await self._main.stat(uri) if spare is None else self._renamed(spare)

    @asynccontextmanager
    async def local_path(self, uri: str) -> AsyncIterator[Path]:
        if await self._in_spare(uri) is None:
            async with self._main.local_path(uri) as path:
                yield path
            return
        with TemporaryDirectory(prefix="concord-") as folder:  # the spare's own file is removed when it is moved
            path = Path(folder, self.name(uri).rpartition("/")[2])
            with path.open("wb") as file:  # noqa: ASYNC230 - a new file in a folder of our own
                async for piece in self.stream(uri):
                    await asyncio.to_thread(file.write, piece)
            yield path

    async def presigned_url(self, uri: str, expires_s: int) -> str | None:
        if await self._in_spare(uri) is not None:
            return None
        return await self._main.presigned_url(uri, expires_s)

    async def presigned_put(self, uri: str, size: int, expires_s: int) -> tuple[str, dict[str, str]] | None:
        check_expiry(expires_s)
        return None if self.away else await self._main.presigned_put(uri, size, expires_s)

    async def begin_parts(self, uri: str, sizes: Sequence[int], expires_s: int) -> tuple[str, Sequence[str]] | None:
        check_expiry(expires_s)
        return None if self.away else await self._main.begin_parts(uri, sizes, expires_s)

    async def join_parts(self, uri: str, id: str, size: int) -> int:
        return await self._main.join_parts(uri, id, size)

    async def remove_parts(self, uri: str, id: str) -> None:
        await self._main.remove_parts(uri, id)

    async def size(self, uri: str) -> int | None:
        spare = await self._in_spare(uri)
        return await self._main.size(uri) if spare is None else spare.size_bytes

    async def tidy(self) -> None:
        await self._main.tidy()
        await self._spare.tidy()

    async def delete(self, uri: str) -> None:
        await self._main.delete(uri)
        await self._spare.delete(self._spare.uri(self.name(uri)))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        seen = {self._main.uri(self._spare.name(uri)) async for uri in self._spare.list(prefix)}
        for uri in seen:
            yield uri
        async for uri in self._main.list(prefix):
            if uri not in seen:
                yield uri

    def uri(self, name: str) -> str:
        return self._main.uri(name)

    def name(self, uri: str) -> str:
        return self._main.name(uri)

    async def check(self) -> Sequence[str]:
        """Both must work, but a `main` that is merely away does not prevent a start."""
        await self._spare.check()
        try:
            return await self._main.check()
        except Misconfigured:
            raise
        except Unavailable as exc:
            self._lost(exc)
            return [f"{exc}: blobs wait in the folder meanwhile"]

    async def close(self) -> None:
        await self._main.close()
        await self._spare.close()

    async def move(self) -> None:
        """Move what is in the spare whenever `main` works; never returns by itself."""
        while True:
            try:
                if self.away:
                    await self._main.check()
                await self._move_all()
                if self.away:
                    self.away = False
                    log.warning("the store is back; what was written meanwhile has been moved there")
            except Unavailable as exc:
                self._lost(exc)
            await asyncio.sleep(RETRY_S if self.away else LOOK_S)

    async def _move_all(self) -> None:
        async for uri in self._spare.list(""):
            blob = await self._spare.stat(uri)
            if blob is None:
                continue
            moved = await self._main.put(self._spare.name(uri), self._spare.stream(uri), blob.content_type)
            if moved.sha256 == blob.sha256 and await self._spare.stat(uri) == blob:  # else replaced: the next time
                await self._spare.delete(uri)

    def _lost(self, exc: Unavailable) -> None:
        if not self.away:
            log.warning("the store is away, blobs are kept in the fallback: %s", exc)
        self.away = True

    async def _in_spare(self, uri: str) -> Blob | None:
        return await self._spare.stat(self._spare.uri(self.name(uri)))

    def _renamed(self, blob: Blob) -> Blob:
        return Blob(self._main.uri(self._spare.name(blob.uri)), blob.size_bytes, blob.sha256, blob.content_type)
