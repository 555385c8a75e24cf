"""The port of deletions: jobs, or their files, that are removed for good; see `schemas.jobs.deletion`."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from schemas.ids import Key
from schemas.jobs.deletion import Deletion, Scope


class Deletions(Protocol):
    """A deletion begins in one transaction, and is worked on in passes by whoever claims it."""

    async def begin_deletion(self, key: Key, by: str, scope: Scope = "job") -> Deletion | None:
        """Delete the job's row with what belongs to it, end its run, and publish both; or with the scope "files" forget
        its recording, unless its run has not ended. `by` names who asks. None if there is no such job.

        From then on every step of the deleted runs is refused.
        """

    async def deletion(self, tenant_id: str, job_id: str) -> Deletion | None:
        """The newest deletion of a job with this id; None if none was deleted."""

    async def due_deletions(self, limit: int, claim_s: float) -> list[Deletion]:
        """Claim at most `limit` deletions whose next pass is due, for so many seconds."""

    async def erase_rows(self, deletion: Deletion, hold_s: float) -> Deletion:
        """Delete what rows are left of the deleted runs, and count them in the receipt, which is returned. Tasks that
        work for these runs lose their leases for `hold_s` seconds, and are cancelled by their workers.
        """

    async def put_off_deletion(self, deletion: Deletion, due_at: datetime, error: str) -> None:
        """Have the next pass begin then, and say why this one has failed. What it has stored of its progress stays. No
        effect if another pass was claimed or became necessary meanwhile.
        """

    async def keep_deletion(self, deletion: Deletion) -> bool:
        """Store what a pass has reached. False if another pass was claimed or became necessary meanwhile: then nothing
        is stored, and that pass does it.
        """
