"""API keys over HTTP: made, shown once, listed, rotated, revoked, and what each of them may do."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from schemas.accounts.settings import AccountSettings
from schemas.errors import Unavailable
from sinks.accounts import Accounts
from sinks.memory.database import MemoryDatabase
from tests.web.service import ACME, BOLT, ROOT, Worker, problem
from tests.web.walk import accounts_resources
from web.auth.api_keys import ApiKeys
from web.limits.usage import UsageCounter

KEYS = "/tenants/acme/keys"


class Service(Worker):
    """A worker whose keys are also in a database."""

    def __init__(self, database=None, environment="acme=acme-key,bolt=bolt-key,*=root-key", **more):
        database = database or MemoryDatabase()
        self.accounts = Accounts(database, AccountSettings(requests_per_minute=1000))
        self.usage = UsageCounter(database)
        keys = ApiKeys.parse(environment, self.accounts)
        super().__init__(
            database, keys=keys, usage=self.usage, resources=accounts_resources(database, self.accounts), **more
        )

    async def make(self, scopes=("read",), path=KEYS, headers=ACME, **more):
        body = {"name": "mine"} | ({"scopes": list(scopes)} if scopes else {}) | more
        response = await self.client.post(path, json=body, headers=headers)
        assert response.status == 201, await response.text()
        return await response.json()

    async def status(self, key, path="/tenants/acme/jobs"):
        return (await self.get(path, {"Authorization": f"Bearer {key}"})).status


@pytest.fixture
async def service():
    async with Service() as service:
        yield service


async def test_a_key_is_shown_once_and_stored_as_a_hash(service):
    made = await service.make(["read", "review", "read"])
    prefix = made["prefix"]

    assert made["key"].startswith(f"concord_{prefix}_")
    assert len(made["key"].rpartition("_")[2]) == 64
    assert (made["scopes"], made["created_by"]) == (["read", "review"], "environment:acme")
    shown = await service.json(f"{KEYS}/{made['id']}")
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert (await service.json(KEYS))["keys"] == [shown]
    assert made["key"] not in repr(service.database._keys)
    assert made["key"].rpartition("_")[2] not in repr(service.database._keys)


@pytest.mark.parametrize(
    ("scopes", "statuses"),
    [
        (["read"], (200, 403, 403)),
        (["write"], (200, 403, 403)),
        (["admin"], (200, 200, 403)),
        (["review"], (200, 403, 403)),
    ],
)
async def test_a_key_may_do_what_its_scopes_permit(service, scopes, statuses):
    key = (await service.make(scopes))["key"]

    assert (
        tuple([await service.status(key, path) for path in ("/tenants/acme/jobs", KEYS, "/operator/keys")]) == statuses
    )
    assert await service.status(key, "/tenants/bolt/jobs") == 404


async def test_an_operators_key_may_do_everything_and_is_made_by_operators_only(service):
    made = await service.make(None, "/operator/keys", ROOT)

    assert made["scopes"] == ["operator"]
    for path in ("/tenants/bolt/keys", "/operator/keys", "/metrics"):
        assert await service.status(made["key"], path) == 200
    await problem(await service.client.post("/operator/keys", json={"name": "x"}, headers=ACME), 403)
    refused = await service.client.post(KEYS, json={"name": "x", "scopes": ["operator"]}, headers=ACME)
    assert (await problem(refused, 400))["errors"][0]["pointer"] == "#/scopes/0"


async def test_a_revoked_key_is_refused_at_once_and_for_good(service):
    made = await service.make()
    assert await service.status(made["key"]) == 200
    for _ in range(2):
        assert (await service.client.delete(f"{KEYS}/{made['id']}", headers=ACME)).status == 204

    assert await service.status(made["key"]) == 401
    revoked = (await service.json(KEYS))["keys"][0]
    assert revoked["revoked_by"] == "environment:acme"
    refused = await service.client.post(f"{KEYS}/{made['id']}/rotate", json={}, headers=ACME)
    assert (await problem(refused, 409))["code"] == "key_not_valid"


async def test_a_rotated_key_is_valid_for_a_while(service):
    made = await service.make(["write"])
    rotated = await service.client.post(f"{KEYS}/{made['id']}/rotate", json={}, headers=ACME)
    new = await rotated.json()

    assert (rotated.status, rotated.headers["Location"]) == (201, f"{KEYS}/{new['id']}")
    assert (new["scopes"], new["name"]) == (["write"], "mine")
    assert [await service.status(key["key"]) for key in (made, new)] == [200, 200]
    again = await service.client.post(f"{KEYS}/{new['id']}/rotate", json={"grace_s": 0}, headers=ACME)
    assert again.status == 201
    assert await service.status(new["key"]) == 401


async def test_a_rotation_after_which_there_would_be_too_many_keys_is_refused(service, monkeypatch):
    made, other = await service.make(), await service.make()
    monkeypatch.setattr("sinks.memory.accounts.keys.MOST_KEYS", 2)
    refused = await service.client.post(f"{KEYS}/{made['id']}/rotate", json={}, headers=ACME)

    assert (await problem(refused, 409))["code"] == "too_many_keys"
    assert [await service.status(key["key"]) for key in (made, other)] == [200, 200]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"scopes": ["read"]}, "#/name"),
        ({"name": "", "scopes": ["read"]}, "#/name"),
        ({"name": "a\nb", "scopes": ["read"]}, "#/name"),
        ({"name": "a", "scopes": []}, "#/scopes"),
        ({"name": "a", "scopes": ["root"]}, "#/scopes/0"),
        ({"name": "a", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, "#/expires_at"),
        ({"name": "a", "scopes": ["read"], "expires_at": "2099-01-01T00:00:00"}, "#/expires_at"),
        ({"name": "a", "scopes": ["read"], "tenant": "bolt"}, "#/tenant"),
    ],
)
async def test_a_wrong_key_is_refused_with_the_field(service, body, pointer):
    refused = await problem(await service.client.post(KEYS, json=body, headers=ACME), 400)

    assert refused["errors"][0]["pointer"] == pointer


async def test_keys_are_listed_in_pages(service):
    made = [(await service.make())["id"] for _ in range(5)]
    first = await service.get(f"{KEYS}?limit=2")
    page = await first.json()
    link = first.headers["Link"]
    rest = await service.json(link[1 : link.index(">")].replace("limit=2", "limit=9"))

    assert link.endswith('; rel="next"')
    assert {key["id"] for key in page["keys"] + rest["keys"]} == set(made)
    assert (len(page["keys"]), rest["next"]) == (2, None)


async def test_once_a_key_was_made_requests_from_this_machine_need_one_even_after_it_is_revoked():
    async with Service(environment=None) as service:
        assert (await service.get("/tenants", {})).status == 200
        made = await service.make(None, "/operator/keys", {})
        await problem(await service.get("/tenants", {}), 401)
        own = {"Authorization": f"Bearer {made['key']}"}
        assert (await service.client.delete(f"/operator/keys/{made['id']}", headers=own)).status == 204

        await problem(await service.get("/tenants", {}), 401)


async def test_metrics_are_there_while_nobody_knows_whether_there_are_keys(monkeypatch):
    async with Service(environment=None) as service:

        async def away():
            raise Unavailable("PostgreSQL does not answer")

        monkeypatch.setattr(service.database, "has_keys", away)
        service.accounts.changed(None)
        assert (await service.get("/metrics", {})).status == 200
        await problem(await service.get("/tenants", {}), 503)


async def test_another_worker_keeps_a_key_for_some_seconds_at_most_and_none_once_it_is_told(service):
    async with Service(service.database) as other:
        made = await service.make()
        assert await other.status(made["key"]) == 200
        await service.client.delete(f"{KEYS}/{made['id']}", headers=ACME)
        assert await other.status(made["key"]) == 200  # not told yet
        other.accounts.changed("keys")

        assert await other.status(made["key"]) == 401


async def test_a_key_that_is_kept_is_forgotten_without_a_notice(service):
    database = service.database
    accounts = Accounts(database, AccountSettings(), seconds=0.05)
    made = await service.make()
    digest = next(iter(database._keys.values())).hash
    assert (await accounts.key(digest)).id == made["id"]
    await database.revoke_key("acme", made["id"], "x")
    began = time.monotonic()
    while await accounts.key(digest) is not None:
        assert time.monotonic() - began < 1


async def test_what_keys_are_used_for_is_counted(service):
    made = await service.make()
    for _ in range(3):
        await service.status(made["key"])
    await service.status(made["key"], KEYS)
    await service.get("/healthz", {})
    await service.usage.write()

    counted = {(used.key_id, used.route, used.status_class): n for used, n in service.database.api_usage.items()}
    assert counted[made["id"], "tenants_tenant_jobs", 2] == 3
    assert counted[made["id"], "tenants_tenant_keys_list", 4] == 1
    assert {key for key, _, _ in counted} == {made["id"], "environment:acme"}
    used = (await service.json(f"{KEYS}/{made['id']}"))["last_used_at"]
    assert datetime.now(UTC) - datetime.fromisoformat(used) < timedelta(minutes=2)


async def test_an_unknown_key_of_another_tenant_is_not_there(service):
    theirs = await service.make(path="/tenants/bolt/keys", headers=BOLT)
    foreign = await problem(await service.client.delete(f"{KEYS}/{theirs['id']}", headers=ACME), 404)

    assert foreign == await problem(await service.client.delete(f"{KEYS}/ck_0", headers=ACME), 404)
