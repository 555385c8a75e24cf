"""The doubles of webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from schemas.accounts.changes import account_change
from schemas.messages import Message
from schemas.webhooks.audit import changes_of, of_webhook, told_of
from schemas.webhooks.events import PAUSED, Announcement, announcements, of_endpoint
from schemas.webhooks.retry import Verdict, verdict
from schemas.webhooks.rows import Attempt, Claim, Delivery, DeliveryState, Endpoint
from sinks.memory.state import MemoryState
from sinks.ports.uploads import fair_share
from sinks.ports.webhooks.endpoints import ATTEMPTS, MAX_ENDPOINTS, OVERLAP_S, TooManyEndpoints, WebhookEndpoints
from sinks.ports.webhooks.queue import OF_ENDPOINT, WebhookQueue
from sinks.ports.webhooks.secrets import UNSIGNED, StoredSecret, StoredSecrets


@dataclass
class MemoryWebhooks(MemoryState, WebhookEndpoints, WebhookQueue, StoredSecrets):
    """`WebhookEndpoints`, `WebhookQueue` and `StoredSecrets` in this process."""

    _endpoints: dict[str, Endpoint] = field(default_factory=dict)
    #: By endpoint, secrets with the time until which each is valid, or None; the newest first.
    _secrets: dict[str, list[tuple[str, datetime | None]]] = field(default_factory=dict)
    _deliveries: dict[int, Delivery] = field(default_factory=dict)
    _attempts: dict[int, list[Attempt]] = field(default_factory=dict)

    def announce(self, announced: Sequence[Announcement]) -> None:
        """Deliver events to the endpoints that ask for them."""
        for one in announced:
            for endpoint in self._endpoints.values():
                if self._asks(endpoint, one) and not self._is_known(endpoint, one):
                    self._add(endpoint.webhook_id, one)

    @staticmethod
    def _asks(endpoint: Endpoint, one: Announcement) -> bool:
        is_told = endpoint.active and not (one.type == PAUSED and endpoint.paused_at)
        return is_told and endpoint.tenant_id == one.tenant_id and not {one.type, "*"}.isdisjoint(endpoint.events)

    def _announce_messages(self, messages: Sequence[tuple[Message, float]]) -> None:
        self.announce(announcements(messages))

    def _is_known(self, endpoint: Endpoint, one: Announcement) -> bool:
        known = (endpoint.webhook_id, one.event_id)
        return any((other.webhook_id, other.event_id) == known for other in self._deliveries.values())

    def _add(self, webhook_id: str, one: Announcement) -> Delivery:
        now = self.clock()
        delivery = Delivery(
            id=max(self._deliveries, default=0) + 1,
            tenant_id=one.tenant_id,
            webhook_id=webhook_id,
            event_id=one.event_id,
            type=one.type,
            job_id=one.job_id,
            body=one.body,
            due_at=now,
            created_at=now,
        )
        self._deliveries[delivery.id] = delivery
        return delivery

    async def claim_deliveries(
        self, tenants: Mapping[str, int], endpoints: Mapping[str, int], free: int, lease_s: float
    ) -> list[Claim]:
        """Claim due deliveries."""
        heads = [head for endpoint in self._endpoints.values() for head in self._heads(endpoint, endpoints)]
        turns = {head.id: self._turn(head, heads) for head in heads}
        heads.sort(key=lambda head: (turns[head.id], head.id))
        chosen = fair_share([(head.tenant_id, str(head.id)) for head in heads], tenants, free)
        return [self._claim(int(id), lease_s) for _, id in chosen]

    @staticmethod
    def _turn(head: Delivery, heads: Sequence[Delivery]) -> int:
        return sum(other.tenant_id == head.tenant_id and other.id < head.id for other in heads)

    def _heads(self, endpoint: Endpoint, busy: Mapping[str, int]) -> list[Delivery]:
        if not endpoint.active or endpoint.paused_at is not None:
            return []
        pending = [d for d in self._deliveries.values() if (d.webhook_id, d.state) == (endpoint.webhook_id, "pending")]
        first: dict[str | None, int] = {}
        for one in pending:
            first.setdefault(one.job_id, one.id)
        heads = [d for d in pending if d.job_id is None or first[d.job_id] == d.id]
        limit = (OF_ENDPOINT if endpoint.failing_since is None else 1) - busy.get(endpoint.webhook_id, 0)
        return [d for d in heads if d.due_at is not None and d.due_at <= self.clock()][: max(0, limit)]

    def _claim(self, id: int, lease_s: float) -> Claim:
        delivery = self._deliveries[id]
        due_at = self.clock() + timedelta(seconds=lease_s)
        self._deliveries[id] = delivery = replace(delivery, token=delivery.token + 1, due_at=due_at)
        now, all_secrets = self.clock(), self._secrets[delivery.webhook_id]
        secrets = tuple(secret for secret, until in all_secrets if until is None or until > now)
        return Claim(delivery, self._endpoints[delivery.webhook_id].url, secrets)

    async def record_attempt(self, claim: Claim, attempt: Attempt, retry_after: float | None = None) -> bool:
        """Store an attempt and what follows from it."""
        delivery, now = self._deliveries.get(claim.delivery.id), self.clock()
        if delivery is None or (delivery.token, delivery.state) != (claim.delivery.token, "pending"):
            return False
        endpoint = self._endpoints[delivery.webhook_id]
        follows = verdict(attempt, delivery.failures, endpoint, now, retry_after)
        self._deliveries[delivery.id] = self._after(delivery, follows)
        self._endpoints[endpoint.webhook_id] = replace(
            endpoint,
            failing_since=None if attempt.is_success else endpoint.failing_since or now,
            paused_at=endpoint.paused_at or (now if follows.pause else None),
            paused_reason=endpoint.paused_reason or follows.pause,
        )
        self._attempts.setdefault(delivery.id, []).insert(0, replace(attempt, at=now))
        if follows.pause is not None:
            self._tell_pause(claim, follows.pause)
        return True

    def _tell_pause(self, claim: Claim, reason: str) -> None:
        of = claim.delivery
        self._note(account_change(of.tenant_id, "webhooks", "paused", None, of.webhook_id, {"reason": reason}))
        data = {"webhook_id": claim.delivery.webhook_id, "url": claim.url, "reason": reason}
        self.announce([of_endpoint(PAUSED, str(uuid4()), claim.delivery.tenant_id, self.clock(), data)])

    async def pause_unsigned(self, claim: Claim, reason: str) -> bool:
        """Pause the endpoint, because nothing can be signed for it."""
        delivery, now = self._deliveries.get(claim.delivery.id), self.clock()
        if delivery is None or (delivery.token, delivery.state) != (claim.delivery.token, "pending"):
            return False
        self._deliveries[delivery.id] = replace(delivery, due_at=now)
        endpoint = self._endpoints[delivery.webhook_id]
        if endpoint.paused_at is None:
            paused = replace(endpoint, paused_at=now, paused_reason=UNSIGNED + reason)
            self._endpoints[endpoint.webhook_id] = paused
            self._tell_pause(claim, UNSIGNED + reason)
        return True

    async def stored_secrets(self) -> list[StoredSecret]:
        """All secrets that may still sign."""
        now = self.clock()
        return [
            StoredSecret(endpoint.tenant_id, endpoint.webhook_id, text)
            for endpoint in sorted(self._endpoints.values(), key=lambda one: (one.tenant_id, one.webhook_id))
            for text, until in self._secrets[endpoint.webhook_id]
            if until is None or until > now
        ]

    async def replace_secret(self, secret: StoredSecret, text: str) -> bool:
        """Store another text in its place."""
        stored = self._secrets.get(secret.webhook_id, [])
        found = [n for n, (before, _) in enumerate(stored) if before == secret.text]
        for n in found:
            stored[n] = (text, stored[n][1])
        return bool(found)

    async def end_unsigned_pause(self, tenant: str, webhook_id: str) -> bool:
        """End a pause because nothing could be signed."""
        endpoint = await self.webhook(tenant, webhook_id)
        if endpoint is None or not (endpoint.paused_reason or "").startswith(UNSIGNED):
            return False
        self._endpoints[webhook_id] = replace(endpoint, paused_at=None, paused_reason=None)
        return True

    def _after(self, delivery: Delivery, follows: Verdict) -> Delivery:
        now, is_delivered = self.clock(), follows.state == "delivered"
        return replace(
            delivery,
            state=follows.state,
            failures=delivery.failures + (not is_delivered),
            due_at=now + timedelta(seconds=follows.delay_s),
            delivered_at=now if is_delivered else None,
        )

    async def create_webhook(self, endpoint: Endpoint, secret: str) -> Endpoint:
        """Store a new endpoint."""
        if len(await self.webhooks(endpoint.tenant_id)) >= MAX_ENDPOINTS:
            raise TooManyEndpoints
        endpoint = replace(endpoint, created_at=self.clock())
        self._endpoints[endpoint.webhook_id], self._secrets[endpoint.webhook_id] = endpoint, [(secret, None)]
        self._note(of_webhook("created", endpoint.created_by, endpoint, told_of(endpoint)))
        return endpoint

    async def webhooks(self, tenant: str) -> list[Endpoint]:
        """All endpoints."""
        return [endpoint for endpoint in self._endpoints.values() if endpoint.tenant_id == tenant]

    async def webhook(self, tenant: str, webhook_id: str) -> Endpoint | None:
        """One endpoint."""
        return next((one for one in await self.webhooks(tenant) if one.webhook_id == webhook_id), None)

    async def update_webhook(self, endpoint: Endpoint, *, resume: bool, by: str) -> Endpoint | None:
        """Replace what may be changed."""
        before = await self.webhook(endpoint.tenant_id, endpoint.webhook_id)
        if before is None:
            return None
        pause: dict[str, Any] = {} if not resume else {"failing_since": None, "paused_at": None, "paused_reason": None}
        changed = {name: getattr(endpoint, name) for name in ("url", "events", "description", "active")}
        self._endpoints[before.webhook_id] = after = replace(before, **changed, **pause)
        if details := changes_of(before, after):
            self._note(of_webhook("changed", by, after, details))
        soon = self.clock() + timedelta(seconds=60)
        for delivery in self._of(before) if resume else ():
            if delivery.state == "pending" and delivery.due_at:
                self._deliveries[delivery.id] = replace(delivery, due_at=min(delivery.due_at, soon))
        return after

    def _of(self, endpoint: Endpoint) -> list[Delivery]:
        return [d for d in self._deliveries.values() if d.webhook_id == endpoint.webhook_id]

    async def delete_webhook(self, tenant: str, webhook_id: str, by: str) -> bool:
        """Delete it."""
        endpoint = await self.webhook(tenant, webhook_id)
        if endpoint is None:
            return False
        for delivery in self._of(endpoint):
            self._attempts.pop(delivery.id, None)
            del self._deliveries[delivery.id]
        del self._endpoints[webhook_id], self._secrets[webhook_id]
        self._note(of_webhook("deleted", by, endpoint, told_of(endpoint)))
        return True

    async def rotate_secret(self, tenant: str, webhook_id: str, secret: str, by: str) -> bool:
        """Sign with this secret."""
        endpoint = await self.webhook(tenant, webhook_id)
        if endpoint is None:
            return False
        self._note(of_webhook("secret rotated", by, endpoint))
        until = self.clock() + timedelta(seconds=OVERLAP_S)
        before = [(one, until) for one, limit in self._secrets[webhook_id] if limit is None]
        self._secrets[webhook_id] = [(secret, None), *before]
        return True

    async def add_delivery(self, webhook_id: str, announced: Announcement, by: str) -> Delivery:
        """Deliver an event to this endpoint alone."""
        delivery = self._add(webhook_id, announced)
        details = {"delivery": str(delivery.id)}
        self._note(account_change(announced.tenant_id, "webhooks", "tested", by, webhook_id, details))
        return delivery

    async def deliveries(
        self, tenant: str, webhook_id: str, state: DeliveryState | None, before: int | None, limit: int
    ) -> list[Delivery]:
        """The newest deliveries."""
        endpoint = await self.webhook(tenant, webhook_id)
        rows = reversed(self._of(endpoint) if endpoint else [])
        return [d for d in rows if state in (None, d.state) and (before is None or d.id < before)][:limit]

    async def delivery(self, tenant: str, webhook_id: str, id: int) -> Delivery | None:
        """One delivery."""
        row = self._deliveries.get(id)
        return row if row and (row.tenant_id, row.webhook_id) == (tenant, webhook_id) else None

    async def attempts(self, tenant: str, id: int) -> Sequence[Attempt]:
        """The newest attempts at a delivery."""
        delivery = self._deliveries.get(id)
        return self._attempts.get(id, [])[:ATTEMPTS] if delivery and delivery.tenant_id == tenant else []

    async def replay(self, tenant: str, webhook_id: str, by: str, id: int | None = None) -> int:
        """Deliver again."""
        rows = await self.deliveries(tenant, webhook_id, None, None, len(self._deliveries))
        chosen = [d for d in rows if (d.state == "failed" if id is None else d.id == id and d.state != "pending")]
        for one in chosen:
            again = replace(one, state="pending", failures=0, due_at=self.clock(), delivered_at=None)
            self._deliveries[one.id] = again
        if chosen:
            of = {"deliveries": len(chosen)} if id is None else {"delivery": str(id)}
            self._note(account_change(tenant, "webhooks", "replayed", by, webhook_id, of))
        return len(chosen)
