"""The fallback store while its main store fails and recovers: no blob is lost or renamed, and all are moved."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from schemas.errors import Misconfigured, NotFound, Unavailable
from sinks.blobs import fallback
from sinks.blobs.fallback import FallbackStore
from sinks.blobs.local import LocalStore


class Plug(LocalStore):
    """A real store whose cable can be pulled."""

    trouble: Exception | None = None

    async def _hop(self, *args, **more):
        if self.trouble is not None:
            raise self.trouble
        return await super()._hop(*args, **more)


@pytest.fixture
async def stores(tmp_path):
    main, spare = Plug(tmp_path / "main"), LocalStore(tmp_path / "spare")
    both = FallbackStore(main, spare)
    yield both, main, spare
    main.trouble = None
    await both.close()


@pytest.fixture
def quickly(monkeypatch):
    monkeypatch.setattr(fallback, "RETRY_S", 0.02)
    monkeypatch.setattr(fallback, "LOOK_S", 0.02)


@contextlib.asynccontextmanager
async def moving(store):
    task = asyncio.create_task(store.move())
    yield
    assert not task.done()
    task.cancel()


async def until(condition):
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)


async def pieces():
    yield b"in "
    yield b"pieces"


async def is_back(both):
    return not both.away


async def test_what_is_written_during_an_outage_is_read_under_its_own_uri_and_moved_afterwards(stores, quickly):
    both, main, spare = stores
    main.trouble = Unavailable("the cable is out")

    blob = await both.put("acme/job/a.json", b"{}", "application/json")

    assert blob.uri == main.uri("acme/job/a.json")
    assert both.away
    assert await both.get(blob.uri) == b"{}"
    assert await both.stat(blob.uri) == blob
    assert await both.presigned_url(blob.uri, 60) is None
    async with both.local_path(blob.uri) as path:
        async with moving(both):
            main.trouble = None
            await until(lambda: main.stat(blob.uri))
            await until(lambda: gone(spare, "acme/job/a.json"))
            await until(lambda: is_back(both))
        assert path.read_bytes() == b"{}"
    assert await main.get(blob.uri) == b"{}"
    assert await both.stat(blob.uri) == blob


async def gone(store, name):
    return await store.stat(store.uri(name)) is None


async def test_content_that_was_half_sent_is_not_lost_but_asked_for_again(stores):
    both, main, _ = stores
    main.trouble = Unavailable("the cable is out")

    with pytest.raises(Unavailable):
        await both.put("acme/job/original.wav", pieces(), "audio/wav")
    blob = await both.put("acme/job/original.wav", pieces(), "audio/wav")

    assert await both.get(blob.uri) == b"in pieces"


async def test_what_is_written_after_an_outage_is_not_replaced_by_what_was_written_in_it(stores, quickly):
    both, main, spare = stores
    main.trouble = Unavailable("the cable is out")
    old = await both.put("acme/job/a.json", b"old", "application/json")
    main.trouble, both.away = None, False

    new = await both.put("acme/job/a.json", b"new", "application/json")

    assert await gone(spare, "acme/job/a.json")
    async with moving(both):
        await asyncio.sleep(0.1)
    assert await both.get(old.uri) == b"new"
    assert await both.stat(old.uri) == new


async def test_a_store_that_refuses_our_key_stops_workers_that_start_and_none_that_runs(stores):
    both, main, _ = stores
    main.trouble = Misconfigured("the key has expired")

    with pytest.raises(Misconfigured):
        await both.check()
    blob = await both.put("acme/job/a.json", b"{}", "application/json")
    assert await both.get(blob.uri) == b"{}"


async def test_one_that_is_away_at_the_start_is_waited_for(stores):
    both, main, _ = stores
    main.trouble = Unavailable("not up yet")

    await both.check()

    assert both.away


async def test_what_is_in_neither_is_not_said_to_be_gone_while_one_cannot_be_asked(stores):
    both, main, _ = stores
    with pytest.raises(NotFound):
        await both.get(both.uri("acme/nothing"))
    main.trouble = Unavailable("the cable is out")
    with pytest.raises(Unavailable):
        await both.get(both.uri("acme/nothing"))
