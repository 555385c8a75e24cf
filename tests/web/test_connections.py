"""The bounds of HTTP connections, over real sockets and the event loop of production."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import resource
import socket
import time

import pytest
import uvloop
from aiohttp import web

from agents.fleet.process.file_limit import MOST, raise_file_limit
from web.auth.api_keys import ApiKeys
from web.connections.bounded_site import BoundedSite
from web.connections.bounds import Bounds
from web.endpoint import Gate
from web.server import build_application

#: Hostile clients: each test waits for a bound to be reached.
pytestmark = pytest.mark.slow

SMALL = Bounds(connections=8, per_client=5, head_s=0.4, head_bytes=4096, idle_s=0.8, stalled_s=0.4)
STATUS = b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n"


def on_uvloop(test):
    """Run a test as production runs."""

    @functools.wraps(test)
    def run(*args, **more):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test(*args, **more), 20))

    return run


class Service:
    """An application with a quick answer, one that waits for `hold`, a large one, and what it saw of its clients."""

    def __init__(self, bounds=SMALL):
        self.bounds = bounds
        self.hold = asyncio.Event()
        self.cancelled = 0
        self.answered = 0

    async def __aenter__(self):
        app = build_application([], Gate(ApiKeys()), console=False)
        app.router.add_get("/status", self.status)
        app.router.add_get("/held", self.held)
        app.router.add_get("/large", self.large)
        self.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        self.site = BoundedSite(self.runner, socket.create_server(("127.0.0.1", 0)), self.bounds)
        await self.site.start()
        self.port = self.runner.addresses[0][1]
        self.clients = []
        return self

    async def __aexit__(self, *_):
        for _, writer in self.clients:
            writer.close()
        await self.runner.cleanup()

    async def status(self, _):
        self.answered += 1
        return web.Response(text="fine")

    async def held(self, _):
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return web.Response(text="held")

    async def large(self, _):
        return web.Response(body=bytes(16 << 20))

    async def connected(self, address="127.0.0.1", sends=b"", **more):
        """A client from this address, which may send something."""
        client = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0), **more)
        self.clients.append(client)
        client[1].write(sends)
        await asyncio.sleep(0.01)
        return client

    async def request(self, address="127.0.0.1", sends=STATUS):
        """(status, head and body) of an answer on a connection of its own."""
        reader, _ = await self.connected(address, sends.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = await asyncio.wait_for(reader.read(), 5)
        return int(answer.split(b" ", 2)[1]), answer

    @property
    def open(self):
        return len(self.site.connections)


async def ended(client, seconds):
    """Whether the server ends this connection within some seconds, whatever it says before."""
    try:
        async with asyncio.timeout(seconds):
            while await client[0].read(65536):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


async def eventually(condition, seconds=3.0):
    give_up = time.monotonic() + seconds
    while not condition() and time.monotonic() < give_up:
        await asyncio.sleep(0.01)
    return condition()


@on_uvloop
async def test_idle_connections_are_closed_for_new_ones():
    async with Service(Bounds(connections=8, per_client=5)) as service:
        for n in range(30):
            await service.connected(f"127.0.0.{1 + n % 4}")

        assert service.open == 8
        assert [(await service.request(f"127.0.0.{n}"))[0] for n in (1, 2, 9)] == [200] * 3


@on_uvloop
async def test_a_client_at_its_limit_of_busy_connections_is_refused_and_others_are_not():
    async with Service(Bounds(connections=8, per_client=5)) as service:
        for _ in range(5):
            await service.connected(sends=b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        status, answer = await service.request()
        head, _, body = answer.partition(b"\r\n\r\n")

        assert status == 503
        assert b"\r\nRetry-After: 2\r\n" in head
        assert json.loads(body)["status"] == 503
        assert (await service.request("127.0.0.2"))[0] == 200
        service.hold.set()
        assert (await service.request())[0] == 200


@on_uvloop
async def test_at_the_limit_of_busy_connections_a_new_one_is_answered_with_503():
    async with Service(Bounds(connections=8, per_client=5)) as service:
        for n in range(8):
            await service.connected(f"127.0.0.{1 + n % 4}", b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")

        assert [(await service.request("127.0.0.9"))[0] for _ in range(3)] == [503] * 3
        await asyncio.gather(*(service.connected("127.0.0.9") for _ in range(100)))  # silent: soon forgotten
        service.hold.set()
        assert await eventually(lambda: service.site.connections.refusing < 64)
        assert (await service.request("127.0.0.10"))[0] == 200


@on_uvloop
async def test_an_active_connection_stays_open_among_many_idle_ones():
    async with Service(Bounds(connections=8, per_client=5)) as service:
        reader, writer = await service.connected("127.0.0.2")
        for n in range(20):
            writer.write(STATUS)
            assert (await reader.readuntil(b"fine")).startswith(b"HTTP/1.1 200")
            await service.connected(f"127.0.0.{3 + n % 4}")


@pytest.mark.parametrize("sends", [b"", b"GET /status HTTP/1.1\r\nX-Slow: "])
@on_uvloop
async def test_a_connection_without_a_request_is_closed(sends):
    async with Service() as service:
        client = await service.connected(sends=sends)

        assert not await ended(client, 0.2)
        assert await ended(client, 1)
        assert service.open == 0


@on_uvloop
async def test_a_head_that_is_sent_byte_by_byte_is_limited_in_time():
    async with Service() as service:
        reader, writer = await service.connected(sends=b"GET /status HTTP/1.1\r\n")
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof() and time.monotonic() - began < 3:
                writer.write(b"X")
                await asyncio.sleep(0.05)

        assert time.monotonic() - began < 1


@on_uvloop
async def test_a_head_that_does_not_end_is_limited_in_bytes():
    async with Service(Bounds(head_bytes=4096)) as service:
        client = await service.connected(sends=b"GET /status HTTP/1.1\r\nX-Long: " + b"x" * 5000)

        assert await ended(client, 1)


@on_uvloop
async def test_a_slow_answer_is_not_limited_by_the_timeout_of_heads_and_idle_connections_stay_open_for_their_time():
    async with Service() as service:
        client = await service.connected(sends=b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")

        assert not await ended(client, 0.6)
        service.hold.set()
        assert (await client[0].readuntil(b"held")).startswith(b"HTTP/1.1 200")
        assert not await ended(client, 0.5)
        assert await ended(client, 1)


@on_uvloop
async def test_a_client_that_does_not_read_is_disconnected():
    async with Service() as service:
        client = await service.connected(sends=b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n", limit=1024)

        assert await eventually(lambda: service.open == 0), "the connection is held for ever"
        assert await ended(client, 5)


@on_uvloop
async def test_a_slow_client_that_reads_is_served_to_the_end():
    async with Service() as service:
        reader, _ = await service.connected(sends=b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        size = 0
        while piece := await reader.read(4 << 20):
            size += len(piece)
            await asyncio.sleep(0.02)

        assert size > 16 << 20


@on_uvloop
async def test_a_request_is_cancelled_when_its_client_disconnects():
    async with Service() as service:
        _, writer = await service.connected(sends=b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        writer.close()

        assert await eventually(lambda: service.cancelled == 1 and service.open == 0)


@on_uvloop
async def test_bytes_that_are_not_http_are_answered_with_a_problem_and_no_traceback(caplog):
    async with Service() as service:
        for garbage in (
            b"\x16\x03\x01\x00\x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nA\x00: b\r\n\r\n",
            b"\r\n\r\nfoo bar\r\n\r\n",
        ):
            status, answer = await service.request(sends=garbage)

            assert status == 400
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["title"] == "Bad Request"
        assert "Traceback" not in caplog.text


@on_uvloop
async def test_endless_pipelined_requests_are_not_buffered():
    """Who asks and asks without reading is read no further, and then cut off."""
    async with Service(Bounds(stalled_s=0.4)) as service:
        _, writer = await service.connected(limit=1024)
        many = STATUS * 1000
        sent = 0
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(3):
                while sent < 300:
                    writer.write(many)
                    await writer.drain()
                    sent += 1

        assert sent < 300
        assert await eventually(lambda: service.open == 0)


def test_half_of_the_descriptors_is_left_for_other_uses():
    assert Bounds.within(4096, 1024).connections == 512
    assert Bounds.within(4096, 65_536).connections == 4096
    assert Bounds.within(4096, 1024).per_client == 256
    assert Bounds.within(4096, 1024).event_streams + Bounds.within(4096, 1024).blob_streams < 512


def test_the_limit_of_open_files_is_raised_to_its_maximum():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert raise_file_limit() == min(hard, MOST)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, MOST), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
