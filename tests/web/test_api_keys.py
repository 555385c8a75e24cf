"""API keys: which are accepted, and what an installation without any answers."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from schemas.accounts.keys import IMPLIED
from schemas.errors import SettingsError
from tests.web.service import (
    PATHS,
    ROOT,
    Worker,
    problem,
)
from web.auth.api_keys import ApiKeys
from web.auth.caller import Caller, operator


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
async def test_a_request_without_a_valid_key_is_answered_with_401_that_says_what_to_send(worker, headers):
    await worker.created()
    for path in (*(p.format("j") for p in PATHS), "/tenants", "/tenants/acme/jobs"):
        response = await worker.get(path, headers)
        document = await problem(response, 401)

        assert "Authorization: Bearer" in document["detail"]
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_key_in_the_url_is_ignored(worker):
    await problem(await worker.get("/tenants?api_key=acme-key&key=acme-key", {}), 401)


async def test_probes_pages_and_the_console_need_no_key(worker):
    for path in ("/healthz", "/readyz", "/openapi.json", "/", "/docs", "/problems", "/problems/not_found"):
        assert (await worker.get(path, {})).status == 200


async def test_metrics_need_an_operators_key_once_there_are_keys(worker):
    async with Worker(keys=None) as keyless:
        assert (await keyless.get("/metrics", {"X-Forwarded-For": "203.0.113.9"})).status == 200
    assert (await worker.get("/metrics", ROOT)).status == 200
    await problem(await worker.get("/metrics"), 403)
    await problem(await worker.get("/metrics", {}), 401)


async def test_without_any_keys_a_program_on_this_machine_is_an_operator():
    async with Worker(keys=None) as worker:
        await worker.created("j", "bolt")

        assert (await worker.get("/jobs/j/status", {})).status == 200
        assert (await worker.get("/jobs/j/status", {"X-API-Key": "whatever"})).status == 200
        assert (await worker.json("/tenants", {}))["operator"]


NOT_LOCAL = [
    {"X-Forwarded-For": "203.0.113.9"},
    {"Forwarded": "for=203.0.113.9"},
    {"X-Real-IP": "127.0.0.1"},
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example:80"},
    {"Host": "localhost.evil.example"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("headers", NOT_LOCAL)
async def test_without_keys_requests_through_a_proxy_or_with_another_host_are_refused(headers):
    async with Worker(keys=None) as worker:
        document = await problem(await worker.get("/tenants", headers), 401)

        assert "CONCORD_API_KEYS" in document["detail"]
        assert (await worker.get("/healthz", headers)).status == 200


class Peer(asyncio.Transport):
    """A connection from this address."""

    def __init__(self, address):
        super().__init__({"peername": address})


def asked_by(address, **headers):
    return make_mocked_request("GET", "/", {"Host": "10.0.0.5:8080"} | headers, transport=Peer(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
async def test_without_keys_every_loopback_address_is_local(address):
    assert await ApiKeys().caller(asked_by((address, 5))) == operator("local")


@pytest.mark.parametrize(
    "address", [("203.0.113.9", 5), ("::ffff:203.0.113.9", 5), ("fe80::1%eth0", 5, 0, 2), "", None]
)
async def test_without_keys_a_request_from_another_machine_is_refused(address):
    with pytest.raises(web.HTTPUnauthorized) as refused:
        await ApiKeys().caller(asked_by(address))

    assert "set CONCORD_API_KEYS" in refused.value.text


@pytest.mark.parametrize("text", ["acme", "acme=", "=key", "acme=key,", "a b=key", "../x=key", "acme=ke y", "acme=kéy"])
def test_a_malformed_list_of_keys_is_refused_with_the_position_and_without_the_key(text):
    if text == "acme=key,":
        assert repr(ApiKeys.parse(text)) == "ApiKeys(1)"
        return
    with pytest.raises(SettingsError, match="entry 2") as error:
        ApiKeys.parse(f"first=hunter2,{text}")

    assert "hunter2" not in str(error.value)
    assert "key" not in str(error.value).replace("API_KEYS", "").replace("tenant=key", "").replace("*=key", "").replace(
        "the key of entry", ""
    )


def test_one_key_cannot_be_two_tenants():
    with pytest.raises(SettingsError, match="have the same key"):
        ApiKeys.parse("acme=hunter2,*=hunter2")


def test_keys_are_neither_in_memory_nor_in_representations():
    keys = ApiKeys.parse("acme=hunter2")

    assert "hunter2" not in repr(keys) + repr(vars(keys))
    assert sha256(b"hunter2").digest() in next(iter(keys._tenants.values()))[0]


@pytest.mark.parametrize(
    ("scopes", "permitted"),
    [
        ({"read"}, {"read"}),
        ({"write"}, {"read", "write"}),
        ({"review"}, {"read", "review"}),
        ({"admin"}, {"read", "write", "review", "admin"}),
        ({"operator"}, {"read", "write", "review", "admin", "unredacted", "operator"}),
        (set(), set()),
    ],
)
def test_a_scope_permits_what_it_implies(scopes, permitted):
    caller = Caller("k", "acme", frozenset(scopes))

    assert {scope for scope in IMPLIED if caller.may(scope)} == permitted
