"""A tenant's schedules over HTTP."""

from __future__ import annotations

import pytest

from schemas.accounts.schedules import MAX_SCHEDULES
from sinks.memory.database import MemoryDatabase
from tests.web.service import ACME, BOLT, Worker, problem
from web.resources.schedules import TenantSchedules

PATH = "/tenants/acme/schedules"
NIGHTLY = {
    "name": "index every night",
    "cron": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "enrichment": "document",
    "jobs": {"last_days": 30, "metadata": {"team": "7"}, "language": "de"},
}


@pytest.fixture
async def service():
    database = MemoryDatabase()
    async with Worker(database, resources=[TenantSchedules(database, ("document",))]) as service:
        yield service


async def made(service, **more):
    response = await service.client.post(PATH, json=NIGHTLY | more, headers=ACME)
    assert response.status == 201, await response.text()
    return response, await response.json()


async def test_a_schedule_is_made_shown_and_deleted(service):
    response, view = await made(service)
    assert response.headers["Location"] == f"{PATH}/{view['id']}"
    assert view["next_at"].endswith(("T01:00:00Z", "T02:00:00Z"))
    assert (view["jobs"]["metadata"], view["jobs"]["filename"], view["last_at"]) == ({"team": "7"}, None, None)
    assert await (await service.client.get(f"{PATH}/{view['id']}", headers=ACME)).json() == view
    assert await (await service.client.get(PATH, headers=ACME)).json() == {"schedules": [view]}

    assert (await service.client.delete(f"{PATH}/{view['id']}", headers=ACME)).status == 204
    await problem(await service.client.delete(f"{PATH}/{view['id']}", headers=ACME), 404)
    await problem(await service.client.get(f"{PATH}/{view['id']}", headers=ACME), 404)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"cron": "* * * * *"}, "#/cron"),
        ({"cron": "whenever"}, "#/cron"),
        ({"timezone": "Mars/Olympus"}, "#/timezone"),
        ({"enrichment": "poem"}, "#/enrichment"),
        ({"jobs": {"status": "failed"}}, "#/jobs/status"),
    ],
)
async def test_what_could_not_be_carried_out_is_refused(service, change, pointer):
    refused = await problem(await service.client.post(PATH, json=NIGHTLY | change, headers=ACME), 400)

    assert [error["pointer"] for error in refused["errors"]] == [pointer]


async def test_an_overview_needs_recipients_and_a_mail_server(service):
    database = MemoryDatabase()
    weekly = NIGHTLY | {"enrichment": "overview", "mail_to": ["ann@reader.example"]}
    async with Worker(database, resources=[TenantSchedules(database, (), mails=True)]) as mailing:
        made = await mailing.client.post(PATH, json=weekly, headers=ACME)
        assert (made.status, (await made.json())["mail_to"]) == (201, ["ann@reader.example"])
        for wrong in ({"mail_to": []}, {"mail_to": ["no address"]}):
            await problem(await mailing.client.post(PATH, json=weekly | wrong, headers=ACME), 400)
    for wrong in (weekly, NIGHTLY | {"mail_to": ["ann@reader.example"]}):
        await problem(await service.client.post(PATH, json=wrong, headers=ACME), 400)


async def test_a_tenant_sees_its_own_and_has_not_too_many(service):
    for _ in range(MAX_SCHEDULES):
        await made(service)
    assert "delete one" in (await problem(await service.client.post(PATH, json=NIGHTLY, headers=ACME), 409))["detail"]
    await problem(await service.client.get(PATH, headers=BOLT), 404)


async def test_a_repeated_request_is_one_schedule(service):
    headers = ACME | {"Idempotency-Key": "once"}
    answers = [await service.client.post(PATH, json=NIGHTLY, headers=headers) for _ in range(2)]

    assert len({(await answer.json())["id"] for answer in answers}) == 1


async def test_without_a_time_it_is_carried_out_once_now(service):
    _, view = await made(service, cron=None, jobs={"lacking": True})
    assert (view["cron"], view["jobs"]["lacking"]) == (None, True)

    claim = await service.database.claim_schedule(60)
    await service.database.end_tick(claim, None, 3)
    over = await (await service.client.get(f"{PATH}/{view['id']}", headers=ACME)).json()
    assert (over["next_at"], over["last_asked"]) == (None, 3)


async def test_a_time_that_was_forgotten_is_refused(service):
    without = {name: value for name, value in NIGHTLY.items() if name != "cron"}
    refused = await problem(await service.client.post(PATH, json=without, headers=ACME), 400)

    assert [error["pointer"] for error in refused["errors"]] == ["#/cron"]
