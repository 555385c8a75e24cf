"""The ports of tenants' settings."""

from __future__ import annotations

from typing import Protocol

from schemas.accounts.settings import AccountSettings, SettingsVersion


class StoredSettings(Protocol):
    """Tenants' settings as they are stored."""

    async def account_settings(self, tenant: str) -> SettingsVersion:
        """The tenant's settings; version 0 if it has none."""

    async def save_account_settings(
        self, tenant: str, settings: AccountSettings, expected: int, by: str
    ) -> SettingsVersion | None:
        """Replace the settings if their version is still the expected one; as they are stored. None if it is not."""


class EffectiveSettings(Protocol):
    """What holds for a tenant."""

    async def settings_of(self, tenant: str) -> AccountSettings:
        """The tenant's settings over the installation's, at most some seconds old."""
