"""Blobs of `LocalStore` while they are written, and what a finished file tells about its content besides its bytes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds without a write after which a part was left behind by a killed process: one whose lock is free, and any.
UNLOCKED_AGE, PART_AGE = 10.0, 3600.0

#: The extended attribute with what the bytes do not tell. Set before the rename, so as atomic as the bytes are.
ATTRIBUTE: Final = "user.concord.blob"

#: Recordings are private: only the user of this process may read them.
_FILE_MODE: Final = 0o600

_UNSUPPORTED: Final = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP})


class Part:
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
        # Held until the process ends, however that is. Not every file system has locks; there the age counts.
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, piece: bytes) -> None:
        """Append bytes."""
        self._digest.update(piece)
        self.size += len(piece)
        left = memoryview(piece)
        while left:
            left = left[os.write(self._file, left) :]

    def seal(self, content_type: str, *, durable: bool) -> str:
        """End writing; the hex digest of the content."""
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


def sweep(folder: Path) -> None:
    """Remove parts that killed processes left behind."""
    for part in folder.iterdir():
        with suppress(FileNotFoundError):  # another process sweeps too
            age = time.time() - part.stat().st_mtime
            if age > PART_AGE or (age > UNLOCKED_AGE and _is_unlocked(part)):
                part.unlink()


def _is_unlocked(part: Path) -> bool:
    """Whether the process that wrote the part has ended; False also where that cannot be told."""
    file = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _describe(file: int, sha256: str, content_type: str) -> None:
    """Keep digest and content type with the file, where the file system can; else `stat` computes and guesses them."""
    if sys.platform != "linux":  # Python has no extended attributes elsewhere
        return
    facts = {"sha256": sha256, "content_type": content_type, "mtime_ns": os.fstat(file).st_mtime_ns}
    try:
        os.setxattr(file, ATTRIBUTE, json.dumps(facts).encode())
    except OSError as exc:
        if exc.errno not in _UNSUPPORTED:
            raise


def described(file: int) -> tuple[str, str] | None:
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
