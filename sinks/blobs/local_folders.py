"""The folders of `LocalStore`: files and folders below a root, opened so that no symbolic link leads out of it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from schemas.errors import InvalidInput, Unavailable
from sinks.blobs import rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Recordings are private: only the user of this process may read them.
FOLDER_MODE: Final = 0o700

#: The errors of opening a symbolic link that must not be followed, or a file that should be a folder.
_NO_FOLDER: Final = frozenset({errno.ENOTDIR, errno.ELOOP})

_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: O_NONBLOCK: a named pipe among the blobs must not block a thread.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FolderTree:
    """Blocking calls, for a thread. `durable` syncs every folder that changes.

    A symbolic link on the way from the root to a file is refused: either the opened file lies where its name says, or
    every segment is opened by itself.
    """

    def __init__(self, root: Path, *, durable: bool) -> None:
        # Links in the root itself are not resolved: it may be a link to another disk, and URIs say what settings say.
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 -- Path.absolute keeps `..`
        #: The root with its slash at the end, also if it is `/`.
        self.base = os.path.join(self.root, "")  # noqa: PTH118
        self._durable = durable
        self._rooted = False
        self._real = self.root

    def sync(self, folder: int) -> None:
        """Make the names in a folder survive a power cut."""
        if self._durable:
            os.fsync(folder)

    def open_root(self) -> int:
        """A descriptor of the root, which is made if it does not exist when first used. Not later: then a disk is gone.

        Raises Unavailable.
        """
        if not self._rooted:
            self.root.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            self._real = self.root.resolve()
            self._rooted = True
        try:
            return os.open(self.root, _OPEN_FOLDER)
        except FileNotFoundError:
            raise Unavailable(f"{self.root} is gone: is its disk mounted?") from None

    @contextmanager
    def folder(self, names: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """A descriptor of the folder; what is done relative to it stays in it, whatever is linked meanwhile.

        Raises FileNotFoundError if there is none and `create` is False, InvalidInput for a link, and for a blob where a
        folder has to be made.
        """
        at_once = self._open_at_once(names, _OPEN_FOLDER)
        here, names = (self.open_root(), names) if at_once is None else (at_once, ())
        try:
            for name in names:
                inner = self._enter(here, name, create=create)
                os.close(here)
                here = inner
            yield here
        finally:
            os.close(here)

    def _open_at_once(self, names: Sequence[str], flags: int) -> int | None:
        """A descriptor of what lies there, if no link led to it: then its path is what it should be. None if the path
        has to be opened segment by segment.

        Each system call releases the GIL and waits for it again: two are better than ten.
        """
        if not self._rooted:
            return None
        try:
            descriptor = os.open(self.base + "/".join(names), flags)
        except OSError:
            return None
        with suppress(OSError):  # without /proc, too
            if Path(f"/proc/self/fd/{descriptor}").readlink() == self._real.joinpath(*names):
                return descriptor
        os.close(descriptor)
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
            os.mkdir(name, FOLDER_MODE, dir_fd=here)
            self.sync(here)
        return os.open(name, flags, dir_fd=here)

    def open_file(self, name: str) -> int:
        """A descriptor of a regular file.

        Raises FileNotFoundError if there is none, InvalidInput for a symbolic link.
        """
        *folders, leaf = name.split("/")
        try:
            file = self._open_at_once((*folders, leaf), _OPEN_FILE)
            if file is None:
                with self.folder(folders) as folder:
                    file = os.open(leaf, _OPEN_FILE, dir_fd=folder)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise InvalidInput(f"{self.root / name} is a symbolic link: not followed") from None
            raise
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return file

    def prune(self, folders: Sequence[str]) -> None:
        """Remove the folders that are empty now, innermost first. rmdir refuses others: no blob goes along."""
        with suppress(OSError):
            while folders:
                *folders, last = folders
                with self.folder(folders) as folder:
                    os.rmdir(last, dir_fd=folder)

    def walk(self, folders: Sequence[str]) -> Iterator[str]:
        """The names of all blobs below a folder, in no order; what others left there is passed over."""
        with suppress(FileNotFoundError), self.folder(folders):
            pass  # no link leads there
        waiting = ["/".join(folders)]
        while waiting:
            for name, is_folder in _entries(self.root, waiting.pop()):
                if is_folder:
                    waiting.append(name)
                else:
                    yield name


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
