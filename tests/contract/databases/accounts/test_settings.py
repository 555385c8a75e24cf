"""What every database must do with tenants' settings; see `sinks.ports.accounts.settings`."""

from __future__ import annotations

import asyncio

from schemas.accounts.settings import AccountSettings, SettingsVersion


async def test_a_tenant_without_settings_has_version_0(under_test):
    assert await under_test.database.account_settings("acme") == SettingsVersion()


async def test_settings_are_replaced_only_where_nobody_else_has_changed_them(under_test):
    database = under_test.database
    first, second = AccountSettings(enrich=False, recognizers=("a",)), AccountSettings(deadline_s=2.5)
    assert await database.save_account_settings("acme", first, 1, "anna") is None

    stored = await database.save_account_settings("acme", first, 0, "anna")
    assert (stored.settings, stored.version, stored.updated_by) == (first, 1, "anna")
    assert await database.save_account_settings("acme", second, 0, "otto") is None
    assert await database.account_settings("acme") == stored
    again = await database.save_account_settings("acme", second, 1, "otto")
    assert (again.settings, again.version) == (second, 2)
    assert await database.account_settings("bolt") == SettingsVersion()


async def test_of_two_who_change_the_same_version_one_is_told(under_test):
    database = under_test.database
    new = [AccountSettings(deadline_s=float(n)) for n in (1, 2)]
    saved = await asyncio.gather(*(database.save_account_settings("acme", one, 0, "x") for one in new))

    assert sum(one is None for one in saved) == 1
