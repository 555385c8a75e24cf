"""Requests to tenants' endpoints, whatever these do."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from agents.media.source.audio_url import AllowedHosts
from agents.webhooks.poster import ANSWER_BYTES, Poster, check_endpoint
from schemas.errors import RefusedLocation
from tests.servers.hosts import listening, raw
from tests.unit.test_audio_download import counting

LOOPBACK, NOBODY = AllowedHosts.of(["127.0.0.1"]), AllowedHosts.of([])


@asynccontextmanager
async def poster(allowed=LOOPBACK, **more):
    it = Poster(allowed, **more)
    try:
        yield it
    finally:
        await it.close()


async def posted(url, allowed=LOOPBACK, **more):
    async with poster(allowed, **more) as it:
        return await it.post(url, {"webhook-id": "1"}, b"{}")


@asynccontextmanager
async def endpoint(handler):
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    async with listening(app) as url:
        yield f"{url}/"


def answering(status=200, body=b"thanks", **headers):
    async def handler(_):
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return handler


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, None), (204, None), (302, "redirects are not followed"), (404, "answered 404"), (410, "410"), (500, "500")],
)
async def test_only_2xx_is_a_success(status, error):
    async with endpoint(answering(status, b"" if status == 204 else b"thanks", Location="/elsewhere")) as url:
        answer = await posted(url)

    assert (answer.attempt.status, answer.attempt.is_success) == (status, error is None)
    assert answer.attempt.answer == ("" if status == 204 else "thanks")
    assert error is None or error in answer.attempt.error
    assert answer.attempt.duration_ms > 0


async def test_a_redirect_to_this_machine_is_not_followed():
    async with counting() as (port, connections), endpoint(answering(307, Location=f"http://127.0.0.1:{port}/")) as url:
        answer = await posted(url)

    assert answer.attempt.status == 307
    assert connections == []


async def test_retry_after_is_read():
    async with endpoint(answering(429, Retry_After="120")) as url:
        assert (await posted(url)).retry_after == 120.0


async def test_an_endless_answer_is_read_up_to_its_limit():
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x\x00y" * 1000)

    async with endpoint(endless) as url:
        answer = await posted(url)

    assert answer.attempt.is_success
    assert 0 < len(answer.attempt.answer) <= ANSWER_BYTES
    assert "\x00" not in answer.attempt.answer


@pytest.mark.parametrize(
    "parts",
    [
        (5.0,),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", 5.0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n", 0.1] * 20),
    ],
)
async def test_one_that_hangs_or_drips_has_so_much_time_for_all_of_it(parts):
    async with raw(*parts) as url:
        began = time.monotonic()
        answer = await posted(url, timeout_s=0.4)

    assert answer.attempt.status is None
    assert "in time" in answer.attempt.error
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("parts", [(), (b"nonsense\r\n\r\n",), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",)])
async def test_what_is_no_answer_is_a_failure(parts):
    async with raw(*parts) as url:
        answer = await posted(url, timeout_s=3)

    assert not answer.attempt.is_success
    assert answer.attempt.error


async def test_addresses_that_are_not_public_are_refused_where_the_socket_is_made():
    async with counting() as (port, connections):
        answers = [
            await posted(f"https://{host}:{port}/", NOBODY, lookup=lambda _, port: [(2, 1, 6, "", ("127.0.0.1", port))])
            for host in ("rebound.example", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]")
        ]

    assert all("is not a public one" in answer.attempt.error for answer in answers)
    assert connections == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/", "must begin with https://"),
        ("https://example.com:22/", "another protocol's"),
        ("ftp://example.com/", "url: "),
        ("https://user:pass@example.com/", "user name"),
        ("https://0x7f.1/", "url: "),
        ("nonsense", "url: "),
        ("https://a\nb/", "url: "),
    ],
)
async def test_a_url_that_may_not_be_called_is_refused_when_it_is_made_and_when_it_is_called(url, reason):
    with pytest.raises(RefusedLocation, match=reason):
        check_endpoint(url, NOBODY)
    assert "url: " in (await posted(url, NOBODY)).attempt.error


async def test_being_cancelled_is_no_answer():
    async with raw(5.0) as url:
        task = asyncio.create_task(posted(url))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
