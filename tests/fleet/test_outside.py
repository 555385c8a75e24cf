"""Transcripts of an outside service, sent by signed webhooks, from the request to the transcript."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from standardwebhooks.webhooks import Webhook

from agents.asr.outside.over_http import Outside
from schemas.webhooks.signature import key_of
from sinks.memory.reader import MemoryReader
from tests.fleet.conftest import JOB, FakeRecognizer
from tests.web.service import ROOT, Worker, problem
from web.resources.webhooks.received import ReceivedTranscripts

SECRET = "a secret of some length"
NAME = "webhook-acme"


def completed(words="hello there world", **more):
    timed = [
        {"text": text, "start_ms": 400 * n, "end_ms": 400 * n + 350, "confidence": 0.9}
        for n, text in enumerate(words.split())
    ]
    data = {"tenant_id": "t", "job_id": JOB, "language": "en", "words": timed} | more
    return {"type": "transcription.completed", "data": data}


def failed(**more):
    return {"type": "transcription.failed", "data": {"tenant_id": "t", "job_id": JOB, "error": "no\x00 credit"} | more}


class Service:
    """The outside service: it signs with the specification's own library."""

    def __init__(self, worker) -> None:
        self.worker = worker

    async def sends(self, event, *, id="m1", ago=0, path="/webhooks/acme", secret=SECRET, **headers):
        body = event if isinstance(event, bytes) else orjson.dumps(event)
        at = int(time.time()) - ago
        signed = Webhook(secret.encode()).sign(id, datetime.fromtimestamp(at, UTC), body.decode())
        headers = {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": signed} | headers
        return await self.worker.client.post(path, data=body, headers=headers)


@asynccontextmanager
async def waiting(make_scenario, *others, **more):
    """A recording that waits for the service, which `sends` its answer over HTTP."""
    scenario = make_scenario(*others, Outside(NAME), **more)
    database = scenario.fleet.database
    resource = ReceivedTranscripts(database, MemoryReader(database), scenario.store, SECRET, [("acme", NAME)])
    async with Worker(database, store=scenario.store, resources=[resource]) as worker:
        yield scenario, Service(worker)


async def begin(scenario, **more):
    await scenario.upload(**more)
    await scenario.fleet.run(until=timedelta(seconds=60))


def test_the_library_signs_by_the_secrets_bytes():
    assert key_of(SECRET) == SECRET.encode()


async def test_a_transcript_that_is_sent_becomes_a_hypothesis_and_the_run_goes_on(make_scenario):
    async with waiting(make_scenario, FakeRecognizer("a", text="hello their world")) as (scenario, service):
        await begin(scenario)
        assert scenario.terminal() == []
        assert (await service.sends(completed())).status == 204
        assert (await service.sends(completed())).status == 204
        assert (await service.sends(completed("something else entirely"), id="m2")).status == 204
        await scenario.fleet.run(until=timedelta(seconds=60))

        assert scenario.terminal() == [("persisted", JOB, 1)]
        results = [event for event in scenario.fleet.events("asr.results") if event["provider"] == NAME]
        assert [(event["status"], event["word_count"]) for event in results] == [("ok", 3)]
        stored = orjson.loads(await scenario.store.get(results[0]["hypothesis_uri"]))
        assert [word["text"] for word in stored["words"]] == ["hello", "there", "world"]
        status = scenario.fleet.status("t", JOB)
        assert (status.status, status.steps[f"transcribe.{NAME}"].state) == ("completed", "done")


async def test_text_without_times_and_a_reference_in_place_of_the_id_are_taken(make_scenario):
    async with waiting(make_scenario) as (scenario, service):
        await begin(scenario, reference="call 4711")
        assert (await service.sends(completed("", text="hello world", job_id="call 4711"))).status == 204
        await scenario.fleet.run(until=timedelta(seconds=60))

        assert scenario.fleet.events("persisted")[0]["word_count"] == 2


async def test_a_failure_that_is_sent_leaves_the_run_to_the_others(make_scenario):
    async with waiting(make_scenario, FakeRecognizer("a")) as (scenario, service):
        await begin(scenario)
        assert (await service.sends(failed())).status == 204
        await scenario.fleet.run(until=timedelta(seconds=60))

        assert scenario.terminal() == [("persisted", JOB, 1)]
        step = scenario.fleet.status("t", JOB).steps[f"transcribe.{NAME}"]
        assert (step.state, step.error) == ("failed", "no credit")


async def test_a_service_that_never_answers_is_waited_for_until_the_deadline(make_scenario):
    async with waiting(make_scenario, FakeRecognizer("a"), deadline_s=3600) as (scenario, service):
        await begin(scenario)
        assert scenario.terminal() == []
        await scenario.fleet.run()
        assert scenario.terminal() == [("persisted", JOB, 1)]
        assert (await service.sends(completed())).status == 204  # too late
        await scenario.fleet.run()

        assert scenario.terminal() == [("persisted", JOB, 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": "another secret of that length"},
        {"ago": 301},
        {"ago": -301},
        {"webhook-signature": "v1,AAAA"},
        {"webhook-id": "other"},
        {"webhook-timestamp": ""},
    ],
)
async def test_what_is_not_signed_or_too_old_is_answered_401_and_changes_nothing(make_scenario, wrong):
    async with waiting(make_scenario) as (scenario, service):
        await begin(scenario)
        await problem(await service.sends(completed(), **wrong), 401)
        await problem(await service.sends(b"no json", **wrong), 401)
        await scenario.fleet.run(until=timedelta(seconds=60))

        assert scenario.terminal() == []


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (b"no json", 400),
        ({"type": "transcription.invented", "data": {}}, 400),
        (completed(confidence=7), 400),
        (completed(tenant_id="../t"), 400),
        (completed(tenant_id="bolt"), 404),
        (completed(job_id="unknown"), 404),
        (completed(run=2), 204),
    ],
)
async def test_a_signed_message_about_nothing_is_answered_with_what_is_wrong(make_scenario, event, status):
    async with waiting(make_scenario) as (scenario, service):
        await begin(scenario)
        answer = await service.sends(event)
        assert answer.status == status, await answer.text()
        await scenario.fleet.run(until=timedelta(seconds=60))

        assert scenario.terminal() == []


async def test_one_that_comes_before_the_recognizers_wait_is_to_be_sent_again(make_scenario):
    async with waiting(make_scenario) as (_, service):
        await service.worker.created(JOB, "t")
        answer = await service.sends(completed())

        assert answer.headers["Retry-After"] == "5"
        await problem(answer, 409)


async def test_an_unknown_service_is_not_there_and_the_document_names_the_known_one(make_scenario):
    async with waiting(make_scenario) as (_, service):
        assert (await service.sends(completed(), path="/webhooks/other")).status == 404
        document = await service.worker.json("/openapi.json", ROOT)

        schema = document["paths"]["/webhooks/acme"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["discriminator"]["propertyName"] == "type"
        assert (await service.worker.client.post("/webhooks/acme")).status == 401
