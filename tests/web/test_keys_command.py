"""`concord keys` over HTTP and in the database: what it prints, and what it refuses."""

from __future__ import annotations

import argparse
import contextlib
import json

import pytest

from agents.commands import reach
from agents.commands.accounts import keys
from agents.fleet.environment import from_env
from schemas.errors import ConcordError, InvalidInput
from tests.web.test_key_management import Service


def parsed(*words):
    parser = argparse.ArgumentParser()
    keys.add(parser.add_subparsers())
    return parser.parse_args(["keys", *words])


@pytest.fixture(params=["over HTTP", "in the database"])
async def concord(request, monkeypatch, capsys):
    """Runs the command; what it has printed."""
    async with Service() as service:
        environment = {}
        if request.param == "over HTTP":
            environment = {"CONCORD_URL": service.url, "CONCORD_API_KEY": "root-key"}

        @contextlib.asynccontextmanager
        async def database(_):
            yield service.database

        monkeypatch.setattr(reach, "database", database)

        async def run(*words):
            assert await keys.run(parsed(*words), from_env(environment)) == 0
            return capsys.readouterr().out.strip()

        run.service = service
        yield run


ACME = ("--tenant", "acme")


async def test_a_key_is_made_printed_alone_listed_rotated_and_revoked(concord):
    text = await concord("create", *ACME, "--name", "the console", "--scope", "write", "--days", "2")
    assert await concord.service.status(text) == 200
    [made] = map(json.loads, (await concord("list", *ACME, "--json")).splitlines())
    assert (made["scopes"], made["name"]) == (["write"], "the console")
    assert text not in await concord("list", *ACME)

    new = json.loads(await concord("rotate", made["id"], *ACME, "--grace", "0", "--json"))
    concord.service.accounts.changed("keys")  # as PostgreSQL would tell
    assert [await concord.service.status(key) for key in (text, new["key"])] == [401, 200]
    await concord("revoke", new["id"], *ACME)
    concord.service.accounts.changed("keys")
    assert await concord.service.status(new["key"]) == 401
    assert (await concord("list", *ACME)).count("revoked") == 1


async def test_an_operators_key_has_no_tenant(concord):
    text = await concord("create", "--operator", "--name", "Prometheus")

    assert await concord.service.status(text, "/operator/keys") == 200


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("create", *ACME, "--name", "x"), "scopes"),
        (("create", *ACME, "--name", "", "--scope", "read"), "name"),
        (("create", *ACME, "--name", "x", "--scope", "read", "--days", "-1"), "passed"),
        (("create", "--operator", "--name", "x", "--scope", "read"), "--scope goes with --tenant"),
        (("list", "--tenant", "../x"), "letters"),
        (("rotate", "ck_1", *ACME, "--grace", "-1"), "grace_s"),
    ],
)
async def test_what_is_wrong_is_said(concord, words, reason):
    with pytest.raises(InvalidInput, match=reason):
        await concord(*words)


async def test_a_key_that_is_not_there_is_said(concord):
    with pytest.raises(ConcordError, match="key"):
        await concord("revoke", "ck_/../1", *ACME)


async def test_a_fleet_that_does_not_answer_is_said_without_the_key():
    environment = from_env({"CONCORD_URL": "http://127.0.0.1:1", "CONCORD_API_KEY": "hunter2"})
    with pytest.raises(ConcordError, match="no fleet answers") as refused:
        await keys.run(parsed("list", "--operator"), environment)

    assert "hunter2" not in f"{refused.value}{environment!r}"
