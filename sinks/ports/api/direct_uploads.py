"""The port of recordings that clients upload straight into the store, before a job is made of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectUpload:
    """A recording that is to come."""

    tenant_id: str
    upload_id: UUID
    #: The job that will be made of it.
    job_id: str
    #: Where it will lie in the store.
    uri: str
    size_bytes: int
    #: The fields of `AudioUploaded`, as JSON.
    upload: dict[str, Any]
    #: SHA-256 of the token in the URL, where the recording comes through Concord itself.
    token_hash: bytes | None = field(default=None, repr=False)
    #: The store's id of the parts that it comes in; None where it comes as one.
    parts_id: str | None = None
    expires_at: datetime


class DirectUploads(Protocol):
    """Rows of uploads that have begun, for two days."""

    async def begin_upload(self, upload: DirectUpload) -> None:
        """Note an upload. A request that is executed again replaces its own."""

    async def direct_upload(self, upload_id: UUID) -> DirectUpload | None:
        """The upload with this id; None for an unknown one, and for another tenant's if a tenant asks."""

    async def expired_parts(self, seconds: float, limit: int) -> list[DirectUpload]:
        """Some uploads in parts that expired so many seconds ago."""

    async def forget_parts(self, uploads: Collection[UUID]) -> None:
        """Note that the parts of these uploads are removed."""
