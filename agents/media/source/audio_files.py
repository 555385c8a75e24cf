"""Opens recordings for `file://` URIs: only below the roots that the operator allows, and through no symbolic link.

The file is opened once and all checks are made on its descriptor, so that renames and new links between a check and the
reading have no effect. The blobs and the servers' data of this installation are never read, by whatever path they can
be reached below a root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote

from schemas.errors import RefusedLocation, RefusedMedia, Transient, Unavailable
from sinks.blobs.local_parts import ATTRIBUTE

#: Errors of `open` that mean that this process or machine has no descriptors or memory left.
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

#: Errors of `open` that mean that a mounted file system does not work now.
_FAILING: Final = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN})

#: O_PATH, if the system has it: a folder on the way to a file need not be readable.
_FOLDER: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
#: O_NONBLOCK: opening a pipe must not wait for a writer.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_NONE = "audio_uri: there is no such file under the folders that CONCORD_AUDIO_ROOTS allows"


@dataclass(frozen=True, slots=True)
class AudioFiles:
    """The files that `file://` URIs may name."""

    #: Folders below which files may be read.
    roots: tuple[Path, ...]
    #: Folders with blobs and servers' data of this installation, which are never read, whether within or around roots.
    own: tuple[Path, ...] = ()
    max_bytes: int = 2 << 30

    def open(self, uri: str) -> int:
        """The descriptor of the regular file behind a `file://` URI. Blocks.

        The path is percent-decoded first, as the standard has it; if there is no such file, it is taken literally.

        Raises:
            RefusedLocation: There is no such file below the roots, or it may not be read.
            RefusedMedia: The file is empty or too large.
            Transient: Its file system does not work now.
            Unavailable: This process or machine has no descriptors or memory left.
        """
        path = path_of(uri)
        for spelling in dict.fromkeys((unquote(path, errors="surrogateescape"), path)):
            for root, names in self._beneath(spelling):
                file = self._opened(root, names)
                if file is not None:
                    return file
        raise RefusedLocation(_NONE)

    def _beneath(self, path: str) -> Iterator[tuple[Path, list[str]]]:
        """The roots, as configured or with links resolved, that contain the path, each with the names below it."""
        names = [name for name in path.split("/") if name not in ("", ".")]
        if ".." in names:
            raise RefusedLocation("audio_uri: a path in file:// may not contain `..`")
        for root in self.roots:
            for spelling in dict.fromkeys((root, _real(root))):
                length = len(spelling.parts) - 1
                if names[:length] == [*spelling.parts[1:]] and len(names) > length:
                    yield root, names[length:]

    def _opened(self, root: Path, names: Sequence[str]) -> int | None:
        """The checked descriptor, or None if there is no such file or it cannot be opened."""
        try:
            file = self._walk(root, names)
        except ValueError:  # NUL, or a character that the file system's encoding does not have
            return None
        except OSError as exc:
            if exc.errno in EXHAUSTED:
                raise Unavailable(f"no file can be opened: {exc.strerror}") from exc
            if exc.errno in _FAILING:
                raise Transient(f"audio_uri: the file cannot be read now ({exc.strerror})") from exc
            return None
        try:
            self._check_file(file)
        except BaseException:
            os.close(file)
            raise
        return file

    def _walk(self, root: Path, names: Sequence[str]) -> int:
        """The descriptor of the entry of this path. Every folder on the way is compared with those in `own`."""
        own = {_identity(folder.stat()) for folder in self.own if folder.exists()}
        with _Folder(root, own) as folder:
            folder.check_above()
            for name in names[:-1]:
                folder.enter(name)
            return os.open(names[-1], _FILE, dir_fd=folder.descriptor)

    def _check_file(self, file: int) -> None:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise RefusedLocation(_NONE)
        if status.st_nlink > 1 and _is_blob(file):
            raise RefusedLocation("audio_uri: this file is a blob of this installation, linked here")
        if not status.st_size:  # this also refuses the files in /proc, whose size is 0
            raise RefusedMedia("the file is empty")
        if status.st_size > self.max_bytes:
            raise RefusedMedia(f"the file has {status.st_size} bytes; at most {self.max_bytes} are accepted")


class _Folder:
    """An open folder, as a context manager. Folders in `own` (device and inode numbers) are refused."""

    def __init__(self, root: Path, own: set[tuple[int, int]]) -> None:
        self._own = own
        self.descriptor = os.open(root, _FOLDER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def enter(self, name: str) -> None:
        """Open a folder in this one, which must not be a link, in its place."""
        inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.descriptor)
        os.close(self.descriptor)
        self.descriptor = inner
        self._check(inner)

    def check_above(self) -> None:
        """Check this folder and all those that contain it, up to `/`."""
        here, below = os.dup(self.descriptor), None
        try:
            while (identity := self._check(here)) != below:
                outer = os.open("..", _FOLDER, dir_fd=here)
                os.close(here)
                here, below = outer, identity
        finally:
            os.close(here)

    def _check(self, folder: int) -> tuple[int, int]:
        identity = _identity(os.fstat(folder))
        if identity in self._own:
            raise RefusedLocation("audio_uri: this folder is the installation's own and is not read by file://")
        return identity


def path_of(uri: str) -> str:
    """The path in a `file://` URI, still percent-encoded.

    Raises:
        RefusedLocation: The URI names another host than localhost.
    """
    host, slash, path = uri.partition("://")[2].partition("/")
    if host.lower() not in ("", "localhost"):
        raise RefusedLocation("audio_uri: file:// must name no host")
    return slash + path


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _real(root: Path) -> Path:
    try:
        return root.resolve()
    except (OSError, RuntimeError):
        return root


def _is_blob(file: int) -> bool:
    with suppress(OSError, AttributeError):  # Python supports extended attributes only on Linux
        return bool(os.getxattr(file, ATTRIBUTE))
    return False
