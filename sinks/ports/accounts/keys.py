"""The port of API keys."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from schemas.accounts.keys import ApiKey, NewKey


class Keys(Protocol):
    """API keys. `tenant` None names those of operators."""

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """The valid key whose text has this hash: not one that is revoked or has expired."""

    async def has_keys(self) -> bool:
        """Whether a key was ever made, be it valid or not."""

    async def add_key(self, key: ApiKey) -> ApiKey | None:
        """Store a key; as it is stored. None if its owner has `MOST_KEYS` valid ones."""

    async def key(self, tenant: str | None, key_id: str) -> ApiKey | None:
        """One key of this owner, valid or not."""

    async def keys(self, tenant: str | None, limit: int, before: tuple[datetime, str] | None = None) -> list[ApiKey]:
        """At most `limit` keys of this owner, newest first, those made before (created_at, id)."""

    async def revoke_key(self, tenant: str | None, key_id: str, by: str) -> bool:
        """Revoke a key of this owner at once; False if there is none. The first revocation stands."""

    async def rotate_key(self, tenant: str | None, key_id: str, new: NewKey, grace_s: float, by: str) -> ApiKey | None:
        """Replace a valid key by one of the same name, scopes and lifetime; the new one. The old one expires after
        `grace_s` seconds. None if this owner has no such key, it is not valid, or there are `MOST_KEYS` and both would
        be valid.
        """

    async def touch_keys(self, key_ids: Collection[str]) -> None:
        """These keys are used now; written at most once a minute for each."""
