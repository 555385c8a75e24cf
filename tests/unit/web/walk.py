"""A walk over every route of the OpenAPI document, with the ids of another tenant and with ids that nobody has."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from tests.unit.web.service import ACME, UUID
from web.resources.accounts.keys import KeyManagement
from web.resources.accounts.settings import TenantSettings
from web.resources.webhooks.deliveries import WebhookDeliveries
from web.resources.webhooks.endpoints import Webhooks

UNKNOWN = "9999ca11-0000-4000-8000-000000000009"

#: Headers that say when and in which request something was answered, not what.
VARYING = {"Date", "X-Request-ID", "RateLimit"}


def accounts_resources(database, accounts):
    """What a worker serves of accounts."""
    return [KeyManagement(database, accounts.changed), TenantSettings(database, accounts, accounts.changed)]


def all_resources(database, accounts):
    """What a worker serves besides the standard resources, with nothing outside of it."""
    webhooks = [Webhooks(database, database, lambda _: None), WebhookDeliveries(database)]
    return [*accounts_resources(database, accounts), *webhooks]


def operations(document):
    """(method, path, operation) of every operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def filled(path, names):
    """The path with its parameters; a parameter that `names` does not have is the same for both sides of a pair."""
    return re.sub(r"{(\w+)}", lambda match: quote(names.get(match[1], "1"), safe=""), path)


def body_of(operation):
    """An example body of the operation, with its media type."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        if "example" in content:
            return json.dumps(content["example"]).encode(), media_type
    return None, None


async def answer(worker, method, path, operation, headers, query=""):
    data, media_type = body_of(operation)
    sent = headers | {"If-Match": "*"} | ({"Content-Type": media_type} if media_type else {})
    response = await worker.client.session.request(
        method, f"{worker.url.rstrip('/')}{path}{query}", data=data, headers=sent, allow_redirects=False
    )
    body = await response.read()
    if response.content_type == "application/problem+json":
        problem = json.loads(body)
        problem.pop("request_id", None)
        body = problem
    kept = {name: value for name, value in response.headers.items() if name not in VARYING}
    return response.status, {k: v for k, v in kept.items() if k != "Content-Length"}, body


def pairs(path, foreign, unknown, own_tenant="acme"):
    """Every way in which the path, or the query, names what is another tenant's, and the same for what nobody has."""
    names = set(re.findall(r"{(\w+)}", path))
    if "tenant" in names:
        yield filled(path, foreign), filled(path, unknown), ""
        if names != {"tenant"}:
            own = {"tenant": own_tenant}
            yield filled(path, foreign | own), filled(path, unknown | own), ""
    elif path.startswith("/jobs/{id}"):
        yield filled(path, foreign), filled(path, unknown), ""
        yield filled(path, foreign), filled(path, unknown), f"?tenant={foreign['tenant']}"
        yield filled(path, foreign), filled(path, unknown), f"?tenant={unknown['tenant']}"


async def walk(worker, ids):
    """Call every operation as acme about bolt's things; how many pairs were compared, and in how many they differed or
    did not refuse.
    """
    document = await worker.json("/openapi.json")
    compared, leaks = 0, []
    for method, path, operation in operations(document):
        kind = next((kind for kind in ids if f"/{kind}" in path), None)
        foreign = {"tenant": "bolt", "id": ids.get(kind, UUID)}
        unknown = {"tenant": "nobody", "id": UNKNOWN}
        for theirs, nobodys, query in pairs(path, foreign, unknown):
            one = await answer(worker, method, theirs, operation, ACME, query)
            other = await answer(worker, method, nobodys, operation, ACME, query)
            compared += 1
            if one != other or one[0] not in (403, 404):
                leaks.append((method, theirs, query, one, other))
        status, _, body = await answer(worker, method, filled(path, unknown | {"tenant": "acme"}), operation, ACME)
        if "/openapi" not in path and status != 403 and re.search(rb"bolt", body if isinstance(body, bytes) else b""):
            leaks.append((method, path, "mentions another tenant", status, body))
    return compared, leaks


async def seen_by_bolt(worker, ids):
    """What bolt sees of its own things."""
    bolt = {"X-API-Key": "bolt-key"}
    paths = (
        f"/jobs/{UUID}/status",
        f"/jobs/{UUID}/transcript",
        "/tenants/bolt/jobs",
        f"/tenants/bolt/keys/{ids['keys']}",
    )
    return [
        *[await worker.json(path, bolt) for path in paths],
        await worker.json("/tenants/bolt/settings", bolt),
        (await worker.json("/tenants/bolt/keys", bolt))["keys"],
        await worker.json("/tenants/bolt/webhooks", bolt),
    ]


async def prepared(worker):
    """A job with everything, settings, a key and a webhook of bolt; the ids of the last two, by kind."""
    await worker.created(UUID, "bolt", reference="call 1/2 ü")
    await worker.stored_audio(UUID, "bolt")
    await worker.finished(UUID, "bolt")
    bolt = {"X-API-Key": "bolt-key"}
    made = await worker.client.post("/tenants/bolt/keys", json={"name": "theirs", "scopes": ["read"]}, headers=bolt)
    settings = await worker.client.put(
        "/tenants/bolt/settings", json={"audio_days": 7}, headers=bolt | {"If-Match": '"0"'}
    )
    hook = await worker.client.post("/tenants/bolt/webhooks", json={"url": "https://example.com/h"}, headers=bolt)
    assert (made.status, settings.status, hook.status) == (201, 200, 201)
    return {"keys": (await made.json())["id"], "webhooks": (await hook.json())["id"]}
