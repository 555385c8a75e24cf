"""Blobs as plain files under one folder: the default store, and the fallback when S3 is away."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import sys
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple
from urllib.parse import quote, unquote
from uuid import uuid4

from schemas.errors import ConcordError, InvalidInput, Misconfigured, NotFound, Unavailable
from schemas.time_limit import not_counted
from sinks.blobs import rules
from sinks.blobs.threads import Threads
from sinks.ports.blobs import Blob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Where blobs are written before they are renamed into place. One folder for all (names cannot begin with a dot, so no
#: blob lies in it): what a killed process left is found at once, however many million blobs there are.
PARTS: Final = ".parts"

#: Seconds without a write after which a part is what a killed process left.
PART_AGE: Final = 3600.0

#: The extended attribute with what the bytes do not tell. Set before the rename, so as atomic as the bytes are.
ATTRIBUTE: Final = "user.concord.blob"

#: Recordings are private: whoever runs this may read them, others on this machine may not.
_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700

#: Names a listing fetches at once.
_LISTED: Final = 500

#: How often a put makes its folder again when deletes keep removing it.
_RACES: Final = 100

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_UNSUPPORTED: Final = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP})
#: What opening says of a symbolic link that it must not follow, or of a file that should be a folder.
_NO_FOLDER: Final = frozenset({errno.ENOTDIR, errno.ELOOP})

_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: O_NONBLOCK: a pipe that somebody left among the blobs must not hold a thread.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_URI = re.compile(r"file://(?:localhost)?(/[^?#]*)")


class LocalStore:
    """A folder; URIs are `file://` and the percent-encoded absolute path. Several processes may share it.

    A blob is written to a part, synced, renamed, and its folder synced. `durable=False` leaves out the syncs: still
    atomic, and safe when the process is killed, but a power cut may take what was acknowledged seconds before.
    A symbolic link on the way from the root to a blob is refused: what was opened lies where its name says, or every
    segment is looked at by itself.
    """

    def __init__(self, root: Path, *, durable: bool = True, threads: int = 4) -> None:
        # Links in the root itself are not resolved: it may be a link to another disk, and URIs say what settings say.
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 -- Path.absolute keeps `..`
        self._base = os.path.join(self.root, "")  # noqa: PTH118 -- with its slash at the end, also if it is `/`
        self._durable = durable
        self._rooted = self._swept = False
        self._real = self.root
        self._threads = Threads(threads)

    async def put(
        self, name: str, content: bytes | AsyncIterator[bytes], content_type: str, *, once: bool = False
    ) -> Blob:
        rules.check_name(name)
        rules.check_content_type(content_type)
        if isinstance(content, bytes):
            return await self._hop(self._put_whole, name, content, content_type, once)
        part = await self._hop(self._begin, undo=_Part.discard)
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
        os.close(await self._hop(self._open, name, undo=os.close))  # it is there, and no link leads to it
        yield self.root / name

    async def presigned_url(self, uri: str, expires_s: int) -> str | None:
        rules.check_expiry(expires_s)
        self.name(uri)
        return None

    async def delete(self, uri: str) -> None:
        await self._hop(self._delete, self.name(uri))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        names = self._walk(rules.check_prefix(prefix).split("/")[:-1])
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

    def _begin(self) -> _Part:
        if self._swept:
            with suppress(FileNotFoundError):  # somebody tidied up
                return self._part()
        os.close(self._open_root())
        folder = self.root / PARTS
        folder.mkdir(_FOLDER_MODE, exist_ok=True)
        _sweep(folder)
        self._swept = True
        return self._part()

    def _part(self) -> _Part:
        return _Part(self.root / PARTS / f"{uuid4().hex}.part")

    def _finish(self, part: _Part, name: str, content_type: str, once: bool) -> Blob:
        """Give the part its name. Whatever deletes do meanwhile, its folder is there or is made again."""
        sha256 = part.seal(content_type, durable=self._durable)
        *folders, leaf = name.split("/")
        for _ in range(_RACES):
            with suppress(FileNotFoundError), self._folder(folders, create=True) as folder:
                if not self._place(part, leaf, folder, name, once):
                    return self._already(name)
                return Blob(self.uri(name), part.size, sha256, content_type)
        raise Unavailable(f"{name}: somebody keeps removing its folder, or its part in {PARTS}, under {self.root}")

    def _place(self, part: _Part, leaf: str, folder: int, name: str, once: bool) -> bool:
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
        self._sync(folder)
        return True

    def _already(self, name: str) -> Blob:
        try:
            return self._stat(name)
        except NotFound:
            if (self.root / name).is_dir():
                raise _has_blobs_inside(name) from None
            raise Unavailable(f"{name} was there when it was to be written, and then was not") from None

    def _sync(self, folder: int) -> None:
        if self._durable:
            os.fsync(folder)

    def _open_root(self) -> int:
        """The root, made if it is not there when first used. Not later: what is gone then is a disk."""
        if not self._rooted:
            self.root.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
            self._real = self.root.resolve()
            self._rooted = True
        try:
            return os.open(self.root, _OPEN_FOLDER)
        except FileNotFoundError:
            raise Unavailable(f"{self.root} is gone: is its disk mounted?") from None

    @contextmanager
    def _folder(self, names: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """The descriptor of a folder. What is done relative to it stays in it, whatever is linked meanwhile."""
        found = self._open_at_once(names, _OPEN_FOLDER)
        here, names = (self._open_root(), names) if found is None else (found, ())
        try:
            for name in names:
                inner = self._enter(here, name, create=create)
                os.close(here)
                here = inner
            yield here
        finally:
            os.close(here)

    def _open_at_once(self, names: Sequence[str], flags: int) -> int | None:
        """The descriptor of what lies there, if no link led to it: then its path is what it should be. None to have a
        closer look, segment by segment.

        Each call to the system gives up Python's lock, and has to wait for it again: two are better than ten.
        """
        if not self._rooted:
            return None
        try:
            found = os.open(self._base + "/".join(names), flags)
        except OSError:
            return None
        with suppress(OSError):  # without /proc, too
            if Path(f"/proc/self/fd/{found}").readlink() == self._real.joinpath(*names):
                return found
        os.close(found)
        return None

    def _enter(self, here: int, name: str, *, create: bool) -> int:
        flags = _OPEN_FOLDER | os.O_NOFOLLOW
        try:
            return os.open(name, flags, dir_fd=here)
        except FileNotFoundError:
            if not create:
                raise
        except OSError as exc:
            if exc.errno in _NO_FOLDER:
                raise _no_folder(here, name, create=create) from None
            raise
        with suppress(FileExistsError):
            os.mkdir(name, _FOLDER_MODE, dir_fd=here)
            self._sync(here)
        return os.open(name, flags, dir_fd=here)

    def _open(self, name: str) -> int:
        """The descriptor of a blob; NotFound if there is none."""
        *folders, leaf = name.split("/")
        try:
            file = self._open_at_once((*folders, leaf), _OPEN_FILE)
            if file is None:
                with self._folder(folders) as folder:
                    file = os.open(leaf, _OPEN_FILE, dir_fd=folder)
        except FileNotFoundError:
            raise NotFound(f"there is no blob {self.uri(name)}") from None
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise InvalidInput(f"{self.root / name} is a symbolic link: not followed") from None
            raise
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise NotFound(f"there is no blob {self.uri(name)}")
        return file

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
            described = _described(file.fileno())
            if described is None:  # copied here without its attribute, or changed by hand
                described = hashlib.file_digest(file, "sha256").hexdigest(), rules.guess_content_type(name)
        return Blob(self.uri(name), size, *described)

    def _delete(self, name: str) -> None:
        *folders, leaf = name.split("/")
        with suppress(FileNotFoundError, IsADirectoryError):
            with self._folder(folders) as folder:
                os.unlink(leaf, dir_fd=folder)
                self._sync(folder)
            self._prune(folders)

    def _prune(self, folders: Sequence[str]) -> None:
        """Remove the folders that are empty now, innermost first. rmdir refuses others: no blob goes along."""
        with suppress(OSError):
            while folders:
                *folders, last = folders
                with self._folder(folders) as folder:
                    os.rmdir(last, dir_fd=folder)

    def _walk(self, folders: Sequence[str]) -> Iterator[str]:
        """The names of all blobs below a folder, in no order; what others left there is passed over."""
        with suppress(FileNotFoundError), self._folder(folders):
            pass  # no link leads there
        waiting = ["/".join(folders)]
        while waiting:
            for name, is_folder in _entries(self.root, waiting.pop()):
                if is_folder:
                    waiting.append(name)
                else:
                    yield name


class _Part:
    """A blob that is being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Whether it has become a blob.
        self.moved = False
        #: Bytes so far.
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        self._open = True

    def write(self, piece: bytes) -> None:
        self._digest.update(piece)
        self.size += len(piece)
        left = memoryview(piece)
        while left:
            left = left[os.write(self._file, left) :]

    def seal(self, content_type: str, *, durable: bool) -> str:
        """End writing; its sha256."""
        sha256 = self._digest.hexdigest()
        _describe(self._file, sha256, content_type)
        if durable:
            os.fsync(self._file)
        self._close()
        return sha256

    def discard(self) -> None:
        """Remove it, unless it has become a blob. Safe to call twice."""
        self._close()
        if not self.moved:
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._file)


def _has_blobs_inside(name: str) -> InvalidInput:
    return InvalidInput(f"blob name {name!r}: there are blobs inside it, and one cannot lie in another")


def _sweep(folder: Path) -> None:
    for part in folder.iterdir():
        with suppress(FileNotFoundError):  # another process sweeps too
            if time.time() - part.stat().st_mtime > PART_AGE:
                part.unlink()


def _read(file: int, start: int, end: int | None) -> bytes:
    return os.pread(file, rules.PIECE if end is None else min(rules.PIECE, end - start), start)


def _no_folder(here: int, name: str, *, create: bool) -> OSError | InvalidInput:
    """Why a segment on the way to a blob cannot be entered."""
    if stat.S_ISLNK(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
        return InvalidInput(f"{name!r} is a symbolic link: not followed, as blobs lie in the store's own folder")
    if create:
        return InvalidInput(f"{name!r} is a blob: no other blob can lie inside it")
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _entries(root: Path, folder: str) -> Iterator[tuple[str, bool]]:
    """Name and whether it is a folder, for all that may be ours; none if the folder is gone by now."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(root / folder) as entries:
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if rules.is_name(name) and (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
                yield name, entry.is_dir(follow_symlinks=False)


def _describe(file: int, sha256: str, content_type: str) -> None:
    """Keep digest and content type with the file, where the file system can; else `stat` finds out or guesses."""
    if sys.platform != "linux":  # Python has no extended attributes elsewhere
        return
    facts = {"sha256": sha256, "content_type": content_type, "mtime_ns": os.fstat(file).st_mtime_ns}
    try:
        os.setxattr(file, ATTRIBUTE, json.dumps(facts).encode())
    except OSError as exc:
        if exc.errno not in _UNSUPPORTED:
            raise


def _described(file: int) -> tuple[str, str] | None:
    """Digest and content type; None if they were not kept, or the file was written to since."""
    if sys.platform != "linux":
        return None
    try:
        facts = json.loads(os.getxattr(file, ATTRIBUTE))
        if facts["mtime_ns"] == os.fstat(file).st_mtime_ns:
            return facts["sha256"], facts["content_type"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
