"""The double of rows that are too old to be kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sinks.memory.accounts.settings import MemorySettings
from sinks.ports.upkeep.retention import ExpiresRows


@dataclass
class MemoryRetention(MemorySettings, ExpiresRows):
    """`ExpiresRows` in this process, in which no other worker deletes."""

    async def forget(self, table: str, days: float, rows: int) -> int:
        """Delete a slice of a table's oldest rows."""
        before = self.clock() - timedelta(days=days)
        stored, dated = self._dated(table)
        due = self._expired_entries(days) if table == "audit_log" else [key for key, at in dated.items() if at < before]
        old = sorted(due, key=dated.__getitem__)[:rows]
        for key in old:
            del stored[key]
        return len(old)

    async def count_expired_entries(self, days: float) -> dict[str, int]:
        """How many entries of the audit log are too old, by tenant."""
        return dict(Counter(self.audit[number][0].tenant_id for number in self._expired_entries(days)))

    def _expired_entries(self, days: float) -> list[int]:
        own = {tenant: stored.settings.audit_days or days for tenant, stored in self._settings.items()}
        now = self.clock()
        return [
            number
            for number, (entry, at) in self.audit.items()
            if now - at > timedelta(days=own.get(entry.tenant_id, days))
        ]

    def _dated(self, table: str) -> tuple[dict[Any, Any], Mapping[Any, datetime]]:
        """A table, and by its keys the times that count."""
        tables: dict[str, dict[Any, Any]] = {
            "adjudications": self._adjudications,
            "audit_log": self.audit,
            "leases": self._leases,
            "direct_uploads": self._direct,
        }
        if table == "inbox":
            return self._inbox, self._inbox
        if table == "api_usage_metrics":
            return self.api_usage, {used: used.minute for used in self.api_usage}
        if table == "idempotency_keys":
            return self._idempotency, {name: known.created_at for name, (known, _) in self._idempotency.items()}
        return tables[table], {key: row[-1] for key, row in tables[table].items()}
