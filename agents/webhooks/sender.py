"""Sends what is due to tenants' endpoints: the role `webhooks`.

A delivery is claimed as a row, attempted, and what follows is written. A worker that is killed between these loses
nothing: its claim runs out, and another one makes the attempt again, with the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from agents.runtime.failpoints import passing
from agents.webhooks.poster import TIMEOUT_S, Answer
from schemas.accounts.sealing import CannotOpen, Seals
from schemas.errors import Unavailable
from schemas.webhooks.events import MEDIA_TYPE
from schemas.webhooks.rows import Claim
from schemas.webhooks.signature import headers_of
from sinks.ports.webhooks.queue import WebhookQueue

log = logging.getLogger(__name__)

#: Requests of a worker at once. `sinks.ports.uploads.fair_share` leaves half of them to other tenants.
SLOTS: Final = 64

#: Seconds of a claim: longer than an attempt, and what is written after it, can take.
LEASE_S: Final = 60.0

#: Seconds for which the result of an attempt is offered to a database that is away.
RECORD_S: Final = LEASE_S - TIMEOUT_S - 20.0

#: Seconds between two looks for what is due; least seconds, while deliveries end.
LOOK_S, PAUSE_S = 0.5, 0.02

#: Seconds for which an orderly stop waits for requests that are under way.
STOP_S: Final = 3.0


class Posts(Protocol):
    """Sends a request; see `agents.webhooks.poster.Poster`."""

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send the body. Raises Unavailable."""


@dataclass
class Sender:
    """Sends deliveries until it is cancelled."""

    queue: WebhookQueue
    poster: Posts
    #: Told the result of each attempt, as a word.
    count: Callable[[str], None] = lambda _: None
    slots: int = SLOTS
    #: What decrypts the secrets that sign.
    seals: Seals = field(default_factory=Seals)
    #: Seconds since 1970, for receivers to compare with.
    clock: Callable[[], float] = time.time
    _sending: dict[asyncio.Task[None], Claim] = field(default_factory=dict)

    async def run(self) -> None:
        """Send what is due, as it becomes due."""
        try:
            while True:
                if not await self._start_due():
                    await self._wait()
                await asyncio.sleep(PAUSE_S)
        finally:
            await self._stop()

    async def _start_due(self) -> int:
        """Begin as many attempts as there are free slots; how many."""
        free = self.slots - len(self._sending)
        if not free:
            return 0
        tenants = Counter(claim.delivery.tenant_id for claim in self._sending.values())
        endpoints = Counter(claim.delivery.webhook_id for claim in self._sending.values())
        try:
            claims = await self.queue.claim_deliveries(tenants, endpoints, free, LEASE_S)
        except Unavailable as exc:
            log.debug("no deliveries were claimed: %s", exc)
            return 0
        for claim in claims:
            task = asyncio.create_task(self._deliver(claim), name=f"delivery {claim.delivery.id}")
            self._sending[task] = claim
            task.add_done_callback(self._ended)
        return len(claims)

    async def _wait(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(LOOK_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        claim = self._sending.pop(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("delivery %d failed here; it is tried again later", claim.delivery.id, exc_info=exc)

    async def _stop(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending, timeout=STOP_S)
        for task in list(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _deliver(self, claim: Claim) -> None:
        passing("webhooks.claimed")
        delivery, body = claim.delivery, claim.delivery.body.encode()
        try:
            secrets = self._opened(claim)
        except CannotOpen as exc:
            await self._pause(claim, str(exc))
            return
        headers = headers_of(secrets, delivery.event_id, int(self.clock()), body)
        headers |= {"Content-Type": MEDIA_TYPE, "User-Agent": "Concord"}
        try:
            answer = await self.poster.post(claim.url, headers, body)
        except Unavailable as exc:
            log.warning("a webhook was not sent, and is tried again in a minute: %s", exc)
            return
        passing("webhooks.sent")
        await self._record(claim, answer)
        passing("webhooks.recorded")
        attempt = answer.attempt
        self.count("delivered" if attempt.is_success else "refused" if attempt.status else "unanswered")

    def _opened(self, claim: Claim) -> list[str]:
        """The secrets that sign. One that is replaced already may be lost. Raises CannotOpen if the newest one is."""
        of = claim.delivery.tenant_id, claim.delivery.webhook_id
        opened = [self.seals.open(text, *of) for text in claim.secrets[:1]]
        for text in claim.secrets[1:]:
            with contextlib.suppress(CannotOpen):
                opened.append(self.seals.open(text, *of))
        return opened

    async def _pause(self, claim: Claim, reason: str) -> None:
        """Pause an endpoint whose events cannot be signed; if the database is away, the claim runs out."""
        of = claim.delivery.webhook_id, claim.delivery.tenant_id
        try:
            if await self.queue.pause_unsigned(claim, reason):
                log.error("the webhook %s of %s is paused, and its events wait: %s", *of, reason)
                self.count("unsigned")
        except Unavailable as exc:
            log.warning("the webhook %s of %s cannot be sent to: %s; %s", *of, reason, exc)

    async def _record(self, claim: Claim, answer: Answer) -> None:
        """Write what follows; if the database is away for longer than the claim, the delivery is attempted again."""
        give_up = time.monotonic() + RECORD_S
        while True:
            try:
                await self.queue.record_attempt(claim, answer.attempt, answer.retry_after)
                return
            except Unavailable as exc:
                if time.monotonic() > give_up:
                    log.warning("delivery %d is attempted again: %s", claim.delivery.id, exc)
                    return
                await asyncio.sleep(1)
