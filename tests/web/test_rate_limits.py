"""Limits of requests: each key has its own, and every answer tells what is left."""

from __future__ import annotations

import pytest

from schemas.accounts.settings import AccountSettings
from sinks.accounts import Accounts
from sinks.memory.database import MemoryDatabase
from tests.web.service import ACME, BOLT, ROOT, Worker, problem
from web.limits.rate_limits import RateLimits

SECOND = {"X-API-Key": "acme-second"}


@pytest.fixture
async def limited():
    database, clock = MemoryDatabase(), [1000.0]
    accounts = Accounts(database, AccountSettings(requests_per_minute=3))
    async with Worker(database, limits=RateLimits(accounts, lambda: clock[0])) as service:
        service.clock, service.accounts = clock, accounts
        yield service


async def test_a_key_is_refused_when_its_requests_are_used_up_and_admitted_when_they_come_back(limited):
    left = [(await limited.get("/tenants")).headers["RateLimit"] for _ in range(3)]
    assert left == ['"requests";r=2;t=20', '"requests";r=1;t=40', '"requests";r=0;t=60']
    refused = await limited.get("/tenants")

    assert (await problem(refused, 429))["code"] == "rate_limited"
    assert (refused.headers["Retry-After"], refused.headers["RateLimit-Policy"]) == ("20", '"requests";q=3;w=60')
    limited.clock[0] += 19.9
    await problem(await limited.get("/tenants"), 429)
    limited.clock[0] += 0.2
    assert (await limited.get("/tenants")).status == 200


async def test_other_tenants_operators_and_public_routes_are_not_limited_by_it(limited):
    for _ in range(4):
        last = await limited.get("/tenants")
    assert last.status == 429
    assert (await limited.get("/tenants", BOLT)).status == 200
    for headers, path in ((ROOT, "/tenants"), ({}, "/healthz"), (ACME, "/openapi.json")):
        for _ in range(5):
            response = await limited.get(path, headers)
            assert response.status == 200
            assert "RateLimit" not in response.headers


async def test_errors_and_streams_tell_what_is_left_too(limited):
    missing = await limited.get("/jobs/unknown/status")
    stream = await limited.get("/jobs/unknown/events")

    assert (missing.status, missing.headers["RateLimit"]) == (404, '"requests";r=2;t=20')
    assert stream.headers["RateLimit"] == '"requests";r=1;t=40'


async def test_a_tenants_own_limit_holds_as_soon_as_it_is_told(limited):
    for _ in range(3):
        await limited.get("/tenants")
    await limited.database.save_account_settings("acme", AccountSettings(requests_per_minute=600), 0, "root")
    limited.accounts.changed("settings acme")
    limited.clock[0] += 1

    assert (await limited.get("/tenants")).headers["RateLimit"] == '"requests";r=9;t=60'
    await limited.database.save_account_settings("acme", AccountSettings(requests_per_minute=1), 1, "root")
    limited.accounts.changed("settings acme")
    assert (await limited.get("/tenants")).headers["RateLimit"] == '"requests";r=0;t=60'


async def test_keys_that_are_not_used_are_forgotten(monkeypatch):
    monkeypatch.setattr("web.limits.rate_limits.MOST", 2)
    limits = RateLimits(None, lambda: 0.0)
    for key in "abc":
        limits._filled(key, 10)

    assert set(limits._buckets) == {"b", "c"}
