"""The double of the ledger of mails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.mail.rows import Mail, MailState
from sinks.memory.state import MemoryState
from sinks.ports.mail.ledger import MailLedger


@dataclass
class MemoryMailLedger(MemoryState, MailLedger):
    """`MailLedger` in this process."""

    async def begin_mail(self, mail: Mail) -> Mail:
        """Store the row unless the run has one, and return the one that it has then."""
        now = self.clock()
        return self.sent_mails.setdefault(_key(mail), replace(mail, created_at=now, updated_at=now))

    async def claim_mail(self, mail: Mail) -> Mail | None:
        """Begin the next attempt at a mail that waits."""
        row = self.sent_mails.get(_key(mail))
        if row is None or row.attempts != mail.attempts or row.state != "waiting":
            return None
        self.sent_mails[_key(mail)] = replace(
            row,
            attempts=row.attempts + 1,
            transcript_version=mail.transcript_version,
            generation=mail.generation,
            message_id=mail.message_id,
            updated_at=self.clock(),
        )
        return self.sent_mails[_key(mail)]

    async def keep_mail(self, mail: Mail) -> bool:
        """Store what an attempt has reached."""
        row = self.sent_mails.get(_key(mail))
        if row is None or row.attempts != mail.attempts:
            return False
        self.sent_mails[_key(mail)] = replace(mail, updated_at=self.clock())
        return True

    async def mail(self, tenant_id: str, job_id: str, run: int) -> Mail | None:
        """The run's mail."""
        return self.sent_mails.get((tenant_id, job_id, run))

    async def mails(self, states: Sequence[MailState], limit: int) -> list[Mail]:
        """Mails in these states, the newest first."""
        found = [mail for mail in self.sent_mails.values() if mail.state in states]
        return sorted(found, key=lambda mail: mail.updated_at or self.clock(), reverse=True)[:limit]


def _key(mail: Mail) -> tuple[str, str, int]:
    return mail.tenant_id, mail.job_id, mail.run
