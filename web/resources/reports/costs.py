"""What was used up, with its cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from schemas.events.base import Data
from schemas.jobs.rows import cost

if TYPE_CHECKING:
    from schemas.jobs.rows import OfUnit


class UsageRow(Data):
    """An amount of one of a provider's units."""

    provider: str
    unit: str = Field(description="audio_seconds, requests, prompt_tokens, ...")
    quantity: float
    cost: float | None = Field(description="at the current price, in the currency of CONCORD_PRICES; null without one")


def usage_row(row: OfUnit, prices: Mapping[str, float]) -> UsageRow:
    """The row with its cost."""
    return UsageRow(provider=row.provider, unit=row.unit, quantity=row.quantity, cost=cost(row, prices))


def total(rows: Iterable[UsageRow]) -> float | None:
    """The cost of all that has a price; None if nothing has."""
    costs = [row.cost for row in rows if row.cost is not None]
    return sum(costs) if costs else None
