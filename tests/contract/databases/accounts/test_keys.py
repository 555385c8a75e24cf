"""What every database must do with API keys; see `sinks.ports.accounts.keys`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas.accounts import keys
from schemas.accounts.keys import ApiKey, new_key
from schemas.errors import StorageRefused


def made(tenant="acme", **more):
    new = new_key()
    of = {"id": new.id, "prefix": new.prefix, "hash": new.hash, "created_by": "local", "scopes": ("read", "review")}
    return ApiKey(**of | {"name": "the console", "tenant_id": tenant} | more)


def later(seconds):
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_a_valid_key_is_found_by_its_hash_and_an_expired_or_revoked_one_is_not(under_test):
    database = under_test.database
    assert not await database.has_keys()
    valid, expired, revoked = made(expires_at=later(60)), made(expires_at=later(-1)), made(tenant=None)
    for key in (valid, expired, revoked):
        assert await database.add_key(key) is not None
    assert await database.find_key(revoked.hash)
    assert await database.revoke_key(None, revoked.id, "root")

    found = await database.find_key(valid.hash)
    assert found == replace(valid, created_at=found.created_at)
    assert found.created_at.tzinfo is not None
    assert [await database.find_key(key.hash) for key in (expired, revoked, made())] == [None, None, None]
    assert await database.has_keys()


async def test_a_key_is_its_owners_only(under_test):
    database = under_test.database
    own, operators = made(), made(tenant=None)
    for key in (own, operators):
        await database.add_key(key)

    assert (await database.key("acme", own.id)).id == own.id
    assert (await database.key(None, operators.id)).id == operators.id
    for tenant, key_id in (("bolt", own.id), (None, own.id), ("acme", operators.id), ("acme", "ck_0")):
        assert await database.key(tenant, key_id) is None
        assert not await database.revoke_key(tenant, key_id, "x")
        assert await database.rotate_key(tenant, key_id, new_key(), 60, "x") is None
    assert await database.find_key(own.hash)


async def test_the_first_revocation_stands(under_test):
    database, key = under_test.database, made()
    await database.add_key(key)
    assert await database.revoke_key("acme", key.id, "first")
    assert await database.revoke_key("acme", key.id, "second")

    assert (await database.key("acme", key.id)).revoked_by == "first"


async def test_keys_are_listed_newest_first_in_pages(under_test):
    database = under_test.database
    added = [(await database.add_key(made())) for _ in range(5)]
    await database.add_key(made("bolt"))
    expected = sorted(((key.created_at, key.id) for key in added), reverse=True)

    first = await database.keys("acme", 2)
    rest = await database.keys("acme", 10, (first[-1].created_at, first[-1].id))
    assert [(key.created_at, key.id) for key in first + rest] == expected


async def test_a_rotated_key_is_replaced_by_one_like_it_and_is_valid_for_a_while(under_test):
    database, key, new = under_test.database, made(expires_at=later(3600)), new_key()
    await database.add_key(key)
    fresh = await database.rotate_key("acme", key.id, new, 60, "anna")

    old = await database.key("acme", key.id)
    assert (fresh.id, fresh.prefix, fresh.hash, fresh.created_by) == (new.id, new.prefix, new.hash, "anna")
    assert (fresh.name, fresh.scopes, fresh.tenant_id) == (key.name, key.scopes, key.tenant_id)
    assert fresh.expires_at - fresh.created_at == pytest.approx(timedelta(seconds=3600), abs=timedelta(seconds=5))
    assert old.expires_at - fresh.created_at == pytest.approx(timedelta(seconds=60), abs=timedelta(seconds=1))
    assert await database.find_key(key.hash)
    assert await database.find_key(new.hash)
    await database.rotate_key("acme", new.id, new_key(), 0, "anna")
    assert await database.find_key(new.hash) is None
    assert await database.rotate_key("acme", new.id, new_key(), 60, "anna") is None


async def test_a_rotation_never_makes_a_key_valid_for_longer(under_test):
    database, key = under_test.database, made(expires_at=later(30))
    await database.add_key(key)
    await database.rotate_key("acme", key.id, new_key(), 3600, "anna")

    assert (await database.key("acme", key.id)).expires_at == key.expires_at


async def test_an_owner_has_so_many_valid_keys(under_test, monkeypatch):
    database = under_test.database
    for module in ("sinks.postgres.accounts.keys", "sinks.memory.accounts.keys"):
        monkeypatch.setattr(f"{module}.MOST_KEYS", 2)
    one, two, expired, three = made(), made(), made(expires_at=later(-1)), made()
    assert keys.MOST_KEYS > 2
    for key in (expired, one, two):
        assert await database.add_key(key) is not None

    assert await database.add_key(three) is None
    assert await database.rotate_key("acme", two.id, new_key(), 60, "x") is None
    assert await database.find_key(two.hash) == await database.key("acme", two.id)
    assert await database.rotate_key("acme", two.id, new_key(), 0, "x") is not None
    await database.revoke_key("acme", one.id, "x")
    assert await database.add_key(three) is not None
    assert await database.add_key(made("bolt")) is not None


async def test_the_last_use_is_known_to_the_minute(under_test):
    database, key, other = under_test.database, made(), made()
    for one in (key, other):
        await database.add_key(one)
    await database.touch_keys([key.id, "ck_0"])

    used = (await database.key("acme", key.id)).last_used_at
    assert used.second == 0
    assert timedelta() <= datetime.now(UTC) - used < timedelta(minutes=2)
    assert (await database.key("acme", other.id)).last_used_at is None


async def test_a_name_that_cannot_be_stored_is_refused(under_test):
    with pytest.raises(StorageRefused):
        await under_test.database.add_key(made(name="a\x00b"))
