"""The port of the ledger of mails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.mail.rows import Mail, MailState


class MailLedger(Protocol):
    """A row for each run of which a report is mailed. Each change carries the number of the attempt that makes it, and
    is refused if another attempt has begun since.
    """

    async def begin_mail(self, mail: Mail) -> Mail:
        """Store the row unless the run has one, and return the one that it has then."""

    async def claim_mail(self, mail: Mail) -> Mail | None:
        """Begin the next attempt at a mail that waits, with the version, generation and Message-ID given; None if it
        has changed since it was read.
        """

    async def keep_mail(self, mail: Mail) -> bool:
        """Store what an attempt has reached; False if another has begun since, or the row is gone."""

    async def mail(self, tenant_id: str, job_id: str, run: int) -> Mail | None:
        """The run's mail."""

    async def mails(self, states: Sequence[MailState], limit: int) -> list[Mail]:
        """Mails of all tenants in these states, the newest first."""
