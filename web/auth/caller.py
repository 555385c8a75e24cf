"""The authenticated sender of a request."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from schemas.accounts.keys import IMPLIED, Scope
from schemas.ids import EVERY_TENANT, Whose


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, whose data exist for it, and what it may do with them."""

    #: Names the caller in audit trails and limits: the id of its key, `environment:acme`, `local` or `anonymous`.
    id: str
    whose: Whose
    scopes: frozenset[Scope]

    @property
    def is_operator(self) -> bool:
        """Whether this caller sees every tenant."""
        return self.whose is EVERY_TENANT

    def sees(self, tenant: str) -> bool:
        """Whether this tenant's data exist for the caller."""
        return self.whose in (EVERY_TENANT, tenant)

    def may(self, scope: Scope) -> bool:
        """Whether one of its scopes is this one, or implies it."""
        return _permit(self.scopes, scope)


@lru_cache(maxsize=256)
def _permit(scopes: frozenset[Scope], scope: Scope) -> bool:
    return scope in scopes or any(scope in IMPLIED[one] for one in scopes)


@lru_cache(maxsize=256)
def operator(id: str) -> Caller:
    """A caller who may do everything, for every tenant."""
    return Caller(id, EVERY_TENANT, frozenset({"operator"}))


#: The caller of a public route. No tenant has an empty name, so it sees nobody's data.
ANONYMOUS: Final = Caller("anonymous", "", frozenset())
