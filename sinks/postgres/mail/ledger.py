"""The ledger of mails on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.mail.rows import Mail, MailState
from sinks.ports.mail.ledger import MailLedger
from sinks.postgres.connection.port import PostgresPort
from sinks.postgres.sql.tables import MAILS


class PostgresMailLedger(PostgresPort, MailLedger):
    """`MailLedger` on a pool."""

    async def begin_mail(self, mail: Mail) -> Mail:
        """Store the row unless the run has one, and return the one that it has then."""
        await self._fetch("insert_mail", *MAILS.arguments([mail]))
        return await self.mail(mail.tenant_id, mail.job_id, mail.run) or mail

    async def claim_mail(self, mail: Mail) -> Mail | None:
        """Begin the next attempt at a mail that waits."""
        key = mail.tenant_id, mail.job_id, mail.run
        of = mail.transcript_version, mail.generation, mail.message_id
        rows = await self._fetch("claim_mail", *key, *of, mail.attempts)
        return MAILS.read(rows[0]) if rows else None

    async def keep_mail(self, mail: Mail) -> bool:
        """Store what an attempt has reached."""
        reached = mail.state, mail.waiting, mail.accepted, mail.refused, mail.answer
        return bool(await self._fetch("keep_mail", mail.tenant_id, mail.job_id, mail.run, mail.attempts, *reached))

    async def mail(self, tenant_id: str, job_id: str, run: int) -> Mail | None:
        """The run's mail."""
        rows = await self._fetch("mail", tenant_id, job_id, run)
        return MAILS.read(rows[0]) if rows else None

    async def mails(self, states: Sequence[MailState], limit: int) -> list[Mail]:
        """Mails in these states, the newest first."""
        return list(map(MAILS.read, await self._fetch("mails", list(states), limit)))
