"""Settings of tenants over HTTP: who may change them, from which version, and what then holds."""

from __future__ import annotations

import pytest

from schemas.accounts.settings import AccountSettings
from sinks.accounts import Accounts
from sinks.memory.database import MemoryDatabase
from tests.web.service import ACME, BOLT, ROOT, Worker, problem
from tests.web.walk import accounts_resources

PATH = "/tenants/acme/settings"
DEFAULTS = AccountSettings(
    requests_per_minute=600, max_upload_mb=100, deadline_s=3600, recognizers=("a", "b"), enrich=True
)
UNSET = AccountSettings().model_dump(mode="json")


@pytest.fixture
async def service():
    database = MemoryDatabase()
    async with Worker(database, resources=accounts_resources(database, Accounts(database, DEFAULTS))) as service:
        yield service


async def put(service, body, version='"0"', headers=ACME, method="PUT"):
    sent = headers | ({"If-Match": version} if version else {})
    return await service.client.request(method, PATH, json=body, headers=sent)


async def test_settings_are_replaced_changed_and_hold_over_the_installations(service):
    first = await service.get(PATH)
    assert (await first.json(), first.headers["ETag"]) == (UNSET, '"0"')
    replaced = await put(service, {"audio_days": 7, "recognizers": ["b"]})
    assert (replaced.status, replaced.headers["ETag"]) == (200, '"1"')
    changed = await put(service, {"audio_days": None, "deadline_s": 60}, '"1"', method="PATCH")

    assert await changed.json() == UNSET | {"recognizers": ["b"], "deadline_s": 60.0}
    effective = await service.json(f"{PATH}/effective")
    assert effective == DEFAULTS.model_dump(mode="json") | {"recognizers": ["b"], "deadline_s": 60.0}
    assert (await service.json("/tenants/bolt/settings", BOLT)) == UNSET


async def test_a_change_says_from_which_version_it_was_made(service):
    assert (await problem(await put(service, {}, version=None), 428))["code"] == "precondition_required"
    assert (await put(service, {}, version="*")).status == 200
    assert (await problem(await put(service, {"audio_days": 9}), 412))["code"] == "version_changed"
    assert (await put(service, {}, version='"7", "1"')).status == 200


async def test_a_change_that_another_overtakes_is_told_the_version_that_there_is_now(service, monkeypatch):
    database, read = service.database, service.database.account_settings

    async def overtaken(tenant):
        monkeypatch.undo()
        found = await read(tenant)
        await database.save_account_settings(tenant, found.settings, found.version, "another")
        return found

    monkeypatch.setattr(database, "account_settings", overtaken)
    late = await put(service, {"audio_days": 9})

    assert (await problem(late, 412))["code"] == "version_changed"
    assert late.headers["ETag"] == '"1"'
    assert (await put(service, {"audio_days": 9}, late.headers["ETag"])).status == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"recognizers": ["a", "c"]}, "#/recognizers"),
        ({"recognizers": []}, "#/recognizers"),
        ({"deadline_s": 0}, "#/deadline_s"),
        ({"audio_days": 0.5}, "#/audio_days"),
        ({"nothing_like_it": 1}, "#/nothing_like_it"),
        ({"mail_to": ["ann@example.com"]}, "#/mail_to"),
        ({"mail_to": ["ann@example.com\r\nBcc: eve@example.com"]}, "#/mail_to/0"),
        ({"mail_subject": "{{ titel }}"}, "#/mail_subject"),
        ({"mail_html": "{% if %}"}, "#/mail_html"),
        ({"requests_per_minute": "many"}, "#/requests_per_minute"),
    ],
)
async def test_what_cannot_hold_is_refused_with_the_field(service, body, pointer):
    refused = await problem(await put(service, body), 400)

    assert [error["pointer"] for error in refused["errors"]] == [pointer]


async def test_a_tenant_may_lower_its_limits_and_only_an_operator_raises_them(service):
    for raised in ({"requests_per_minute": 601}, {"max_upload_mb": 101}, {"deadline_s": 3601}):
        assert "operator" in (await problem(await put(service, raised), 403))["detail"]
    assert (await put(service, {"requests_per_minute": 100})).status == 200
    await problem(await put(service, {}, '"1"'), 403)
    assert (await put(service, {"requests_per_minute": 5000}, '"1"', ROOT)).status == 200
    assert (await put(service, {"requests_per_minute": 5000, "audio_days": 3}, '"2"')).status == 200


async def test_settings_are_the_administrators(service):
    await problem(await service.get(PATH, BOLT), 404)
    await problem(await put(service, {}, headers=BOLT), 404)
    await problem(await put(service, {}, headers={}), 401)


async def test_enrichment_cannot_be_switched_on_where_there_is_none():
    database = MemoryDatabase()
    accounts = Accounts(database, AccountSettings(enrich=False))
    async with Worker(database, resources=accounts_resources(database, accounts)) as service:
        refused = await problem(await put(service, {"enrich": True}), 400)

    assert refused["errors"][0]["pointer"] == "#/enrich"


async def test_recipients_and_templates_of_mails_are_set_where_mail_is_sent():
    database = MemoryDatabase()
    accounts = Accounts(database, AccountSettings(enrich=True, mail_to=()))
    wanted = {"mail_to": ["ann@example.com"], "mail_subject": "Call {{ reference }}"}
    async with Worker(database, resources=accounts_resources(database, accounts)) as service:
        assert (await put(service, wanted)).status == 200
        assert (await service.json(f"{PATH}/effective"))["mail_to"] == ["ann@example.com"]


async def test_only_an_operator_says_whose_an_agent_is(service):
    """One key of ElevenLabs' serves all tenants: whoever names an agent gets its conversations."""
    agents = {"conversation_agents": {"agent_1": "zoe@example.com"}}
    assert "conversation_agents" in (await problem(await put(service, agents), 403))["detail"]
    assert (await put(service, agents, headers=ROOT)).status == 200
    assert (await put(service, {"audio_days": 9}, '"1"', method="PATCH")).status == 200
    assert (await put(service, {"conversation_agents": None}, '"2"', method="PATCH")).status == 403
    await problem(await put(service, {"conversation_agents": {"a/b": "zoe@example.com"}}, headers=ROOT), 400)
    await problem(await put(service, {"conversation_agents": {"agent_1": "zoe"}}, headers=ROOT), 400)
