"""The port of requests that a provider has and no row knows: made in minutes that a restored backup does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stray:
    """A request that a provider has and no row knows; its fields are those of `agents.asr.protocols.Listed`."""

    provider: str
    provider_id: str
    created: datetime | None
    urls: tuple[str, ...] | None
    marker: str | None


class Strays(Protocol):
    """A stray stays until a row has its id, or a person says that it is not one of ours."""

    async def strays(self, provider: str) -> list[Stray]:
        """The provider's strays that no row has meanwhile, by id."""

    async def keep_strays(self, strays: Sequence[Stray]) -> list[Stray]:
        """Keep those of these requests that no row knows, and return them."""

    async def forget_stray(self, provider: str, provider_id: str) -> bool:
        """Remove a stray that is not one of ours; False if there is no such stray."""
