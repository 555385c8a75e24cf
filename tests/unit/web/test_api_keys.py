"""API keys: which are accepted, and what an installation without any answers."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from schemas.errors import SettingsError
from tests.unit.web.service import (
    PATHS,
    Worker,
    problem,
)
from web.auth.api_keys import ApiKeys


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "acme-key"},
        {"X-API-Key": " acme-second "},
        {"Authorization": "Bearer acme-key"},
        {"Authorization": "bearer  acme-key"},
        {"Authorization": "Basic eA==", "X-API-Key": "acme-key"},
    ],
)
async def test_a_key_is_taken_from_either_header(worker, headers):
    await worker.created()

    assert (await worker.get("/jobs/j/status", headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "ACME-KEY"},
        {"X-API-Key": "acme-key2"},
        {"X-API-Key": "\xfc" * 500},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nonsense", "X-API-Key": "acme-key"},
        {"Authorization": "acme-key"},
    ],
)
async def test_without_a_known_key_nothing_is_told_but_what_to_do(worker, headers):
    await worker.created()
    for path in (*(p.format("j") for p in PATHS), "/tenants", "/tenants/acme/jobs"):
        response = await worker.get(path, headers)
        told = await problem(response, 401)

        assert "Authorization: Bearer" in told["detail"]
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_key_in_the_address_is_no_key(worker):
    await problem(await worker.get("/tenants?api_key=acme-key&key=acme-key", {}), 401)


async def test_probes_metrics_and_the_console_need_no_key(worker):
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/"):
        assert (await worker.get(path, {})).status == 200


async def test_without_any_keys_a_program_on_this_machine_is_an_operator():
    async with Worker(keys=None) as worker:
        await worker.created("j", "bolt")

        assert (await worker.get("/jobs/j/status", {})).status == 200
        assert (await worker.get("/jobs/j/status", {"X-API-Key": "whatever"})).status == 200
        assert (await worker.json("/tenants", {}))["operator"]


STRANGERS = [
    {"X-Forwarded-For": "203.0.113.9"},
    {"Forwarded": "for=203.0.113.9"},
    {"X-Real-IP": "127.0.0.1"},
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example:80"},
    {"Host": "localhost.evil.example"},
]


@pytest.mark.parametrize("headers", STRANGERS)
async def test_without_keys_neither_a_proxys_guest_nor_a_web_page_is_taken_for_a_neighbour(headers):
    async with Worker(keys=None) as worker:
        told = await problem(await worker.get("/tenants", headers), 401)

        assert "CONCORD_API_KEYS" in told["detail"]
        assert (await worker.get("/healthz", headers)).status == 200


class Peer(asyncio.Transport):
    """A connection from this address."""

    def __init__(self, address):
        super().__init__({"peername": address})


def asked_by(address, **headers):
    return make_mocked_request("GET", "/", {"Host": "10.0.0.5:8080"} | headers, transport=Peer(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_without_keys_this_machine_is_known_by_any_of_its_own_addresses(address):
    assert ApiKeys().caller(asked_by((address, 5))).tenant is None


@pytest.mark.parametrize(
    "address", [("203.0.113.9", 5), ("::ffff:203.0.113.9", 5), ("fe80::1%eth0", 5, 0, 2), "", None]
)
def test_without_keys_another_machine_is_told_what_to_do(address):
    with pytest.raises(web.HTTPUnauthorized) as refused:
        ApiKeys().caller(asked_by(address))

    assert "set CONCORD_API_KEYS" in refused.value.text


@pytest.mark.parametrize("text", ["acme", "acme=", "=key", "acme=key,", "a b=key", "../x=key", "acme=ke y", "acme=kéy"])
def test_a_setting_that_is_no_list_of_keys_is_refused_by_place_and_without_the_key(text):
    if text == "acme=key,":
        assert repr(ApiKeys.parse(text)) == "ApiKeys(1)"
        return
    with pytest.raises(SettingsError, match="entry 2") as said:
        ApiKeys.parse(f"first=hunter2,{text}")

    assert "hunter2" not in str(said.value)
    assert "key" not in str(said.value).replace("API_KEYS", "").replace("tenant=key", "").replace("*=key", "").replace(
        "the key of entry", ""
    )


def test_one_key_cannot_be_two_tenants():
    with pytest.raises(SettingsError, match="have the same key"):
        ApiKeys.parse("acme=hunter2,*=hunter2")


def test_keys_are_nowhere_in_memory_or_print():
    keys = ApiKeys.parse("acme=hunter2")

    assert "hunter2" not in repr(keys) + repr(vars(keys))
    assert sha256(b"hunter2").digest() in next(iter(keys._tenants.values()))[0]
