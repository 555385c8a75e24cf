"""The double of rows that are too old to be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sinks.memory.state import MemoryState
from sinks.ports.upkeep.retention import ExpiresRows


@dataclass
class MemoryRetention(MemoryState, ExpiresRows):
    """`ExpiresRows` in this process, in which no other worker deletes."""

    async def forget(self, table: str, days: float, rows: int) -> int:
        """Delete a slice of a table's oldest rows."""
        before = self.clock() - timedelta(days=days)
        stored, dated = self._dated(table)
        old = sorted((key for key, at in dated.items() if at < before), key=dated.__getitem__)[:rows]
        for key in old:
            del stored[key]
        return len(old)

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
