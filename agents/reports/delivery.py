"""One attempt to hand a mail over, with the ledger written before and behind what cannot be undone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from agents.runtime.failpoints import passing
from schemas.errors import Transient, Unavailable
from schemas.mail.addresses import domain_of
from schemas.mail.rows import ENDED, Attempt, Mail, after
from sinks.ports.mail.ledger import MailLedger
from sinks.ports.mail.transport import MailServer

#: Seconds before each further attempt: a greylisting server takes the second or third, one that is away has a day.
DELAYS_S: Final = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 28_800.0)

#: Seconds for which the answer of the server is offered to a database that is away.
RECORD_S: Final = 300.0

#: Seconds for which an orderly stop waits for the server's answer to a content that was sent.
STOP_S: Final = 3.0

#: Seconds after which a mail that nobody hands over any more is in doubt.
SETTLES_S: Final = 15.0

#: What a mail says that a worker was handing over when it ended.
LOST: Final = "a worker ended while it was handing the mail over: the mail server may have taken it"


class Superseded(Exception):
    """Another attempt has begun."""


@dataclass(frozen=True)
class Delivery:
    """Hands mails over to a server. The caller holds the lease of the mail: nobody else attempts it."""

    ledger: MailLedger
    server: MailServer
    sender: str
    #: Domains to which mail is sent, in lower case; empty for all.
    domains: frozenset[str] = frozenset()

    async def attempt(self, mail: Mail, content: bytes) -> Mail:
        """The row after an attempt at a mail that waits.

        Raises:
            Transient: It has certainly not been taken, and another attempt may succeed.
            Unavailable: The database is away.
        """
        claimed = await self.ledger.claim_mail(mail)
        if claimed is None:
            raise Transient("the mail has changed meanwhile")
        passing("mail.claimed")
        allowed = [one for one in claimed.waiting if not self.domains or domain_of(one) in self.domains]
        refused = {
            one: "this installation sends no mail to its domain" for one in claimed.waiting if one not in allowed
        }
        claimed = after(claimed, Attempt(refused=refused, answer=next(iter(refused.values()), "")))
        if claimed.state in ENDED:
            await self.ledger.keep_mail(claimed)
            return claimed
        return await self._send(claimed, content)

    async def settled(self, mail: Mail, now: datetime) -> Mail | None:
        """A mail that was found in the middle of being handed over, as in doubt; None while a worker may be at it."""
        if mail.updated_at is None or (now - mail.updated_at).total_seconds() < SETTLES_S:
            return None
        mail = replace(mail, state="in_doubt", answer=LOST)
        await self.ledger.keep_mail(mail)
        return mail

    async def _send(self, claimed: Mail, content: bytes) -> Mail:
        sending = False

        async def about_to() -> None:
            nonlocal sending
            if not await self.ledger.keep_mail(replace(claimed, state="sending", answer=LOST)):
                raise Superseded
            sending = True
            passing("mail.sending")

        async def send() -> Mail:
            result = await self.server.send(self.sender, claimed.waiting, content, about_to)
            passing("mail.sent")
            reached = after(claimed, result)
            return await self._record(self._put_off(reached, result.answer) if reached.waiting else reached)

        task = asyncio.create_task(send())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if sending:
                await asyncio.wait([task], timeout=STOP_S)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
            raise
        except Superseded as exc:
            raise Transient("another attempt at the mail has begun") from exc
        except Transient as exc:
            await self._record(self._put_off(claimed, str(exc)))
            raise

    def _put_off(self, mail: Mail, reason: str) -> Mail:
        """The row after an attempt that leaves somebody waiting: the last one gives them up."""
        if mail.state == "in_doubt":
            return mail
        if mail.attempts <= len(DELAYS_S):
            return replace(mail, state="waiting", answer=reason)
        why = f"given up after {mail.attempts} attempts: {reason}"
        return after(mail, Attempt(refused=dict.fromkeys(mail.waiting, why), answer=why))

    async def _record(self, mail: Mail) -> Mail:
        """Store what was reached, also if the database is away for a while; else the mail is in doubt."""
        give_up = time.monotonic() + RECORD_S
        while True:
            try:
                await self.ledger.keep_mail(mail)
            except Unavailable:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(1)
            else:
                passing("mail.recorded")
                return mail


def wait_s(mail: Mail) -> float:
    """Seconds from a failed attempt at the mail to the next."""
    return DELAYS_S[max(0, min(mail.attempts, len(DELAYS_S)) - 1)]
