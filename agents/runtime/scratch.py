"""Temporary folders that are removed at exit and, after a kill -9, by the next process that creates one."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

#: Prefix of the folders of temporary files.
PREFIX: Final = "concord-work-"


@contextlib.contextmanager
def temporary_files() -> Iterator[Path]:
    """Direct all temporary files of this process, those of libraries too, into one folder, and yield its path."""
    with folder(Path(tempfile.gettempdir()), PREFIX) as path:
        previous, tempfile.tempdir = tempfile.tempdir, str(path)
        try:
            yield path
        finally:
            tempfile.tempdir = previous


@contextlib.contextmanager
def folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, removed at the end of the context; also removes those that killed processes have left.

    A lock on the folder shows that its process runs: the kernel releases it when the process ends, however that is.
    Raises OSError when the folder cannot be created.
    """
    _sweep(parent, prefix)
    with contextlib.ExitStack() as stack:
        lock = None
        while lock is None:  # another process may remove the folder before it is locked
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent, prefix=prefix)))
            lock = _locked(path)
        stack.callback(os.close, lock)
        yield path


def _sweep(parent: Path, prefix: str) -> None:
    """Remove the folders of processes that have ended."""
    for path in parent.glob(f"{prefix}*"):
        lock = _locked(path)
        if lock is None:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                shutil.rmtree(path, ignore_errors=True)
                log.info("removed %s, left behind by a process that was killed", path)
        finally:
            os.close(lock)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the folder's lock; None if another process holds it, or the folder does not exist."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    os.close(lock)
    return None
