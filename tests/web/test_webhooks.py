"""A tenant's webhooks over HTTP."""

from __future__ import annotations

import jsonschema
import pytest

from agents.media.source.audio_url import AllowedHosts
from agents.webhooks.poster import check_endpoint
from schemas.accounts.sealing import Seals, new_key
from schemas.webhooks.rows import Attempt
from sinks.memory.database import MemoryDatabase
from sinks.ports.webhooks.endpoints import MAX_ENDPOINTS
from tests.web.service import ACME, BOLT, ROOT, Worker, problem
from web.resources.webhooks.deliveries import WebhookDeliveries
from web.resources.webhooks.endpoints import Webhooks

PATH = "/tenants/acme/webhooks"
URL = "https://example.com/hook"
SEALS = Seals.parse(new_key())


def resources(database, seals=SEALS):
    check = lambda url: check_endpoint(url, AllowedHosts.of([]))  # noqa: E731
    return [Webhooks(database, database, check, seals), WebhookDeliveries(database)]


@pytest.fixture
async def service():
    database = MemoryDatabase()
    async with Worker(database, resources=resources(database)) as service:
        yield service


async def post(service, path=PATH, body=None, headers=ACME, status=201):
    response = await service.client.post(path, json=body, headers=headers)
    assert response.status == status, await response.text()
    return await response.json()


async def created(service, **more):
    return await post(service, body={"url": URL} | more)


async def patch(service, path, body, headers=ACME):
    return await service.client.patch(path, json=body, headers=headers)


async def test_the_secret_is_in_the_answer_that_makes_it_and_in_no_other(service):
    response = await service.client.post(PATH, json={"url": URL, "description": "ours"}, headers=ACME)
    made = await response.json()
    secret = made.pop("secret")
    one = f"{PATH}/{made['id']}"

    assert secret.startswith("whsec_")
    assert response.headers["Location"] == one
    assert (made["events"], made["status"], made["created_by"]) == (["*"], "active", "environment:acme")
    assert await service.json(one) == made
    assert await service.json(PATH) == {"webhooks": [made]}
    assert secret not in await (await service.get(one)).text()
    rotated = await post(service, f"{one}/secret")
    assert rotated["secret"] != secret
    assert rotated["previous_valid_s"] == 86400


async def test_secrets_are_stored_encrypted_for_their_endpoint(service):
    made = await created(service)
    rotated = await post(service, f"{PATH}/{made['id']}/secret")
    stored = await service.database.stored_secrets()

    assert [SEALS.open(one.text, "acme", made["id"]) for one in stored] == [rotated["secret"], made["secret"]]
    assert not any(made["secret"] in one.text or rotated["secret"] in one.text for one in stored)


async def test_without_a_key_no_secret_is_made_and_the_answer_says_what_to_set(service):
    one = f"{PATH}/{(await created(service))['id']}"
    async with Worker(service.database, resources=resources(service.database, Seals())) as keyless:
        for path, body in ((PATH, {"url": URL}), (f"{one}/secret", None)):
            refused = await problem(await keyless.client.post(path, json=body, headers=ACME), 409)
            assert (refused["code"], "CONCORD_SECRET_KEY" in refused["detail"]) == ("no_secret_key", True)
        await problem(await keyless.client.post(f"{PATH}/wh_unknown/secret", headers=ACME), 404)
        assert (await keyless.json(one))["status"] == "active"
    assert len(await service.database.stored_secrets()) == 1


async def test_it_is_changed_and_deleted(service):
    one = f"{PATH}/{(await created(service))['id']}"
    changed = await (await patch(service, one, {"events": ["job.failed", "job.failed"], "active": False})).json()
    assert (changed["events"], changed["status"], changed["url"]) == (["job.failed"], "off", URL)
    await problem(await service.client.post(f"{one}/test", headers=ACME), 409)
    assert (await (await patch(service, one, {"active": True})).json())["status"] == "active"
    assert (await service.client.delete(one, headers=ACME)).status == 204
    await problem(await service.client.delete(one, headers=ACME), 404)
    await problem(await service.get(one), 404)
    await problem(await patch(service, one, {}), 404)
    await problem(await service.client.post(f"{one}/secret", headers=ACME), 404)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "url"),
        ({"url": "http://example.com/"}, "must begin with https://"),
        ({"url": "https://127.0.0.1:25/"}, "another protocol's"),
        ({"url": "https://0177.0.0.1/"}, "url: "),
        ({"url": "https://a:b@example.com/"}, "user name"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "events": ["job.done"]}, "'job.completed'"),
        ({"url": URL, "secret": "whsec_x"}, "secret"),
        ({"url": "https://example.com/" + "x" * 2048}, "url"),
    ],
)
async def test_a_wrong_webhook_is_refused_with_the_reason(service, body, reason):
    refused = await problem(await service.client.post(PATH, json=body, headers=ACME), 400)

    assert reason in refused["detail"]


async def test_a_tenant_has_so_many_webhooks(service):
    for _ in range(MAX_ENDPOINTS):
        one = await created(service)
    await problem(await service.client.post(PATH, json={"url": URL}, headers=ACME), 409)
    assert (await patch(service, f"{PATH}/{one['id']}", {"url": "ftp://x/"})).status == 400


async def test_a_test_event_and_its_history(service):
    made = await created(service, events=["document.generated"])
    one = f"{PATH}/{made['id']}"
    sent = await post(service, f"{one}/test", status=202)
    (claim,) = await service.database.claim_deliveries({}, {}, 9, 60)
    await service.database.record_attempt(
        claim, Attempt(status=500, duration_ms=2, answer="oops", error="answered 500")
    )
    detail = await service.json(f"{one}/deliveries/{sent['id']}")
    await problem(await service.client.post(f"{one}/deliveries/{sent['id']}/replay", headers=ACME), 409)

    assert (detail["status"], detail["failures"], detail["type"]) == ("pending", 1, "webhook.test")
    assert detail["body"]["id"] == detail["event_id"] == sent["event_id"]
    assert [(a["status"], a["answer"]) for a in detail["attempts"]] == [(500, "oops")]
    assert detail["next_attempt_at"]


async def test_the_history_comes_in_pages_and_what_failed_is_replayed(service):
    one = f"{PATH}/{(await created(service))['id']}"
    ids = [(await post(service, f"{one}/test", status=202))["id"] for _ in range(3)]
    first = await service.get(f"{one}/deliveries?limit=2")
    page, rest = await first.json(), await service.json(str(first.links["next"]["url"].relative()))
    assert [d["id"] for d in page["deliveries"] + rest["deliveries"]] == ids[::-1]
    assert rest["next"] is None
    for claim in await service.database.claim_deliveries({}, {}, 99, 60):
        await service.database.record_attempt(claim, Attempt(status=200, duration_ms=2))
    assert await post(service, f"{one}/replay", status=202) == {"replayed": 0}
    again = await post(service, f"{one}/deliveries/{ids[0]}/replay", status=202)

    assert (again["status"], again["failures"]) == ("pending", 0)
    assert [d["id"] for d in (await service.json(f"{one}/deliveries?status=pending"))["deliveries"]] == [ids[0]]
    assert len((await service.json(f"{one}/deliveries?status=delivered"))["deliveries"]) == 2
    await problem(await service.get(f"{one}/deliveries?cursor=x"), 400)


async def test_another_tenants_webhook_is_answered_like_one_that_does_not_exist(service):
    made = await created(service)
    sent = await post(service, f"{PATH}/{made['id']}/test", status=202)
    routes = [
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/secret"), ("POST", "/test"), ("POST", "/replay"),
        ("GET", "/deliveries"), ("GET", f"/deliveries/{sent['id']}"), ("POST", f"/deliveries/{sent['id']}/replay"),
    ]  # fmt: skip
    for method, path in routes:
        body = {"json": {"active": True}} if method == "PATCH" else {}
        details = set()
        for webhook in (made["id"], "wh_unknown"):
            url = f"/tenants/bolt/webhooks/{webhook}{path}"
            details.add((await problem(await service.client.request(method, url, headers=BOLT, **body), 404))["detail"])
        assert len(details) == 1, (method, path)
        foreign = await service.client.request(method, f"{PATH}/{made['id']}{path}", headers=BOLT, **body)
        assert (await problem(foreign, 404))["detail"] == "there is no such tenant"
    await problem(await service.get(f"{PATH}/{made['id']}/deliveries/x"), 404)
    assert (await service.json(PATH, ROOT))["webhooks"][0]["id"] == made["id"]


async def test_answers_keep_the_schemas_of_the_document(service):
    document = await service.json("/openapi.json")
    made = await created(service)
    sent = await post(service, f"{PATH}/{made['id']}/test", status=202)
    one = "/tenants/{tenant}/webhooks/{webhook}"
    for route, path in (
        ("/tenants/{tenant}/webhooks", PATH),
        (one, f"{PATH}/{made['id']}"),
        (f"{one}/deliveries", f"{PATH}/{made['id']}/deliveries"),
        (f"{one}/deliveries/{{delivery}}", f"{PATH}/{made['id']}/deliveries/{sent['id']}"),
    ):
        content = document["paths"][route]["get"]["responses"]["200"]["content"]["application/json"]
        whole = content["schema"] | {"components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(await service.json(path))
        jsonschema.Draft202012Validator(whole).validate(content["example"])
