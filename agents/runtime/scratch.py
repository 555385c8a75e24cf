"""Temporary files of a process that may be killed: in a folder of its own, which the next process removes."""

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

#: What the folders are called in which processes keep their temporary files.
PREFIX: Final = "concord-work-"


@contextlib.contextmanager
def temporary_files() -> Iterator[Path]:
    """Let everything in this process that makes temporary files (libraries, too) make them in a folder of its own."""
    with folder(Path(tempfile.gettempdir()), PREFIX) as own:
        before, tempfile.tempdir = tempfile.tempdir, str(own)
        try:
            yield own
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder, removed at the end. After a kill -9 it is removed by whoever makes the next of that prefix there.

    A lock on the folder says that its process lives: it ends with the process, however that ends.
    """
    _sweep(parent, prefix)
    with contextlib.ExitStack() as stack:
        lock = None
        while lock is None:  # somebody who sweeps may have found it before it was locked
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent, prefix=prefix)))
            lock = _locked(path)
        stack.callback(os.close, lock)
        yield path


def _sweep(parent: Path, prefix: str) -> None:
    """Remove the folders of processes that are gone."""
    for path in parent.glob(f"{prefix}*"):
        lock = _locked(path)
        if lock is None:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                shutil.rmtree(path, ignore_errors=True)
                log.info("removed %s, which a process that was killed had left", path)
        finally:
            os.close(lock)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the folder's lock; None if another process has it, or the folder is gone."""
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
