"""The double of a blob store, in memory. It passes the same contract suite as the real ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from schemas.errors import InvalidInput, NotFound
from sinks.blobs.rules import PIECE, check_content_type, check_expiry, check_name, check_prefix, check_range, name_in
from sinks.ports.blobs import Blob, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

BASE: Final = "memory://"


class MemoryStore(Store):
    """Blobs in a dict; URIs are `memory://` and the name."""

    def __init__(self) -> None:
        self._blobs: dict[str, tuple[Blob, bytes]] = {}
        #: How many blobs lie inside each folder, however deep.
        self._folders: Counter[str] = Counter()

    async def put(
        self, name: str, content: bytes | AsyncIterator[bytes], content_type: str, *, once: bool = False
    ) -> Blob:
        uri = self.uri(name)
        check_content_type(content_type)
        whole = content if isinstance(content, bytes) else b"".join([piece async for piece in content])
        self._refuse_nesting(name)
        if once and name in self._blobs:
            return self._blobs[name][0]
        if name not in self._blobs:
            self._folders.update(_folders(name))
        blob = Blob(uri, len(whole), hashlib.sha256(whole).hexdigest(), content_type)
        self._blobs[name] = blob, whole
        return blob

    async def get(self, uri: str) -> bytes:
        return self._stored(uri)[1]

    async def stream(self, uri: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        check_range(start, end)
        content = self._stored(uri)[1][start:end]
        for position in range(0, len(content), PIECE):
            yield content[position : position + PIECE]

    async def stat(self, uri: str) -> Blob | None:
        stored = self._blobs.get(name_in(BASE, uri))
        return stored[0] if stored else None

    @asynccontextmanager
    async def local_path(self, uri: str) -> AsyncIterator[Path]:
        content = self._stored(uri)[1]
        with TemporaryDirectory(prefix="concord-") as folder:
            path = Path(folder, uri.rpartition("/")[2])
            path.write_bytes(content)
            yield path

    async def presigned_url(self, uri: str, expires_s: int) -> str | None:
        check_expiry(expires_s)
        name_in(BASE, uri)
        return None

    async def presigned_put(
        self,
        uri: str,
        size: int,  # noqa: ARG002 - there is no URL
        expires_s: int,
    ) -> tuple[str, dict[str, str]] | None:
        check_expiry(expires_s)
        name_in(BASE, uri)
        return None

    async def begin_parts(
        self,
        uri: str,
        sizes: Sequence[int],  # noqa: ARG002 - there are no URLs
        expires_s: int,
    ) -> tuple[str, Sequence[str]] | None:
        check_expiry(expires_s)
        name_in(BASE, uri)
        return None

    async def join_parts(self, uri: str, id: str, size: int) -> int:  # noqa: ARG002 - it takes none
        raise NotFound(f"{uri} has no parts")

    async def remove_parts(self, uri: str, id: str) -> None:
        """There are none."""

    async def size(self, uri: str) -> int | None:
        stored = await self.stat(uri)
        return stored.size_bytes if stored else None

    async def tidy(self) -> None:
        """Nothing is ever half written."""

    async def delete(self, uri: str) -> None:
        name = name_in(BASE, uri)
        if self._blobs.pop(name, None):
            self._folders.subtract(_folders(name))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        check_prefix(prefix)
        for name in [name for name in self._blobs if name.startswith(prefix)]:
            yield self.uri(name)

    def uri(self, name: str) -> str:
        return BASE + check_name(name)

    def name(self, uri: str) -> str:
        return name_in(BASE, uri)

    async def check(self) -> Sequence[str]:
        """Nothing to check."""
        return ()

    async def close(self) -> None:
        """Nothing to release."""

    def _stored(self, uri: str) -> tuple[Blob, bytes]:
        stored = self._blobs.get(name_in(BASE, uri))
        if stored is None:
            raise NotFound(f"there is no blob {uri}")
        return stored

    def _refuse_nesting(self, name: str) -> None:
        """As a folder does: one blob cannot lie inside another."""
        if self._folders[name] or any(folder in self._blobs for folder in _folders(name)):
            raise InvalidInput(f"blob name {name!r}: one blob cannot lie inside another")


def _folders(name: str) -> Iterator[str]:
    """`a` and `a/b` for `a/b/c`."""
    return (name[:at] for at, character in enumerate(name) if character == "/")
