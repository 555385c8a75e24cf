"""The port of URLs that were issued of conversations' files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.conversations.rows import IssuedUrl
from schemas.ids import Key


class IssuedUrls(Protocol):
    """The newest URL of each file, until the file is removed."""

    async def issued_urls(self, key: Key) -> list[IssuedUrl]:
        """Those of a job's files, expired ones included."""

    async def keep_issued_urls(self, urls: Sequence[IssuedUrl]) -> None:
        """Store them in place of earlier ones; without effect for a job that does not exist."""
