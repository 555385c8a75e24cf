"""Ports of one tenant."""

from __future__ import annotations

from typing import Protocol, TypeVar

P_co = TypeVar("P_co", covariant=True)


class PerTenant(Protocol[P_co]):
    """The database, whose ports can be had for one tenant."""

    def acting_as(self, tenant: str, /) -> P_co:
        """These ports for one tenant: row-level security lets them read and write that tenant's rows only."""
