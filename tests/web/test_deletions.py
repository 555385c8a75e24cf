"""Deleting a job over HTTP, and its receipt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas import ids
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from tests.web.service import ACME, BOLT, PATHS, ROOT, UUID, Worker, by, problem
from web.resources.deletions import Deletions


@pytest.fixture
async def service():
    database = MemoryDatabase()
    async with Worker(database, resources=[Deletions(MemoryReader(database), database)]) as service:
        await service.created(UUID, reference="call 1")
        yield service


async def delete(service, name=UUID, headers=ACME, **query):
    return await service.client.delete(f"/jobs/{name}", headers=headers, params=query)


async def finish(service, id):
    deletion = service.database.deletions[id]
    service.database.deletions[id] = replace(deletion, done_at=deletion.requested_at)


async def test_a_deleted_job_is_gone_and_its_receipt_follows(service):
    await service.finished(UUID)
    begun = await delete(service)
    body = await begun.json()
    receipt = f"/deletions/{body['id']}"

    assert (begun.status, begun.headers["Location"], body["state"]) == (202, receipt, "running")
    assert (body["job_id"], body["requested_by"]) == (UUID, "environment:acme")
    assert body["erased"]["rows"]["transcripts"] == 1
    for path in PATHS:
        await problem(await service.get(path.format(UUID)), 404)
    assert (await service.get(receipt)).status == 202

    await finish(service, body["id"])
    again, done = await delete(service), await service.get(receipt)
    assert (again.status, done.status) == (200, 200)
    assert await again.json() == await done.json() == body | {"state": "done", "done_at": body["requested_at"]}


@pytest.mark.parametrize("name", [UUID, UUID.upper(), "call%201"])
async def test_a_job_is_deleted_by_any_of_its_names(service, name):
    assert (await by_name(service, name)).status == 202


async def by_name(service, name, headers=ACME):
    url = service.client.make_url("/").with_path(f"/jobs/{name}", encoded=True)
    return await service.client.session.delete(url, headers=headers)


async def test_a_deletion_by_reference_is_repeated_where_the_id_follows_from_it(service):
    id = ids.job_of_reference("acme", "call 2")
    await service.created(id, reference="call 2")
    first, second = await by_name(service, "call%202"), await by_name(service, "call%202")

    assert (first.status, await first.json()) == (second.status, await second.json())


async def test_other_tenants_see_neither_the_job_nor_the_receipt(service):
    unknown = await problem(await delete(service, "unknown", BOLT), 404)
    assert await problem(await delete(service, headers=BOLT), 404) == unknown
    begun = await (await delete(service)).json()
    receipt = f"/deletions/{begun['id']}"

    assert await problem(await delete(service, headers=BOLT), 404) == unknown
    none = await problem(await service.get(f"/deletions/{UUID}"), 404)
    assert await problem(await service.get(receipt, BOLT), 404) == none
    assert await problem(await service.get("/deletions/nonsense"), 404) == none
    assert (await service.get(receipt, ROOT)).status == 202
    assert (await by(service, receipt, "", ROOT)).status == 202


async def test_an_operator_says_whose_job_where_several_tenants_have_it(service):
    await service.created(UUID, tenant="bolt")
    assert (await problem(await delete(service, headers=ROOT), 409))["tenants"] == ["acme", "bolt"]
    begun = await delete(service, headers=ROOT, tenant="bolt")

    assert (begun.status, (await begun.json())["tenant_id"]) == (202, "bolt")
    assert (await service.get(f"/jobs/{UUID}/status")).status == 200
