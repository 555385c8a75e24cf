"""A walk over every route of the OpenAPI document, with the ids of another tenant and with ids that nobody has."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from agents.media.source.audio_source import AudioSource
from agents.reports.templates import check
from agents.search.ask import Asker
from agents.search.searcher import Searcher
from agents.stages.uploads.asked import AskedConversations
from agents.stages.uploads.conversations import ConversationRequests
from agents.stages.uploads.received import ReceivedUploads
from agents.stages.uploads.runs import Runs
from agents.text.chunks.markdown import document_chunks
from agents.upkeep.mail_requests import MailRequests
from schemas.accounts.sealing import Seals, new_key
from schemas.errors import SettingsError
from sinks.fair_slots import FairSlots
from sinks.memory.conversations.history import MemoryConversationHistory
from sinks.memory.reading.changes import MemoryChanges
from sinks.memory.reading.reports import MemoryReports
from sinks.memory.reading.summaries import MemorySummaryItems
from sinks.memory.search.reads import MemorySearch
from tests.web.service import ACME, UUID
from web.connections.caller_limit import CallerLimit
from web.live.tenant_feed import TenantFeeds
from web.resources.accounts.audit import AccountAudit
from web.resources.accounts.keys import KeyManagement
from web.resources.accounts.settings import TenantSettings
from web.resources.conversations.accounts import AccountConversations
from web.resources.conversations.postprocess import Postprocess
from web.resources.conversations.urls import FileUrls
from web.resources.deletions import Deletions
from web.resources.exports.document_chunks import JobDocumentChunks
from web.resources.exports.mail import JobMail
from web.resources.jobs.details import JobControl
from web.resources.reports.audit import AuditTrail
from web.resources.reports.metrics import JobMetrics
from web.resources.reports.stats import TenantStats
from web.resources.reports.tenant_events import TenantEvents
from web.resources.reports.usage import TenantUsage
from web.resources.schedules import TenantSchedules
from web.resources.search.ask import Ask
from web.resources.search.search import Search
from web.resources.summaries.items import SummaryItemLists
from web.resources.summaries.summary import JobSummary
from web.resources.uploads.direct import DirectAudio
from web.resources.uploads.process import ProcessAudio
from web.resources.webhooks.deliveries import WebhookDeliveries
from web.resources.webhooks.endpoints import Webhooks

#: A job of bolt that is deleted.
DELETED = "4711ca11-0000-4000-8000-00000000000d"

#: An id of each kind that nobody has, in the form of the real ones.
UNKNOWN = {
    "job": "9999ca11-0000-4000-8000-000000000009",
    "key": "ck_00000000000000000000",
    "webhook": "wh_00000000000000000000000000000000",
    "delivery": "999999999",
    "item": "9999ca11-0000-5000-8000-000000000009",
    "deletion": "9999ca11-0000-4000-8000-000000000009",
    "upload": "9999ca11-0000-4000-8000-000000000009",
    "schedule": "9999ca11-0000-4000-8000-000000000009",
    "processing_id": "proc_9999ca11000040008000000000000009",
    "name": "report",
}
#: What the parameter `id` is, by the beginning of the path.
KINDS = {
    "/jobs/": "job",
    "/tenants/{tenant}/keys/": "key",
    "/tenants/{tenant}/schedules/": "schedule",
    "/deletions/": "deletion",
    "/audio/uploads/": "upload",
}
#: Paths whose parameters name nothing of a tenant, and those of operators, which are closed to others anyway.
NOBODYS = ("/problems/", "/operator/")

#: Headers that say when and in which request something was answered, not what.
VARYING = {"Date", "X-Request-ID", "RateLimit"}


def no_model(model):
    """Opens no embedding model."""
    raise SettingsError(model)


def accounts_resources(database, accounts):
    """What a worker serves of accounts."""
    return [KeyManagement(database, accounts.changed), TenantSettings(database, accounts, accounts.changed, check)]


def conversation_resources(database, accounts, reader, store, history=None, lacks=(), public_url=None):
    """What a worker serves of conversations."""
    asked = AskedConversations(database, ConversationRequests(accounts, lacks))
    urls = FileUrls(store, database, public_url)
    return [
        Postprocess(reader, store, asked, urls, CallerLimit("files", 8)),
        AccountConversations(history or MemoryConversationHistory(database), database),
    ]


def all_resources(database, accounts, reader, store, reports=None, changes=None, items=None, history=None):
    """What a worker serves besides the standard resources and the corrections, with nothing outside of it."""
    searcher = Searcher(MemorySearch(database), no_model)
    reports, changes = reports or MemoryReports(database), changes or MemoryChanges(database)
    at_once = CallerLimit("everything", 8)
    uploads = ReceivedUploads(
        database, AudioSource(store, None, ()), Runs(("a", "b"), 3600.0), accounts, FairSlots(6, 5)
    )

    async def limit(_):
        return 1 << 20

    return [
        *accounts_resources(database, accounts),
        *conversation_resources(database, accounts, reader, store, history),
        Webhooks(database, database, lambda _: None, Seals.parse(new_key())),
        WebhookDeliveries(database),
        ProcessAudio(uploads, store, limit, at_once),
        DirectAudio(database, uploads, store, at_once, 1 << 30),
        JobControl(reader, database, uploads),
        Deletions(reader, database),
        TenantSchedules(database, ("document",)),
        JobMail(reader, database, MailRequests(database, "concord@sender.example")),
        JobMetrics(reader, reports, {}),
        AuditTrail(reader, reports),
        AccountAudit(reports),
        Search(searcher),
        JobDocumentChunks(reader, store, accounts, document_chunks),
        Ask(Asker(searcher, None, database, accounts), at_once),
        TenantStats(reports),
        TenantUsage(reports, {}),
        JobSummary(reader, store),
        SummaryItemLists(items or MemorySummaryItems(database)),
        TenantEvents(changes, TenantFeeds(changes), at_once),
    ]


def operations(document):
    """(method, path, operation) of every operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def filled(path, ids, tenant):
    """The path with the ids of its parameters. A parameter whose kind is not known here is an error of the walk."""
    of_id = next((kind for beginning, kind in KINDS.items() if path.startswith(beginning)), None)
    names = ids | {"tenant": tenant, "id": ids.get(of_id)}
    return re.sub(r"{(\w+)}", lambda match: quote(names[match[1]], safe=""), path)


def body_of(operation):
    """An example body of the operation, with its media type."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        if "example" in content:
            return json.dumps(content["example"]).encode(), media_type
    return None, None


async def answer(worker, method, path, operation, headers):
    data, media_type = body_of(operation)
    sent = headers | {"If-Match": "*"} | ({"Content-Type": media_type} if media_type else {})
    url = f"{worker.url.rstrip('/')}{path}"
    async with worker.client.session.request(method, url, data=data, headers=sent, allow_redirects=False) as response:
        is_stream = response.content_type == "text/event-stream"
        body = await response.content.readany() if is_stream else await response.read()
    if response.content_type == "application/problem+json":
        problem = json.loads(body)
        problem.pop("request_id", None)
        body = problem
    kept = {name: value for name, value in response.headers.items() if name not in VARYING}
    return response.status, {k: v for k, v in kept.items() if k != "Content-Length"}, body


def pairs(path, operation, ids, own_tenant="acme"):
    """Every way in which the path, or the query, names what is another tenant's, and the same for what nobody has."""
    names, in_query = set(re.findall(r"{(\w+)}", path)), {one["name"] for one in operation["parameters"]}
    if path.startswith(NOBODYS):
        return
    token = "?token=any" if "token" in in_query else ""
    if names:
        yield filled(path, ids, "bolt") + token, filled(path, UNKNOWN, "nobody") + token
    if "tenant" in names and names != {"tenant"}:
        yield filled(path, ids, own_tenant), filled(path, UNKNOWN, own_tenant)
    elif "tenant" in in_query - names:
        asked = "&q=anything" if "q" in in_query else ""
        yield f"{filled(path, ids, '')}?tenant=bolt{asked}", f"{filled(path, ids, '')}?tenant=nobody{asked}"
        yield f"{filled(path, ids, '')}?tenant=bolt{asked}", f"{filled(path, UNKNOWN, '')}?tenant=bolt{asked}"


async def walk(worker, ids):
    """Call every operation as acme about bolt's things; how many pairs were compared, and in how many they differed or
    did not refuse.
    """
    document = await worker.json("/openapi.json")
    compared, leaks = 0, []
    for method, path, operation in operations(document):
        for theirs, nobodys in pairs(path, operation, ids):
            one = await answer(worker, method, theirs, operation, ACME)
            other = await answer(worker, method, nobodys, operation, ACME)
            compared += 1
            if one != other or one[0] not in (403, 404):
                leaks.append((method, theirs, one, other))
        own = path if path.startswith(NOBODYS) else filled(path, UNKNOWN, "acme")
        status, _, body = await answer(worker, method, own, operation, ACME)
        if "/openapi" not in path and status != 403 and re.search(rb"bolt", body if isinstance(body, bytes) else b""):
            leaks.append((method, path, "mentions another tenant", status, body))
    return compared, leaks


async def seen_by_bolt(worker, ids):
    """What bolt sees of its own things."""
    bolt = {"X-API-Key": "bolt-key"}
    paths = (
        f"/jobs/{UUID}/status",
        f"/jobs/{UUID}/transcript",
        f"/jobs/{UUID}/transcript/words",
        "/tenants/bolt/jobs",
        "/tenants/bolt/review",
        f"/tenants/bolt/keys/{ids['key']}",
        "/tenants/bolt/settings",
        "/tenants/bolt/webhooks",
        f"/tenants/bolt/webhooks/{ids['webhook']}/deliveries",
        "/tenants/bolt/schedules",
        "/api/v1/accounts/bolt/conversations",
    )
    return [*[await worker.json(path, bolt) for path in paths], (await worker.json("/tenants/bolt/keys", bolt))["keys"]]


async def prepared(worker):
    """A job with everything, settings, and one of each other thing of bolt; their ids, by kind."""
    await worker.created(UUID, "bolt", reference="call 1/2 ü")
    await worker.stored_audio(UUID, "bolt")
    await worker.transcribed(UUID, "bolt")
    await worker.tabled(UUID, "bolt")
    await worker.created(DELETED, "bolt")

    async def made(method, path, status, **more):
        headers = {"X-API-Key": "bolt-key", "If-Match": "*"}
        async with worker.client.session.request(method, worker.url + path, headers=headers, **more) as response:
            assert response.status == status, await response.text()
            return await response.json()

    await made("PUT", "tenants/bolt/settings", 200, json={"audio_days": 7})
    key = await made("POST", "tenants/bolt/keys", 201, json={"name": "theirs", "scopes": ["read"]})
    webhook = (await made("POST", "tenants/bolt/webhooks", 201, json={"url": "https://example.com/h"}))["id"]
    schedule = {"name": "theirs", "cron": "0 3 * * *", "enrichment": "document"}
    conversation = {"account_id": "bolt", "conversation_id": "conv_1", "email_id": "ann@example.com"}
    return {
        "job": UUID,
        "processing_id": (await made("POST", "api/v1/postprocess/conversation", 202, json=conversation))["data"][
            "processing_id"
        ],
        "name": "report",
        "schedule": (await made("POST", "tenants/bolt/schedules", 201, json=schedule))["id"],
        "key": key["id"],
        "webhook": webhook,
        "delivery": (await made("POST", f"tenants/bolt/webhooks/{webhook}/test", 202))["id"],
        "item": (await made("GET", "tenants/bolt/review", 200))["items"][0]["id"],
        "deletion": (await made("DELETE", f"jobs/{DELETED}", 202))["id"],
        "upload": (await made("POST", "audio/uploads", 201, json={"filename": "a.wav", "size_bytes": 4}))["upload_id"],
    }
