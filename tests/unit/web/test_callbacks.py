"""Callbacks of providers."""

from __future__ import annotations

import contextlib

import pytest

from schemas.errors import Unavailable
from tests.unit.web.service import (
    Worker,
)
from web.auth.provider_token import HEADER, token_of
from web.resources.callbacks import Callbacks

TOKEN = token_of("a secret of some length", "assemblyai")
DONE = {"transcript_id": "t-1", "status": "completed"}


class Hastened:
    """Who was to be looked at; a database that is away raises."""

    def __init__(self, error=None):
        self.asked = []
        self.error = error

    async def expedite_poll(self, provider, provider_id):
        if self.error:
            raise self.error
        self.asked.append((provider, provider_id))
        return False


@contextlib.asynccontextmanager
async def called(error=None):
    database = Hastened(error)
    callbacks = Callbacks(database, {"assemblyai": TOKEN})
    assert TOKEN not in repr(callbacks) + repr(callbacks.routes())
    async with Worker(resources=[callbacks]) as it:
        yield it, database


async def test_a_callback_with_its_token_makes_the_next_look_due_and_tells_nothing():
    async with called() as (it, database):
        answer = await it.client.post("/webhooks/assemblyai", json=DONE, headers={HEADER: TOKEN})

        assert (answer.status, await answer.read()) == (204, b"")
        assert database.asked == [("assemblyai", "t-1")]


@pytest.mark.parametrize("path", ["/webhooks/assemblyai", "/webhooks/google"])
@pytest.mark.parametrize("shown", [{}, {HEADER: "wrong"}, {HEADER: "x" * 64}, {"X-API-Key": "root-key"}])
async def test_a_callback_without_its_token_is_refused_whoever_it_is_for(path, shown):
    async with called() as (it, database):
        answer = await it.client.post(path, json=DONE, headers=shown)
        said = await answer.json()

        assert answer.status == 401
        assert TOKEN not in str(said)
        assert database.asked == []


async def test_a_token_is_of_use_for_its_own_provider_only():
    async with called() as (it, database):
        for shown in (TOKEN, HEADER, token_of("a secret of some length", "google")):
            answer = await it.client.post("/webhooks/google", json=DONE, headers={HEADER: shown})
            assert answer.status == 401
        assert database.asked == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"status": "completed"}', 400),
        (b'{"transcript_id": "", "status": "completed"}', 400),
        (b'{"transcript_id": "a b", "status": "completed"}', 400),
        (b'{"transcript_id": "a\\u0000", "status": "completed"}', 400),
        (b'{"transcript_id": 7, "status": "completed"}', 400),
        (b'{"transcript_id": "%s", "status": "completed"}' % (b"x" * 129), 400),
        (b'{"transcript_id": "t-1", "status": "completed"}' + b" " * 4096, 413),
        (b"x" * (1 << 20), 413),
    ],
    ids=lambda it: str(it)[:40],
)
async def test_a_callback_that_says_nothing_usable_is_refused(body, status):
    async with called() as (it, database):
        answer = await it.client.post("/webhooks/assemblyai", data=body, headers={HEADER: TOKEN})

        assert answer.status == status
        assert database.asked == []


async def test_a_callback_that_we_cannot_keep_is_to_come_again():
    async with called(Unavailable("PostgreSQL does not answer")) as (it, _):
        answer = await it.client.post("/webhooks/assemblyai", json=DONE, headers={HEADER: TOKEN})

        assert answer.status == 503


async def test_callbacks_have_a_place_in_the_document_and_none_where_there_are_none(worker):
    async with called() as (it, _):
        document = await it.json("/openapi.json")
    without = await worker.client.post("/webhooks/assemblyai", json=DONE, headers={HEADER: TOKEN})

    assert list(document["paths"]["/webhooks/{provider}"]) == ["post"]
    assert without.status == 404
