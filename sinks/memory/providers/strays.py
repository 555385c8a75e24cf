"""The double of requests that a provider has and no row knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sinks.memory.state import MemoryState
from sinks.ports.providers.strays import Stray, Strays


@dataclass
class MemoryStrays(MemoryState, Strays):
    """`Strays` in this process."""

    #: By provider and its id.
    _strays: dict[tuple[str, str], Stray] = field(default_factory=dict)

    async def strays(self, provider: str) -> list[Stray]:
        """The provider's strays that no row has meanwhile."""
        rows = self._row_ids()
        self._strays = {key: stray for key, stray in self._strays.items() if key not in rows}
        return [stray for (name, _), stray in sorted(self._strays.items()) if name == provider]

    async def keep_strays(self, strays: Sequence[Stray]) -> list[Stray]:
        """Keep those of these requests that no row knows, and return them."""
        rows = self._row_ids()
        kept = {key: stray for stray in strays if (key := (stray.provider, stray.provider_id)) not in rows}
        self._strays |= kept
        return list(kept.values())

    async def forget_stray(self, provider: str, provider_id: str) -> bool:
        """Remove a stray; False if there is no such stray."""
        return self._strays.pop((provider, provider_id), None) is not None

    def _row_ids(self) -> set[tuple[str, str | None]]:
        return {(row.provider, row.provider_id) for row in self._all_requests()}
