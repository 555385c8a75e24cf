"""The key that encrypts secrets in the embedded PostgreSQL: made once, and kept beside its data."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from uuid import uuid4

from schemas.accounts.sealing import new_key

#: Its name in CONCORD_DATA. It is readable by its owner only.
FILE = "secret.key"


def read(data: Path) -> str | None:
    """The key; None if there is none, or it cannot be read."""
    try:
        return (data / FILE).read_text().strip() or None
    except (OSError, ValueError):
        return None


def ensure(data: Path) -> str:
    """The key, which is made where there is none. Whoever comes second takes the first one's. Raises OSError."""
    path, part = data / FILE, data / f"{FILE}.{uuid4().hex}.part"
    if not path.exists():
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{new_key()}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link is made whole or not at all, and never over an existing file.
            with contextlib.suppress(FileExistsError):
                os.link(part, path)
        finally:
            part.unlink()
    return path.read_text().strip()
