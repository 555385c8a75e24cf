"""Secrets that an earlier version stored in clear, keys that are replaced, and keys that are lost."""

from __future__ import annotations

import pytest

from agents.webhooks.stored_secrets import encrypt_stored
from schemas.accounts.sealing import Seals, new_key
from schemas.webhooks.rows import Endpoint
from sinks.memory.database import MemoryDatabase

OLD, NEW = new_key(), new_key()


@pytest.fixture
async def database():
    it = MemoryDatabase()
    for tenant, id in (("t", "wh_1"), ("u", "wh_2")):
        await it.create_webhook(
            Endpoint(tenant_id=tenant, webhook_id=id, url="https://x/", events=["*"]), f"clear {id}"
        )
    return it


async def opened(database, keys):
    seals = Seals.parse(keys)
    return [seals.open(one.text, one.tenant_id, one.webhook_id) for one in await database.stored_secrets()]


async def test_secrets_in_clear_are_encrypted_once(database):
    assert await encrypt_stored(database, Seals.parse(NEW)) == 2
    assert await encrypt_stored(database, Seals.parse(NEW)) == 0

    assert all("clear" not in one.text for one in await database.stored_secrets())
    assert await opened(database, NEW) == ["clear wh_1", "clear wh_2"]


async def test_without_a_key_they_stay_as_they_are(database):
    assert await encrypt_stored(database, Seals()) == 0

    assert [one.text for one in await database.stored_secrets()] == ["clear wh_1", "clear wh_2"]


async def test_a_key_that_is_replaced_is_needed_no_more(database):
    await encrypt_stored(database, Seals.parse(OLD))
    assert await encrypt_stored(database, Seals.parse(f"{NEW},{OLD}")) == 2

    assert await opened(database, NEW) == ["clear wh_1", "clear wh_2"]


async def test_one_that_does_not_decrypt_is_named_and_keeps_no_other_from_it(database, caplog):
    await encrypt_stored(database, Seals.parse(OLD))
    await database.rotate_secret("u", "wh_2", "clear wh_2", "k1")
    assert await encrypt_stored(database, Seals.parse(NEW)) == 1

    assert "the webhook wh_1 of t: its secret is encrypted with the key" in caplog.text
    assert OLD not in caplog.text
