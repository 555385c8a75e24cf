"""Blobs as plain files below one folder: the default store, and the fallback when S3 is away."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple
from urllib.parse import quote, unquote
from uuid import uuid4

from schemas.calls.time_limit import not_counted
from schemas.errors import ConcordError, InvalidInput, Misconfigured, NotFound, Unavailable
from sinks.blobs import rules
from sinks.blobs.local_folders import FOLDER_MODE, FolderTree
from sinks.blobs.local_parts import Part, described, sweep
from sinks.blobs.threads import Threads
from sinks.ports.blobs import Blob, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Where blobs are written before they are renamed into place. One folder for all (names cannot begin with a dot, so no
#: blob lies in it): what a killed process left behind is found without a walk over millions of blobs.
PARTS: Final = ".parts"

#: Names a listing fetches at once.
_LISTED: Final = 500

#: How often a put makes its folder again when deletes keep removing it.
_RACES: Final = 100

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

_URI = re.compile(r"file://(?:localhost)?(/[^?#]*)")


class LocalStore(Store):
    """A folder; URIs are `file://` and the percent-encoded absolute path. Several processes may share it.

    A blob is written to a part, synced, renamed, and its folder synced. `durable=False` leaves out the syncs: still
    atomic, and safe when the process is killed, but a power cut may take what was acknowledged seconds before.
    Symbolic links below the root are refused (`FolderTree`).
    """

    def __init__(self, root: Path, *, durable: bool = True, threads: int = 4) -> None:
        self._tree = FolderTree(root, durable=durable)
        self.root = self._tree.root
        self._base = self._tree.base
        self._durable = durable
        self._swept = False
        self._threads = Threads(threads)

    async def put(
        self, name: str, content: bytes | AsyncIterator[bytes], content_type: str, *, once: bool = False
    ) -> Blob:
        rules.check_name(name)
        rules.check_content_type(content_type)
        if isinstance(content, bytes):
            return await self._hop(self._put_whole, name, content, content_type, once)
        part = await self._hop(self._begin, undo=Part.discard)
        try:
            async for piece in rules.gathered(content):
                await self._hop(part.write, piece)
            return await self._hop(self._finish, part, name, content_type, once)
        finally:
            part.discard()

    async def get(self, uri: str) -> bytes:
        return await self._hop(self._read_whole, self.name(uri))

    async def stream(self, uri: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        rules.check_range(start, end)
        # One descriptor from the first byte to the last: a blob replaced meanwhile is still read as it was.
        file = await self._hop(self._open, self.name(uri), undo=os.close)
        try:
            while piece := await self._hop(_read, file, start, end):
                yield piece
                start += len(piece)
        finally:
            os.close(file)

    async def stat(self, uri: str) -> Blob | None:
        try:
            return await self._hop(self._stat, self.name(uri))
        except NotFound:
            return None

    @asynccontextmanager
    async def local_path(self, uri: str) -> AsyncIterator[Path]:
        name = self.name(uri)
        os.close(await self._hop(self._open, name, undo=os.close))  # it exists, and no link leads to it
        yield self.root / name

    async def presigned_url(self, uri: str, expires_s: int) -> str | None:
        rules.check_expiry(expires_s)
        self.name(uri)
        return None

    async def presigned_put(
        self,
        uri: str,
        size: int,  # noqa: ARG002 - there is no URL
        expires_s: int,
    ) -> tuple[str, dict[str, str]] | None:
        rules.check_expiry(expires_s)
        self.name(uri)
        return None

    async def begin_parts(
        self,
        uri: str,
        sizes: Sequence[int],  # noqa: ARG002 - there are no URLs
        expires_s: int,
    ) -> tuple[str, Sequence[str]] | None:
        rules.check_expiry(expires_s)
        self.name(uri)
        return None

    async def join_parts(self, uri: str, id: str, size: int) -> int:  # noqa: ARG002 - it takes none
        raise NotFound(f"{uri} has no parts")

    async def remove_parts(self, uri: str, id: str) -> None:
        """There are none."""

    async def size(self, uri: str) -> int | None:
        try:
            return await self._hop(self._size, self.name(uri))
        except NotFound:
            return None

    async def tidy(self) -> None:
        await self._hop(self._sweep)

    async def delete(self, uri: str) -> None:
        await self._hop(self._delete, self.name(uri))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        names = self._tree.walk(rules.check_prefix(prefix).split("/")[:-1])
        while some := await self._hop(lambda: [*islice(names, _LISTED)]):
            for name in some:
                yield self.uri(name)

    def uri(self, name: str) -> str:
        return f"file://{quote(self._base)}{quote(rules.check_name(name))}"

    async def check(self) -> Sequence[str]:
        content = uuid4().hex.encode()
        blob = await self.put(f"_check/{uuid4().hex}.txt", content, "text/plain")
        try:
            read, seen = await self.get(blob.uri), await self.stat(blob.uri)
        finally:
            await self.delete(blob.uri)
        if read != content or seen != blob:
            raise Unavailable(f"{self.root} did not give back what was written to it: check its disk")
        return ()

    async def close(self) -> None:
        await self._threads.close()

    def name(self, uri: str) -> str:
        match = _URI.fullmatch(uri)
        try:
            path = unquote(match[1], errors="strict") if match else ""
        except UnicodeDecodeError:
            path = ""
        if not path.startswith(self._base):
            raise InvalidInput(f"{uri!r} is not in this store (file://{quote(self._base)}...)")
        return rules.check_name(path.removeprefix(self._base))

    async def _hop(self, work: Callable[[*Ts], T], *args: *Ts, undo: Callable[[T], object] | None = None) -> T:
        try:
            with not_counted():
                return await self._threads.run(work, *args, undo=undo)
        except OSError as exc:
            raise self._meaning(exc) from exc

    def _meaning(self, exc: OSError) -> ConcordError:
        if exc.errno in _FULL:
            return Unavailable(f"no room left under {self.root} ({exc.strerror}): free some space, or raise the quota")
        if exc.errno in _FORBIDDEN:
            return Misconfigured(f"{self.root} must be readable and writable for user {os.geteuid()}: {exc}")
        return Unavailable(f"{self.root} cannot be used now: {exc}")

    # What follows runs in a thread, a whole put of small content in one go.

    def _put_whole(self, name: str, content: bytes, content_type: str, once: bool) -> Blob:
        part = self._begin()
        try:
            part.write(content)
            return self._finish(part, name, content_type, once)
        finally:
            part.discard()

    def _begin(self) -> Part:
        if self._swept:
            with suppress(FileNotFoundError):  # the folder of parts was removed
                return self._part()
        os.close(self._tree.open_root())
        folder = self.root / PARTS
        folder.mkdir(FOLDER_MODE, exist_ok=True)
        sweep(folder)
        self._swept = True
        return self._part()

    def _part(self) -> Part:
        return Part(self.root / PARTS / f"{uuid4().hex}.part")

    def _finish(self, part: Part, name: str, content_type: str, once: bool) -> Blob:
        """Give the part its name. Its folder is made again if deletes remove it meanwhile."""
        sha256 = part.seal(content_type, durable=self._durable)
        *folders, leaf = name.split("/")
        for _ in range(_RACES):
            with suppress(FileNotFoundError), self._tree.folder(folders, create=True) as folder:
                if not self._place(part, leaf, folder, name, once):
                    return self._already(name)
                return Blob(self.uri(name), part.size, sha256, content_type)
        raise Unavailable(f"{name}: its folder is removed again and again, or its part in {PARTS}, under {self.root}")

    def _place(self, part: Part, leaf: str, folder: int, name: str, once: bool) -> bool:
        """Whether the part is now the blob; not if it should be so only once and there is one already."""
        try:
            if once:
                os.link(part.path, leaf, dst_dir_fd=folder)  # unlike a rename, this never replaces
            else:
                os.rename(part.path, leaf, dst_dir_fd=folder)
                part.moved = True
        except FileExistsError:
            return False
        except IsADirectoryError:
            raise _has_blobs_inside(name) from None
        self._tree.sync(folder)
        return True

    def _already(self, name: str) -> Blob:
        try:
            return self._stat(name)
        except NotFound:
            if (self.root / name).is_dir():
                raise _has_blobs_inside(name) from None
            raise Unavailable(f"{name} was there when it was to be written, and then was not") from None

    def _open(self, name: str) -> int:
        """A descriptor of a blob. Raises NotFound if there is none."""
        try:
            return self._tree.open_file(name)
        except FileNotFoundError:
            raise NotFound(f"there is no blob {self.uri(name)}") from None

    def _read_whole(self, name: str) -> bytes:
        file = self._open(name)
        try:
            content = bytearray()
            while piece := os.read(file, 1 << 16):
                content += piece
            return bytes(content)
        finally:
            os.close(file)

    def _stat(self, name: str) -> Blob:
        with open(self._open(name), "rb") as file:  # noqa: PTH123 -- a descriptor
            size = os.fstat(file.fileno()).st_size
            facts = described(file.fileno())
            if facts is None:  # copied here without its attribute, or changed by hand
                facts = hashlib.file_digest(file, "sha256").hexdigest(), rules.guess_content_type(name)
        return Blob(self.uri(name), size, *facts)

    def _size(self, name: str) -> int:
        file = self._open(name)
        try:
            return os.fstat(file).st_size
        finally:
            os.close(file)

    def _sweep(self) -> None:
        with suppress(FileNotFoundError):
            sweep(self.root / PARTS)

    def _delete(self, name: str) -> None:
        *folders, leaf = name.split("/")
        with suppress(FileNotFoundError, IsADirectoryError):
            with self._tree.folder(folders) as folder:
                os.unlink(leaf, dir_fd=folder)
                self._tree.sync(folder)
            self._tree.prune(folders)


def _has_blobs_inside(name: str) -> InvalidInput:
    return InvalidInput(f"blob name {name!r}: there are blobs inside it, and one cannot lie in another")


def _read(file: int, start: int, end: int | None) -> bytes:
    return os.pread(file, rules.PIECE if end is None else min(rules.PIECE, end - start), start)
