"""The authenticated sender of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant that a request's API key belongs to; None stands for an operator, who sees every tenant."""

    tenant: str | None

    @property
    def is_operator(self) -> bool:
        """Whether this caller sees every tenant."""
        return self.tenant is None

    def sees(self, tenant: str) -> bool:
        """Whether this tenant's data exist for the caller."""
        return self.tenant in (None, tenant)


#: The caller of a public route. No tenant has an empty name, so it sees nobody's data.
ANONYMOUS: Final = Caller("")
