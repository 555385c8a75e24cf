"""The double of API keys."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pydantic import TypeAdapter

from schemas.accounts.changes import account_change
from schemas.accounts.keys import MOST_KEYS, ApiKey, NewKey
from sinks.memory.state import MemoryState, dump
from sinks.ports.accounts.keys import Keys

_NAME: TypeAdapter[str] = TypeAdapter(str)


@dataclass
class MemoryKeys(MemoryState, Keys):
    """`Keys` in this process."""

    _keys: dict[str, ApiKey] = field(default_factory=dict)

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """The valid key whose text has this hash."""
        return next((key for key in self._keys.values() if key.hash == digest and key.is_valid(self.clock())), None)

    async def has_keys(self) -> bool:
        """Whether a key was ever made."""
        return bool(self._keys)

    async def add_key(self, key: ApiKey) -> ApiKey | None:
        """Store a key, if its owner has room for it."""
        dump(_NAME, key.name)
        if not self._has_room(key.tenant_id):
            return None
        of = {"name": key.name, "scopes": sorted(key.scopes)}
        self._note(account_change(key.tenant_id, "keys", "created", key.created_by, key.id, of))
        return self._put_key(replace(key, created_at=self.clock()))

    async def key(self, tenant: str | None, key_id: str) -> ApiKey | None:
        """One key of this owner."""
        key = self._keys.get(key_id)
        return key if key and key.tenant_id == tenant else None

    async def keys(self, tenant: str | None, limit: int, before: tuple[datetime, str] | None = None) -> list[ApiKey]:
        """A page of this owner's keys, newest first."""
        own = sorted(((key.created_at or self.clock(), key.id, key) for key in self._keys_of(tenant)), reverse=True)
        return [key for at, key_id, key in own if before is None or (at, key_id) < before][:limit]

    async def revoke_key(self, tenant: str | None, key_id: str, by: str) -> bool:
        """Revoke a key at once."""
        key = await self.key(tenant, key_id)
        if key and key.revoked_at is None:
            self._put_key(replace(key, revoked_at=self.clock(), revoked_by=by))
            self._note(account_change(tenant, "keys", "revoked", by, key_id))
        return key is not None

    async def rotate_key(self, tenant: str | None, key_id: str, new: NewKey, grace_s: float, by: str) -> ApiKey | None:
        """Replace a valid key."""
        old = await self.key(tenant, key_id)
        if old is None or not old.is_valid(self.clock()) or (grace_s and not self._has_room(tenant)):
            return None
        now, end = self.clock(), self.clock() + timedelta(seconds=grace_s)
        lifetime = old.expires_at - (old.created_at or now) if old.expires_at else None
        self._put_key(replace(old, expires_at=min(filter(None, [old.expires_at, end]))))
        self._note(account_change(tenant, "keys", "rotated", by, key_id, {"new": new.id, "grace_s": float(grace_s)}))
        return self._put_key(
            replace(
                old,
                id=new.id,
                prefix=new.prefix,
                hash=new.hash,
                created_by=by,
                created_at=now,
                expires_at=now + lifetime if lifetime else None,
                last_used_at=None,
            )
        )

    async def touch_keys(self, key_ids: Collection[str]) -> None:
        """These keys are used now."""
        minute = self.clock().replace(second=0, microsecond=0)
        for key_id in self._keys.keys() & set(key_ids):
            self._put_key(replace(self._keys[key_id], last_used_at=minute))

    def _keys_of(self, tenant: str | None) -> list[ApiKey]:
        return [key for key in self._keys.values() if key.tenant_id == tenant]

    def _has_room(self, tenant: str | None) -> bool:
        return sum(key.is_valid(self.clock()) for key in self._keys_of(tenant)) < MOST_KEYS

    def _put_key(self, key: ApiKey) -> ApiKey:
        self._keys[key.id] = key
        return key
