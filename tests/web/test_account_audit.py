"""The audit log of a tenant over HTTP."""

from __future__ import annotations

import jsonschema
import pytest

from schemas.accounts.settings import AccountSettings
from sinks.memory.database import MemoryDatabase
from sinks.memory.reading.reports import MemoryReports
from tests.web.service import ACME, BOLT, ROOT, Worker, problem
from tests.web.test_webhooks import resources
from web.resources.accounts.audit import AccountAudit
from web.resources.accounts.keys import KeyManagement

PATH = "/tenants/acme/audit"


@pytest.fixture
async def service():
    database = MemoryDatabase()
    more = [AccountAudit(MemoryReports(database)), KeyManagement(database), *resources(database)]
    async with Worker(database, resources=more) as service:
        yield service


async def post(service, path, body=None, headers=ACME):
    async with service.client.post(path, json=body, headers=headers) as response:
        assert response.status < 300, await response.text()
        return await response.json()


async def test_it_tells_who_changed_what_and_no_secret(service):
    webhook = await post(service, "/tenants/acme/webhooks", {"url": "https://example.com/?s3cret"})
    rotated = await post(service, f"/tenants/acme/webhooks/{webhook['id']}/secret", headers=ROOT)
    await post(service, f"/tenants/acme/webhooks/{webhook['id']}/test")
    key = await post(service, "/tenants/acme/keys", {"name": "theirs", "scopes": ["read"]})
    response = await service.get(PATH)
    changes = (await response.json())["changes"]

    assert [(one["about"], one["what"], one["subject"], one["author"]) for one in changes] == [
        ("keys", "created", key["id"], "environment:acme"),
        ("webhooks", "tested", webhook["id"], "environment:acme"),
        ("webhooks", "secret rotated", webhook["id"], "environment:*"),
        ("webhooks", "created", webhook["id"], "environment:acme"),
    ]
    text = await response.text()
    assert not any(secret in text for secret in ("s3cret", webhook["secret"], rotated["secret"], key["key"]))
    assert [one["about"] for one in (await service.json(f"{PATH}?about=keys"))["changes"]] == ["keys"]


async def test_consent_to_voice_prints_is_told(service):
    await service.database.save_account_settings("acme", AccountSettings(voice_prints=True), 0, "k1")

    changes = (await service.json(PATH))["changes"]
    assert {(one["about"], one["what"]) for one in changes} == {("settings", "changed"), ("voices", "allowed")}


async def test_it_comes_in_pages(service):
    ids = [(await post(service, "/tenants/acme/keys", {"name": "k", "scopes": ["read"]}))["id"] for _ in range(3)]
    first = await service.get(f"{PATH}?limit=2")
    page, rest = await first.json(), await service.json(str(first.links["next"]["url"].relative()))

    assert [one["subject"] for one in page["changes"] + rest["changes"]] == ids[::-1]
    assert rest["next"] is None
    await problem(await service.get(f"{PATH}?cursor=x"), 400)
    await problem(await service.get(f"{PATH}?about=jobs"), 400)


async def test_only_administrators_read_it_and_only_their_own(service):
    reader = await post(service, "/tenants/acme/keys", {"name": "reader", "scopes": ["read"]})
    await problem(await service.get(PATH, BOLT), 404)
    assert (await service.json("/tenants/bolt/audit", BOLT))["changes"] == []
    assert reader["key"]
    await problem(await service.get("/operator/audit"), 403)
    await post(service, "/operator/keys", {"name": "Prometheus"}, ROOT)
    assert [one["what"] for one in (await service.json("/operator/audit", ROOT))["changes"]] == ["created"]


async def test_answers_keep_the_schemas_of_the_document(service):
    await post(service, "/tenants/acme/webhooks", {"url": "https://example.com/"})
    document = await service.json("/openapi.json")
    content = document["paths"]["/tenants/{tenant}/audit"]["get"]["responses"]["200"]["content"]["application/json"]
    whole = content["schema"] | {"components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(await service.json(PATH))
    jsonschema.Draft202012Validator(whole).validate(content["example"])
