"""The port of `concord verify`: what rows say that the blob store and the providers can be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from schemas.ids import Key


class Verification(Protocol):
    """Records with named columns, in the order of their keys."""

    async def unended_requests(self, limit: int) -> list[Any]:
        """Provider requests of ended runs whose own end is not known: they may have been charged."""

    async def without_transcript(self, limit: int) -> list[Any]:
        """Completed jobs that have no transcript: tenant_id, job_id, run, completed_at."""

    async def files_after(self, tenant_id: str, job_id: str, run: int, kind: str, limit: int) -> list[Any]:
        """A page of stored files, those behind this key: tenant_id, job_id, run, kind, uri."""

    async def known_blobs(self, keys: Sequence[Key]) -> list[Any]:
        """What these jobs refer to: tenant_id, job_id, status, run, files, named (both lists of URIs). The status is
        None where there is no such job.
        """
