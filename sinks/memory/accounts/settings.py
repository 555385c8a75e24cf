"""The double of tenants' settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.accounts.changes import account_change, changed_settings
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
        current = await self.account_settings(tenant)
        if current.version != expected:
            return None
        of = {"version": expected + 1, "changed": changed_settings(current.settings, settings)}
        self._note(account_change(tenant, "settings", "changed", by, None, of))
        self._settings[tenant] = SettingsVersion(settings, expected + 1, by, self.clock())
        before, after = bool(current.settings.voice_prints), bool(settings.voice_prints)
        self._follow_consent(tenant, before=before, after=after, by=by)
        return self._settings[tenant]

    def _follow_consent(self, tenant: str, *, before: bool, after: bool, by: str) -> None:
        """What PostgreSQL does by a trigger: a change of the consent to voice prints is noted."""
        if before != after:
            self._note(account_change(tenant, "voices", "allowed" if after else "withdrawn", by))
