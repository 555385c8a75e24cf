"""Recordings in folders that an operator opens to `file://`: read by descriptor, beneath a root, through no link.

What is checked is what is read, whatever is renamed or linked meanwhile; the blobs and the servers of this installation
are never read, by whatever path a root contains them.
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

#: What opening says when this process or machine has no descriptor or memory left.
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

#: What opening says when a file system that is mounted here does not work now.
_FAILING: Final = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN})

#: O_PATH, where there is such a thing: a folder that may be passed through need not be readable.
_FOLDER: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
#: O_NONBLOCK: opening a pipe or a device must not wait for anybody.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_NONE = "audio_uri: there is no such file under the folders that CONCORD_AUDIO_ROOTS allows"


@dataclass(frozen=True, slots=True)
class AudioFiles:
    """The folders that may be read, and those within or around them that may not."""

    roots: tuple[Path, ...]
    #: Where this installation keeps blobs and servers' data.
    own: tuple[Path, ...] = ()
    max_bytes: int = 2 << 30

    def open(self, uri: str) -> int:
        """The descriptor of the file behind a `file://` URI, which is regular, and not too large. Blocks.

        Percent-encoded, as the standard has it, or as it is: who writes a space or a `?` means that.
        Raises `RefusedLocation`, `RefusedMedia`, `Transient` when its file system does not work, `Unavailable`.
        """
        path = path_of(uri)
        for spelled in dict.fromkeys((unquote(path, errors="surrogateescape"), path)):
            for root, names in self._beneath(spelled):
                file = self._opened(root, names)
                if file is not None:
                    return file
        raise RefusedLocation(_NONE)

    def _beneath(self, path: str) -> Iterator[tuple[Path, list[str]]]:
        """The roots that the path begins with, as they were given or as they really are, and the names from there."""
        names = [name for name in path.split("/") if name not in ("", ".")]
        if ".." in names:
            raise RefusedLocation("audio_uri: a path in file:// may not contain `..`")
        for root in self.roots:
            for spelled in dict.fromkeys((root, _real(root))):
                length = len(spelled.parts) - 1
                if names[:length] == [*spelled.parts[1:]] and len(names) > length:
                    yield root, names[length:]

    def _opened(self, root: Path, names: Sequence[str]) -> int | None:
        try:
            file = self._walked(root, names)
        except ValueError:  # NUL, or what the file system's encoding does not have
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

    def _walked(self, root: Path, names: Sequence[str]) -> int:
        """The descriptor of what lies there, every folder on the way compared with our own."""
        own = {_identity(folder.stat()) for folder in self.own if folder.exists()}
        with _Folder(root, own) as folder:
            folder.check_above()
            for name in names[:-1]:
                folder.enter(name)
            return os.open(names[-1], _FILE, dir_fd=folder.descriptor)

    def _check_file(self, file: int) -> None:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise RefusedLocation(_NONE)
        if about.st_nlink > 1 and _is_blob(file):
            raise RefusedLocation("audio_uri: this file is a blob of this installation, linked here")
        if not about.st_size:  # nor what the kernel only pretends to be a file, as in /proc
            raise RefusedMedia("the file is empty")
        if about.st_size > self.max_bytes:
            raise RefusedMedia(f"the file has {about.st_size} bytes; at most {self.max_bytes} are accepted")


class _Folder:
    """An open folder; a context manager. Refuses to be one of `own`."""

    def __init__(self, root: Path, own: set[tuple[int, int]]) -> None:
        self._own = own
        self.descriptor = os.open(root, _FOLDER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def enter(self, name: str) -> None:
        """Go into a folder of this one, which is no link."""
        inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.descriptor)
        os.close(self.descriptor)
        self.descriptor = inner
        self._check(inner)

    def check_above(self) -> None:
        """Check this folder and those that it lies in, up to the top."""
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
    """The path in a `file://` URI, as it is written there."""
    host, slash, path = uri.partition("://")[2].partition("/")
    if host.lower() not in ("", "localhost"):
        raise RefusedLocation("audio_uri: file:// must name no host")
    return slash + path


def _identity(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


def _real(root: Path) -> Path:
    try:
        return root.resolve()
    except (OSError, RuntimeError):
        return root


def _is_blob(file: int) -> bool:
    with suppress(OSError, AttributeError):  # Python has no extended attributes but on Linux
        return bool(os.getxattr(file, ATTRIBUTE))
    return False
