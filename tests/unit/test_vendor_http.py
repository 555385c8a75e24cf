"""The HTTP client of vendors: what it makes of responses that no vendor should send."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from agents.asr.pieces import http_client
from agents.asr.pieces.http_client import Account, HTTPClient, Refused, _error
from schemas.errors import NotAccepted, ProviderError, RateLimited, SettingsError, Transient
from tests.servers.hosts import answering, raw, serving

KEY = "a-key-nobody-may-see"


def client(url, key=KEY):
    return HTTPClient(Account("vendor", url, key, "Authorization", "Bearer ", ("VENDOR_API_KEY", "VENDOR_BASE_URL")))


async def called(url, **options):
    asking = client(url)
    try:
        return await asking.call("GET", "/v1/x", "a look", **options)
    finally:
        await asking.close()


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (201, Transient, "answered 201"),
        (302, ProviderError, "VENDOR_BASE_URL"),
        (400, Refused, "answered 400"),
        (401, Refused, "VENDOR_API_KEY"),
        (402, Refused, "no credit"),
        (403, Refused, "may it do this"),
        (404, Refused, "answered 404"),
        (408, Transient, "answered 408"),
        (413, Refused, "answered 413"),
        (422, Refused, "answered 422"),
        (429, RateLimited, "answered 429"),
        (500, Transient, "answered 500"),
        (503, Transient, "answered 503"),
        (504, Transient, "answered 504"),
        (599, Transient, "answered 599"),
    ],
)
async def test_a_status_says_whether_it_is_asked_again(status, kind, said):
    body = f'{{"error": {{"message": "no, {KEY}"}}}}'.encode()
    async with serving(answering(status, body, Retry_After="7", Location="http://127.0.0.1:9/")) as url:
        with pytest.raises(kind, match=said) as caught:
            await called(url)

    assert type(caught.value) in (kind, Refused)
    assert KEY not in str(caught.value)
    if isinstance(caught.value, Transient):
        assert caught.value.retry_after == 7


async def test_what_may_be_billed_is_not_said_to_be_refused():
    async with serving(answering(503)) as url:
        with pytest.raises(Transient) as caught:
            await called(url)

    assert not isinstance(caught.value, NotAccepted)


@pytest.mark.parametrize(
    "response",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",),
        (b"nonsense\r\n\r\n",),
        (),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nhalf",),
    ],
    ids=["half", "nonsense", "closed", "half a chunk", "no gzip"],
)
async def test_a_response_that_breaks_off_may_be_billed(response):
    async with raw(*response) as url:
        with pytest.raises(Transient, match="broke off a look") as caught:
            await called(url)

    assert not isinstance(caught.value, NotAccepted)


async def test_an_answer_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(http_client, "LONGEST", 1 << 20)
    async with serving(answering(200, b"x" * (2 << 20))) as url:
        with pytest.raises(ProviderError, match="more than 1 MB"):
            await called(url)


async def test_a_server_that_is_slow_is_given_up():
    async with raw(5.0) as url:
        with pytest.raises(Transient, match="did not answer a look within"):
            await called(url, timeout_s=0.2)


async def test_a_cancelled_call_is_cancelled():
    async with raw(5.0) as url:
        task = asyncio.create_task(called(url))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_address_that_is_none_is_the_operators():
    with pytest.raises(ProviderError, match="VENDOR_BASE_URL is no URL"):
        await called("http://[::1")


async def test_a_server_of_ones_own_gets_no_key_where_there_is_none():
    seen = []

    async def handler(request):
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=b"{}")

    async with serving(handler) as url:
        for key in (KEY, ""):
            asking = client(url, key)
            assert await asking.call("GET", "/v1/x", "a look") == b"{}"
            await asking.close()

    assert seen == [f"Bearer {KEY}", None]


@pytest.mark.parametrize("key", ["a\nb", "a b", "schlüssel"])
def test_a_key_that_no_header_can_have_is_refused(key):
    with pytest.raises(SettingsError, match="VENDOR_API_KEY"):
        client("http://127.0.0.1:9", key)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "no", "code": "insufficient_quota"}}', ("no", "insufficient_quota")),
        (b'{"err_code": "INVALID_AUTH", "err_msg": "no", "request_id": "1"}', ("no", "INVALID_AUTH")),
        (b'{"category": "x", "message": "no", "details": "because"}', ("no", "")),
        (b'{"detail": {"status": "quota_exceeded", "message": "no"}}', ("no", "quota_exceeded")),
        (b'{"detail": [{"msg": "no", "type": "missing"}]}', ("no", "")),
        (b'{"detail": "no"}', ("no", "")),
        (b'{"error": "no"}', ("no", "")),
        (b"<html>no", ("<html>no", "")),
        (b'["no"]', ("no", "")),
        (b"\xff", ("\ufffd", "")),
        (b'{"error": {"message": 7, "code": 7}}', ('{"message": 7, "code": 7}', "")),
        (b"[" * 100_000, ("[" * 1000, "")),
    ],
)
def test_errors_are_read_in_every_form_that_vendors_use(body, said):
    assert _error(body) == said
