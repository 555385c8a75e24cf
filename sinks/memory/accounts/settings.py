"""The double of tenants' settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.accounts.settings import AccountSettings, SettingsVersion
from sinks.memory.state import MemoryState
from sinks.ports.accounts.settings import StoredSettings


@dataclass
class MemorySettings(MemoryState, StoredSettings):
    """`StoredSettings` in this process."""

    _settings: dict[str, SettingsVersion] = field(default_factory=dict)

    async def account_settings(self, tenant: str) -> SettingsVersion:
        """The tenant's settings."""
        return self._settings.get(tenant, SettingsVersion())

    async def save_account_settings(
        self, tenant: str, settings: AccountSettings, expected: int, by: str
    ) -> SettingsVersion | None:
        """Replace the settings if nobody else has."""
        if (await self.account_settings(tenant)).version != expected:
            return None
        self._settings[tenant] = SettingsVersion(settings, expected + 1, by, self.clock())
        return self._settings[tenant]
