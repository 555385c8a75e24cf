"""The file with the addresses of the servers of a running `concord up`, for other commands on the same CONCORD_DATA."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

#: Its name in CONCORD_DATA. It is readable by its owner only, because the database's URL has a password.
FILE = "servers.json"


def write(data: Path, addresses: dict[str, str]) -> None:
    """Write addresses by environment variable, e.g. KAFKA_BOOTSTRAP_SERVERS. Raises OSError."""
    part = data / f"{FILE}.part"
    part.unlink(missing_ok=True)  # an existing file would keep its mode
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(orjson.dumps(addresses))
    part.rename(data / FILE)


def read(data: Path) -> dict[str, str]:
    """The addresses that were written last; empty if there are none, or they cannot be read."""
    try:
        addresses: dict[str, str] = orjson.loads((data / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return addresses


def clear(data: Path) -> None:
    """Remove the file, because the servers have stopped. Safe to call twice."""
    (data / FILE).unlink(missing_ok=True)
