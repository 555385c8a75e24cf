"""The double of slots for concurrent requests to a provider."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta

from schemas import topics
from schemas.jobs.rows import ProviderRequest
from sinks.memory.providers.limits import MemoryLimits
from sinks.memory.state import REQUEST
from sinks.ports.providers.slots import FARTHEST, Slots, Traffic, free


@dataclass
class MemorySlots(MemoryLimits, Slots):
    """`Slots` in this process. A provider's load tells of its pause, hence the base."""

    async def acquire_slot(self, tenant_id: str, job_id: str, run: int, provider: str, slots: int) -> bool:
        """Whether the request is under way; if not, it is queued."""
        row = self._of_run(tenant_id, job_id, run)[provider]
        if row.state != "waiting" or row.admitted_at:
            return True
        job = self._load(tenant_id, job_id)
        under_way, queue = len(self._under_way(provider)), self._queue(provider)
        now = self.clock() + timedelta(microseconds=under_way + len(queue))  # after those before
        if job and not queue and free(slots, under_way, 9 - job.priority):
            placed = replace(row, admitted_at=now)
        else:
            placed = replace(row, queued_at=row.queued_at or now)
        self._write(placed)
        return placed.admitted_at is not None

    async def grant_slots(self, provider: str, slots: int | None, *, overtaking: bool = False) -> Traffic:
        """Give free slots to queued requests, and make their events due; the provider's load afterwards."""
        if slots is not None and not self._grant(provider, slots) and overtaking:
            self._overtake(provider)
        parked = sum((row.provider, row.state) == (provider, "parked") for row in self._all_requests())
        queued, failures = len(self._queue(provider)), self._breaker(provider).failures
        return Traffic(len(self._under_way(provider)), queued, failures, self._paused_until(provider), parked)

    def _grant(self, provider: str, slots: int) -> int:
        """How many got a slot."""
        granted, tenants = 0, Counter(row.tenant_id for row in self._under_way(provider))
        queue = self._queue(provider)
        while queue:
            urgency, row = first = self._next(queue, tenants)
            if not free(slots, tenants.total(), urgency):
                return granted
            queue.remove(first)
            if self._make_due(topics.requests(provider).name, {(row.tenant_id, row.job_id)}):
                self._write(replace(row, admitted_at=self.clock() + timedelta(microseconds=tenants.total())))
                tenants[row.tenant_id] += 1
                granted += 1
        return granted

    def _overtake(self, provider: str) -> None:
        """The most urgent that are queued take the slots of the least urgent that have not begun."""
        tenants, queue = Counter(row.tenant_id for row in self._under_way(provider)), self._queue(provider)
        for nth, (urgency, row) in enumerate(reversed(self._standby(provider))):
            if not queue or (first := self._next(queue, tenants))[0] >= urgency:
                return
            queue.remove(first)
            tenants[first[1].tenant_id] += 1
            if self._make_due(topics.requests(provider).name, {(first[1].tenant_id, first[1].job_id)}):
                self._write(replace(row, admitted_at=None, queued_at=row.queued_at or row.admitted_at))
                self._write(replace(first[1], admitted_at=self.clock() + timedelta(microseconds=nth)))

    async def begin(self, tenant_id: str, job_id: str, run: int, provider: str) -> bool:
        """Note that a request begins; False if it waits for a slot, or ended."""
        row = self._of_run(tenant_id, job_id, run).get(provider)
        if row is None or row.state != "waiting" or (row.queued_at and not row.admitted_at):
            return False
        self._write(replace(row, submitted_at=row.submitted_at or self.clock()))
        return True

    @staticmethod
    def _next(queue: list[tuple[int, ProviderRequest]], tenants: Counter[str]) -> tuple[int, ProviderRequest]:
        return min(queue, key=lambda q: (q[0], tenants[q[1].tenant_id], q[1].queued_at))

    async def queue_position(self, tenant_id: str, job_id: str, run: int, provider: str) -> int | None:
        """The place of a request among those of its provider that wait."""
        row = self._of_run(tenant_id, job_id, run).get(provider)
        if row is None or row.state != "waiting" or row.submitted_at or not (row.queued_at or row.admitted_at):
            return None
        standby = [waiting for _, waiting in self._standby(provider)]
        if row.admitted_at:
            return min(FARTHEST, standby.index(row) + 1)
        queue, tenants = self._queue(provider), Counter(r.tenant_id for r in self._under_way(provider))
        place = len(standby) + 1
        while (first := self._next(queue, tenants))[1] != row:
            queue.remove(first)
            tenants[first[1].tenant_id] += 1
            place += 1
        return min(FARTHEST, place)

    def _under_way(self, provider: str) -> list[ProviderRequest]:
        rows = self._of_provider(provider)
        return [r for r in rows if r.state in ("intended", "submitted") or (r.state == "waiting" and r.admitted_at)]

    def _standby(self, provider: str) -> list[tuple[int, ProviderRequest]]:
        """Requests that have a slot and have not begun, with their urgency, the first one first."""
        rows = [r for r in self._of_provider(provider) if r.state == "waiting" and r.admitted_at and not r.submitted_at]
        jobs = [(row, self._load(row.tenant_id, row.job_id)) for row in rows]
        standby = [(9 - job.priority, row) for row, job in jobs if job]
        return sorted(standby, key=lambda s: (s[0], s[1].admitted_at or self.clock()))

    def _queue(self, provider: str) -> list[tuple[int, ProviderRequest]]:
        """Queued requests with their urgency, the oldest first."""
        rows = [r for r in self._of_provider(provider) if r.state == "waiting" and r.queued_at and not r.admitted_at]
        jobs = [(row, self._load(row.tenant_id, row.job_id)) for row in rows]
        queue = [(9 - job.priority, row) for row, job in jobs if job]
        return sorted(queue, key=lambda q: q[1].queued_at or self.clock())

    def _of_provider(self, provider: str) -> list[ProviderRequest]:
        return [REQUEST.validate_json(run[provider]) for run in self._requests.values() if provider in run]
