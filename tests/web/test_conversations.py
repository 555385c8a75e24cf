"""Conversations over HTTP: asked for, followed, listed, cancelled."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import jsonschema
import pytest

from schemas import blob_names
from schemas.accounts.settings import AccountSettings
from schemas.conversations import names
from schemas.errors import Unavailable
from schemas.events.job import StepState
from schemas.jobs.outcome import EnrichmentChange, Failure, Outcome, Progress, Step, failed_enrichment, failed_progress
from schemas.jobs.rows import File
from schemas.summaries import ActionItem, Coverage, Statement, Summary
from sinks.accounts import Accounts
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from tests.contract.databases.cases import job as upload
from tests.web.service import ACME, BOLT, ROOT, Worker, of_blob, problem
from tests.web.walk import conversation_resources
from web.resources.conversations.urls import KINDS
from web.resources.conversations.views import ACCEPTED, CONVERSATION, DETAILS, REQUEST, ROW

README = Path(__file__).parents[2] / "README.md"
POST = "/api/v1/postprocess/conversation"
JOB = names.job_id("acme", CONVERSATION)
OWN = f"/api/v1/postprocess/{names.processing_id(JOB)}"


class SigningStore(MemoryStore):
    """A store that signs URLs, each another one."""

    issued = 0

    async def presigned_url(self, uri, expires_s):
        self.issued += 1
        return f"https://bucket.example/{self.name(uri)}?sig={self.issued}&expires={expires_s}"


class Service(Worker):
    """The HTTP service with conversations, and what a fleet would do to them."""

    def __init__(self, store=None, settings=None, **more):
        database, store = MemoryDatabase(), store or MemoryStore()
        self.at = datetime(2026, 11, 30, 12, tzinfo=UTC)
        database.clock = lambda: self.at
        reader = MemoryReader(database)
        accounts = Accounts(database, settings or AccountSettings(), seconds=0)
        resources = conversation_resources(database, accounts, reader, store, **more)
        super().__init__(database, store=store, reader=reader, resources=resources)

    async def post(self, headers=ACME, **change):
        return await self.client.post(POST, json=REQUEST | change, headers=headers)

    async def asked(self, status=202, **change):
        response = await self.post(**change)
        assert response.status == status, await response.text()
        return await response.json()

    async def step(self, **outcome):
        of = {"tenant_id": "acme", "job_id": JOB}
        [written] = await self.database.commit([Step("x", uuid4(), Outcome(**of | outcome))])
        assert written.applied

    async def fetched(self):
        """The conversation is stored."""
        files = []
        for kind, name, content in (
            ("conversation", blob_names.conversation_text("acme", CONVERSATION), b"AI: Hello.\nUser: Hi.\n"),
            ("original", blob_names.conversation_audio("acme", CONVERSATION), b"ID3"),
        ):
            blob = await self.store.put(name, content, "text/plain" if kind == "conversation" else "audio/mpeg")
            files.append(File(tenant_id="acme", job_id=JOB, run=1, kind=kind, **of_blob(blob)))
        step = StepState(state="done", notes=("The recording ends early.",))
        await self.step(progress=Progress(run=1, status="reconciling", stage="fetch", step=step), files=tuple(files))

    async def completed(self, *kinds):
        """Its run is complete, and these enrichments are done."""
        await self.fetched()
        progress = Progress(run=1, status="completed", stage="persist", step=StepState(state="done"))
        await self.step(progress=progress, new_enrichments=("summary", "report", "mail"))
        for kind in kinds:
            blob = await self._made(kind)
            file = File(tenant_id="acme", job_id=JOB, run=1, kind=kind, **of_blob(blob))
            await self.step(
                enrichment=EnrichmentChange(run=1, kind=kind, state="done"), files=(file,) if kind != "mail" else ()
            )

    async def _made(self, kind):
        if kind == "summary":
            name, content = blob_names.summary("acme", JOB, 1), SUMMARY.model_dump_json().encode()
            return await self.store.put(name, content, "application/json")
        return await self.store.put(blob_names.conversation_report("acme", CONVERSATION), b"%PDF", "application/pdf")


_CITED = {"words": ("w1",), "quote": "Hello"}
SUMMARY = Summary(
    kind="summary",
    template="default/v1",
    transcript_version=1,
    topic="A greeting",
    sentiment="positive",
    key_points=(Statement(text="They greet.", **_CITED),),
    action_items=(ActionItem(text="Call back.", who="Zoe", **_CITED),),
    coverage=Coverage(words=3, words_read=3, parts=1),
)


@pytest.fixture
async def service():
    async with Service() as service:
        yield service


def shape(value):
    """The fields and types of a document; null stands for anything."""
    if isinstance(value, dict):
        return {name: shape(of) for name, of in value.items()}
    return type(value) if value is not None else None


def readme_example():
    """Method, path, request and answer of the README."""
    text = README.read_text()
    found = re.search(
        r"^    (POST) (/api/v1/\S+)\n    (\{.*?\})\n\n    (\d+) (\{.*?\}\})\n", text, re.MULTILINE | re.DOTALL
    )
    method, path, request, status, answer = found.groups()
    return method, path, json.loads(request), int(status), json.loads(answer)


async def test_the_example_of_the_readme_runs_as_it_stands(service):
    method, path, request, status, answer = readme_example()
    service.at = datetime(2026, 5, 1, 12, tzinfo=UTC)

    response = await service.client.request(method, path, json=request, headers=ACME)

    assert (response.status, await response.json()) == (status, answer)
    assert (request, answer) == (REQUEST, ACCEPTED)


async def test_the_request_of_the_documentation_is_answered_as_that_says(service):
    """Request and answer run as they stand in the OpenAPI document."""
    document = await service.json("/openapi.json")
    operation = document["paths"][POST]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    answers = operation["responses"]["202"]["content"]["application/json"]

    response = await service.client.post(POST, json=content["example"], headers=ACME)
    answer = await response.json()

    assert response.status == 202
    assert response.headers["Location"] == OWN
    assert shape(answer) == shape(answers["example"]) == shape(ACCEPTED)
    assert (answer["success"], answer["message"]) == (True, answers["example"]["message"])
    assert answer["data"]["status"] == answers["example"]["data"]["status"] == "pending"
    assert answer["data"]["conversation_id"] == content["example"]["conversation_id"]
    assert answer["data"]["processing_id"] == names.processing_id(JOB)
    assert datetime.fromisoformat(answer["data"]["estimated_completion"]) == service.at + timedelta(minutes=5)
    jsonschema.Draft202012Validator(answers["schema"] | {"components": document["components"]}).validate(answer)


async def test_a_conversation_is_shown_as_the_documentation_says(service):
    await service.asked()
    await service.completed("summary", "report", "mail")
    document = await service.json("/openapi.json")
    answers = document["paths"]["/api/v1/postprocess/{processing_id}"]["get"]["responses"]["200"]["content"]

    answer = await service.json(OWN)

    schema = answers["application/json"]["schema"] | {"components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer)
    jsonschema.Draft202012Validator(schema).validate(DETAILS)
    data = answer["data"]
    assert set(data) == set(DETAILS["data"])
    assert (data["status"], data["progress"], data["current_step"]) == ("completed", 100, None)
    assert data["email_id"] == "ann@example.com"
    assert data["notes"] == ["The recording ends early."]
    assert data["summary"] == {
        "topic": "A greeting",
        "sentiment": "positive",
        "key_points": ["They greet."],
        "action_items": [{"text": "Call back.", "who": "Zoe", "when": None}],
    }
    assert answer["message"] == "The report was mailed."
    assert data["links"] == {"self": OWN, "history": f"/jobs/{JOB}/audit", "job": f"/jobs/{JOB}"}


@pytest.mark.parametrize(
    ("change", "pointer", "said"),
    [
        ({"email_id": "ann"}, "#/email_id", "name@example.com"),
        ({"email_id": None}, "#/email_id", "string"),
        ({"email_id": "ann@example.com\r\nBcc: all@example.com"}, "#/email_id", "name@example.com"),
        ({"account_id": "../etc"}, "#/account_id", "letters"),
        ({"conversation_id": "conv/1"}, "#/conversation_id", "ElevenLabs"),
        ({"conversation_id": ""}, "#/conversation_id", "ElevenLabs"),
        ({"conversation_id": "c" * 129}, "#/conversation_id", "128"),
        ({"options": {"verify": 1}}, "#/options/verify", "boolean"),
        ({"options": {"diarize": True}}, "#/options/diarize", "Extra"),
        ({"webhook": "https://example.com"}, "#/webhook", "Extra"),
    ],
)
async def test_each_field_has_an_error_of_its_own(service, change, pointer, said):
    document = await problem(await service.post(**change), 400)

    assert [error["pointer"] for error in document["errors"]] == [pointer]
    assert said in document["errors"][0]["detail"]
    assert (document["success"], document["message"]) == (False, document["detail"])


async def test_every_field_that_is_missing_is_named(service):
    document = await problem(await service.client.post(POST, json={}, headers=ACME), 400)

    assert [error["pointer"] for error in document["errors"]] == ["#/email_id", "#/account_id", "#/conversation_id"]


async def test_an_account_is_that_of_the_key_or_an_operators_choice(service):
    refused = await problem(await service.post(BOLT), 404)
    assert refused["success"] is False
    assert refused["detail"] == (await problem(await service.post(account_id="nobody"), 404))["detail"]
    assert (await problem(await service.client.post(POST, json=REQUEST), 401))["success"] is False
    assert (await service.post(ROOT)).status == 202
    assert (await service.get(OWN, BOLT)).status == 404
    assert (await service.get(OWN, ROOT)).status == 200


async def test_a_repeat_tells_of_the_one_there_is(service):
    first = await service.asked()
    again = await service.asked()
    other = await service.asked(email_id="zoe@example.com")

    assert first["data"]["processing_id"] == again["data"]["processing_id"]
    assert first["message"] == "The conversation is on its way."
    assert again["message"] == "The conversation is being processed already."
    assert "address of the first request" in other["message"]
    assert len(service.database.outbox) == 2, "the status, and the look at the conversation"
    await service.completed("summary", "report", "mail")
    complete = await service.asked(200)
    assert (complete["data"]["status"], complete["message"]) == ("completed", "The report was mailed.")


async def test_one_that_failed_goes_on_when_it_is_asked_for_again(service):
    await service.asked()
    progress = failed_progress(1, "fetch", Failure("there is no such conversation", "not_found"))
    await service.step(progress=progress)

    data = (await service.json(OWN))["data"]
    again = await service.asked()

    assert (data["status"], data["current_step"], data["error_code"]) == ("failed", "fetch", "not_found")
    assert data["error"] == "there is no such conversation"
    assert "ELEVENLABS_API_KEY" in data["what_to_do"]
    assert again["message"] == "The conversation goes on where it ended."
    assert (await service.database.job("acme", JOB)).run == 2


async def test_each_enrichment_that_failed_is_told_with_what_to_do(service):
    await service.asked()
    await service.completed("report")
    job = await service.database.job("acme", JOB)
    for kind, failure in (
        ("summary", Failure("no tokens", "budget_exhausted")),
        ("mail", Failure("550 no such user", "mail_refused")),
    ):
        [written] = await service.database.commit([Step("x", uuid4(), failed_enrichment(job, kind, failure))])
        assert written.applied
    data = (await service.json(OWN))["data"]

    assert (data["status"], data["current_step"], data["error"]) == ("failed", "summary", "no tokens")
    assert [(one["step"], one["error"], one["error_code"]) for one in data["failures"]] == [
        ("summary", "no tokens", "budget_exhausted"),
        ("mail", "550 no such user", "mail_refused"),
    ]
    assert "monthly_tokens" in data["what_to_do"]
    assert "address" in data["failures"][1]["what_to_do"]


async def test_requests_with_one_idempotency_key_are_one(service):
    headers = ACME | {"Idempotency-Key": "k1"}
    first, again = [await (await service.post(headers)).json() for _ in range(2)]

    assert first == again


async def test_one_that_cannot_be_processed_here_says_why():
    async with Service(lacks=("ELEVENLABS_API_KEY is not set: have an operator set it.",)) as service:
        document = await problem(await service.post(), 422)
    assert "ELEVENLABS_API_KEY is not set" in document["detail"]
    assert document["success"] is False


async def test_a_conversation_whose_reference_an_upload_has_is_refused(service):
    of = upload(str(uuid4()), "acme", reference=names.reference(CONVERSATION))
    await service.database.commit([Step("intake", uuid4(), Outcome(tenant_id="acme", job_id=of.job_id, create=of))])

    assert (await problem(await service.post(), 409))["success"] is False


@pytest.mark.parametrize(
    "id", ["proc_9999ca11000040008000000000000009", "proc_1", JOB, "%00", f"proc_{'g' * 32}", "conversation"]
)
async def test_what_is_no_processing_is_not_found(service, id):
    await service.asked()

    assert (await problem(await service.get(f"/api/v1/postprocess/{id}"), 404))["success"] is False


async def test_an_upload_is_no_processing(service):
    of = upload(str(uuid4()), "acme")
    await service.database.commit([Step("intake", uuid4(), Outcome(tenant_id="acme", job_id=of.job_id, create=of))])

    await problem(await service.get(f"/api/v1/postprocess/{names.processing_id(of.job_id)}"), 404)


async def test_urls_of_files_are_signed_recorded_and_renewed():
    store = SigningStore()
    async with Service(store) as service:
        await service.asked()
        assert (await service.json(OWN))["data"]["files"] == {"transcript": None, "audio": None, "report": None}
        await service.fetched()
        first = (await service.json(OWN))["data"]["files"]
        same = (await service.json(OWN))["data"]["files"]
        renewed = (await service.json(OWN + "?renew=true"))["data"]["files"]
        service.at += timedelta(hours=23, minutes=1)
        late = (await service.json(OWN))["data"]["files"]
        kept = await service.database.issued_urls(("acme", JOB))

    assert first == same
    assert first["report"] is None
    assert first["transcript"]["url"].startswith(f"https://bucket.example/acme/transcripts/{CONVERSATION}.txt?sig=")
    assert (
        first["transcript"]["checksum"] == (await store.stat(store.uri(f"acme/transcripts/{CONVERSATION}.txt"))).sha256
    )
    assert first["audio"]["expires_at"] == "2026-12-01T12:00:00Z"
    assert renewed["audio"]["url"] != first["audio"]["url"]
    assert late["audio"]["url"] != renewed["audio"]["url"]
    assert late["audio"]["expires_at"] == "2026-12-02T11:01:00Z"
    assert {one.url for one in kept} == {late["audio"]["url"], late["transcript"]["url"]}


async def test_a_store_without_signed_urls_has_ours():
    async with Service(public_url="https://concord.example/") as service:
        await service.asked()
        await service.completed("summary", "report")
        files = (await service.json(OWN))["data"]["files"]
        url = files["transcript"]["url"]
        assert (url, files["transcript"]["expires_at"]) == (f"https://concord.example{OWN}/files/transcript", None)
        response = await service.get(url.removeprefix("https://concord.example"))
        assert await response.read() == b"AI: Hello.\nUser: Hi.\n"
        assert f'filename="{CONVERSATION}.txt"' in response.headers["Content-Disposition"]
        assert await (await service.get(f"{OWN}/files/report")).read() == b"%PDF"
        types = {name: (await service.get(f"{OWN}/files/{name}")).headers["Content-Type"] for name in KINDS}
        assert types == {
            "transcript": "text/plain; charset=utf-8",
            "audio": "audio/mpeg",
            "report": "application/pdf",
        }
        await problem(await service.get(f"{OWN}/files/summary"), 400)
        await problem(await service.get(f"{OWN}/files/report", BOLT), 404)


async def test_a_recording_that_is_not_redacted_is_no_file_of_a_redacted_conversation():
    async with Service(settings=AccountSettings(redact_pii=True)) as service:
        await service.asked()
        await service.completed("summary", "report")
        files = (await service.json(OWN))["data"]["files"]

        assert (files["audio"], files["transcript"]["content_type"]) == (None, "text/plain")
        await problem(await service.get(f"{OWN}/files/audio"), 404)
        await problem(await service.get(f"/jobs/{JOB}/audio"), 404)


async def test_a_file_that_there_is_not_is_not_found(service):
    await service.asked()

    answer = await problem(await service.get(f"{OWN}/files/report"), 404)

    assert "no report" in answer["detail"]
    assert answer["success"] is False


async def test_one_is_cancelled_while_it_is_fetched(service):
    await service.asked()

    answer = await (await service.client.delete(OWN, headers=ACME)).json()

    assert (answer["data"]["status"], answer["data"]["error_code"]) == ("cancelled", "cancelled")
    assert answer["data"]["error"] == "cancelled over HTTP"
    assert (await problem(await service.client.delete(OWN, headers=ACME), 409))["success"] is False
    await problem(await service.client.delete(OWN, headers=BOLT), 404)
    again = await service.asked()
    assert again["message"] == "The conversation goes on where it ended."


async def test_one_is_cancelled_while_its_report_is_made(service):
    await service.asked()
    await service.completed("summary")
    assert (await service.json(OWN))["data"]["status"] == "generating_report"

    answer = await (await service.client.delete(OWN, headers=ACME)).json()

    assert (answer["data"]["status"], answer["data"]["current_step"]) == ("cancelled", "report")
    states = {kind: status.state for kind, status in (await service.database.job("acme", JOB)).enrichment.items()}
    assert states == {"summary": "done", "report": "failed", "mail": "failed"}
    author = [entry.author for entry, _ in service.database.audit.values()][-1]
    assert author == "environment:acme"


async def test_a_complete_one_is_archived_when_its_files_are_removed(service):
    await service.asked()
    await service.completed("summary", "report", "mail")
    await service.database.begin_deletion(("acme", JOB), "retention", "files")

    answer = await service.json(OWN)

    assert (answer["data"]["status"], answer["data"]["progress"]) == ("archived", 100)
    assert answer["data"]["files"] == {"transcript": None, "audio": None, "report": None}
    assert (await service.asked(200))["data"]["status"] in ("completed", "archived")


LIST = "/api/v1/accounts/acme/conversations"


async def test_an_accounts_conversations_are_listed_in_pages(service):
    for number in range(3):
        await service.asked(conversation_id=f"conv_{number}")
        service.at += timedelta(seconds=1)

    first = await service.get(f"{LIST}?limit=2")
    page = await first.json()
    rest = await service.json(f"{LIST}?limit=2&cursor={page['data']['next']}")

    assert [row["conversation_id"] for row in page["data"]["conversations"]] == ["conv_2", "conv_1"]
    assert [row["conversation_id"] for row in rest["data"]["conversations"]] == ["conv_0"]
    assert rest["data"]["next"] is None
    assert f"cursor={page['data']['next']}" in first.headers["Link"]
    assert set(page["data"]["conversations"][0]) == set(ROW)
    assert page["success"] is True
    assert (await problem(await service.get(f"{LIST}?cursor=x"), 400))["success"] is False
    assert (await problem(await service.get(LIST, BOLT), 404))["success"] is False


async def test_conversations_are_listed_by_their_status(service):
    await service.asked()
    await service.asked(conversation_id="conv_2")
    await service.completed("summary", "report", "mail")

    complete = await service.json(f"{LIST}?status=completed,archived")
    assert [row["conversation_id"] for row in complete["data"]["conversations"]] == [CONVERSATION]
    await problem(await service.get(f"{LIST}?status=done"), 400)


async def test_failures_of_a_day_and_statistics_of_a_week(service):
    await service.asked()
    await service.asked(conversation_id="conv_2")
    await service.step(progress=failed_progress(1, "fetch", Failure("there is none", "not_found")))

    failed = (await service.json(f"{LIST}/failed"))["data"]["conversations"]
    week = (await service.json(f"{LIST}/statistics"))["data"]
    service.at += timedelta(hours=25)

    assert [(row["conversation_id"], row["error"]) for row in failed] == [(CONVERSATION, "there is none")]
    assert (await service.json(f"{LIST}/failed"))["data"]["conversations"] == []
    assert len((await service.json(f"{LIST}/failed?hours=48"))["data"]["conversations"]) == 1
    assert week["by_status"] == {"extracting": 1, "failed": 1}
    assert (week["conversations"], week["success_rate"]) == (2, 0.0)
    assert [(day["day"], day["conversations"]) for day in week["days"]] == [("2026-11-30", 2)]
    await problem(await service.get(f"{LIST}/statistics?days=91"), 400)


async def test_a_database_that_is_away_is_told_as_everywhere(service, monkeypatch):
    async def away(*_, **__):
        raise Unavailable("postgres.internal does not answer")

    monkeypatch.setattr(MemoryDatabase, "commit", away)
    document = await problem(await service.post(), 503)

    assert document["success"] is False
    assert "postgres" not in document["detail"]


async def test_of_two_requests_at_once_one_begins_it(service, monkeypatch):
    """The second has read that there is none; the database decides."""
    named = MemoryDatabase.named

    async def stale(database, *asked):
        rows = await named(database, *asked)
        return [] if rows else rows

    await service.asked()
    monkeypatch.setattr(MemoryDatabase, "named", stale)

    again = await service.asked()
    assert again["message"] == "The conversation is being processed already."
    assert (await service.database.job("acme", JOB)).run == 1


async def test_a_path_beside_one_with_a_parameter_names_its_own_methods(service):
    for path, allowed in ((POST, "OPTIONS, POST"), (OWN, "DELETE, GET, HEAD, OPTIONS")):
        answer = await service.client.options(path, headers=ACME)
        assert (answer.status, answer.headers["Allow"]) == (204, allowed), path
    refused = await service.client.put(POST, headers=ACME)
    assert (refused.status, refused.headers["Allow"]) == (405, "POST")
