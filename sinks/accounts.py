"""Keys and settings as a worker knows them: kept for some seconds, and forgotten when PostgreSQL tells of a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from schemas.accounts.settings import AccountSettings
from sinks.expiring import Expiring
from sinks.ports.accounts.keys import Keys
from sinks.ports.accounts.settings import EffectiveSettings, StoredSettings

if TYPE_CHECKING:
    from schemas.accounts.keys import ApiKey

#: Seconds after which a revoked key is refused, and a setting holds, where the notice of it is lost.
KEPT_S = 5.0


class Stored(Keys, StoredSettings, Protocol):
    """What is asked of the database."""


class Accounts(EffectiveSettings):
    """What a worker's requests and stages ask about accounts."""

    def __init__(self, stored: Stored, defaults: AccountSettings, seconds: float = KEPT_S) -> None:
        self._defaults = defaults
        # An unknown key is asked for each time: it may just have been made.
        self._keys: Expiring[bytes, ApiKey | None] = Expiring(stored.find_key, seconds, lambda key: key is not None)
        self._stored = stored
        self._settings = Expiring(self._effective, seconds)
        self._any: Expiring[None, bool] = Expiring(lambda _: stored.has_keys(), seconds)
        self._had_keys = False

    @property
    def defaults(self) -> AccountSettings:
        """The installation's settings."""
        return self._defaults

    async def key(self, digest: bytes) -> ApiKey | None:
        """The valid key whose text has this hash."""
        return await self._keys.get(digest)

    async def has_keys(self) -> bool:
        """Whether a key was ever made. Once there was one, this never becomes False again."""
        self._had_keys = self._had_keys or await self._any.get(None)
        return self._had_keys

    async def settings_of(self, tenant: str) -> AccountSettings:
        """The tenant's settings over the installation's."""
        return await self._settings.get(tenant)

    async def _effective(self, tenant: str) -> AccountSettings:
        return (await self._stored.account_settings(tenant)).settings.over(self._defaults)

    def changed(self, notice: str | None) -> None:
        """Something has changed: `keys`, `settings TENANT`, or, with None, anything."""
        what, _, tenant = (notice or "").partition(" ")
        if what != "settings":
            self._keys.forget()
            self._any.forget()
        if what != "keys":
            self._settings.forget(tenant or None)
