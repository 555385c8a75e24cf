"""The double of URLs that were issued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.conversations.rows import IssuedUrl
from schemas.ids import Key
from sinks.memory.state import MemoryState
from sinks.ports.conversations.issued_urls import IssuedUrls


@dataclass
class MemoryIssuedUrls(MemoryState, IssuedUrls):
    """`IssuedUrls` in this process."""

    #: By (tenant, job, uri).
    issued: dict[tuple[str, str, str], IssuedUrl] = field(default_factory=dict)

    async def issued_urls(self, key: Key) -> list[IssuedUrl]:
        """Those of a job's files."""
        return [one for of, one in sorted(self.issued.items()) if of[:2] == key]

    async def keep_issued_urls(self, urls: Sequence[IssuedUrl]) -> None:
        """Store them."""
        there_are = {(file.tenant_id, file.job_id, file.uri) for file in self.files.values()}
        for one in urls:
            if (key := (one.tenant_id, one.job_id, one.uri)) in there_are:
                self.issued[key] = one
