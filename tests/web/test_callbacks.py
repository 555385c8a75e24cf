"""Callbacks of providers."""

from __future__ import annotations

import contextlib

import pytest

from schemas.errors import Unavailable
from tests.web.service import (
    Worker,
)
from web.auth.provider_token import HEADER, token_of
from web.resources.callbacks import Callbacks

TOKEN = token_of("a secret of some length", "assemblyai")
DONE = {"transcript_id": "t-1", "status": "completed"}


class PollRecorder:
    """Who was to be looked at; a database that is away raises."""

    def __init__(self, error=None):
        self.polls = []
        self.error = error

    async def expedite_poll(self, provider, provider_id):
        if self.error:
            raise self.error
        self.polls.append((provider, provider_id))
        return False


@contextlib.asynccontextmanager
async def served(error=None):
    database = PollRecorder(error)
    callbacks = Callbacks(database, {"assemblyai": TOKEN})
    assert TOKEN not in repr(callbacks) + repr(callbacks.routes())
    async with Worker(resources=[callbacks]) as it:
        yield it, database


async def test_a_callback_with_its_token_makes_the_next_poll_due_and_has_an_empty_answer():
    async with served() as (it, database):
        answer = await it.client.post("/webhooks/assemblyai", json=DONE, headers={HEADER: TOKEN})

        assert (answer.status, await answer.read()) == (204, b"")
        assert database.polls == [("assemblyai", "t-1")]


@pytest.mark.parametrize("path", ["/webhooks/assemblyai", "/webhooks/google"])
@pytest.mark.parametrize("shown", [{}, {HEADER: "wrong"}, {HEADER: "x" * 64}, {"X-API-Key": "root-key"}])
async def test_a_callback_without_its_token_is_refused_for_known_and_unknown_providers(path, shown):
    async with served() as (it, database):
        answer = await it.client.post(path, json=DONE, headers=shown)
        document = await answer.json()

        assert answer.status == 401
        assert TOKEN not in str(document)
        assert database.polls == []


async def test_a_token_is_valid_for_its_own_provider_only():
    async with served() as (it, database):
        for shown in (TOKEN, HEADER, token_of("a secret of some length", "google")):
            answer = await it.client.post("/webhooks/google", json=DONE, headers={HEADER: shown})
            assert answer.status == 401
        assert database.polls == []


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
async def test_a_callback_with_an_invalid_body_is_refused(body, status):
    async with served() as (it, database):
        answer = await it.client.post("/webhooks/assemblyai", data=body, headers={HEADER: TOKEN})

        assert answer.status == status
        assert database.polls == []


async def test_a_callback_while_the_database_is_away_is_answered_with_503():
    async with served(Unavailable("PostgreSQL does not answer")) as (it, _):
        answer = await it.client.post("/webhooks/assemblyai", json=DONE, headers={HEADER: TOKEN})

        assert answer.status == 503


async def test_callbacks_are_documented_where_they_are_served(worker):
    async with served() as (it, _):
        document = await it.json("/openapi.json")
    without = await worker.client.post("/webhooks/assemblyai", json=DONE, headers={HEADER: TOKEN})

    assert list(document["paths"]["/webhooks/{provider}"]) == ["post"]
    assert without.status == 404
