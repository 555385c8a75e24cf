"""Mailing the report on a job, over HTTP."""

from __future__ import annotations

import pytest

from agents.upkeep.mail_requests import MailRequests
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from tests.contract.databases.cases import created, job, reported
from tests.web.service import ACME, BOLT, Worker, problem
from web.resources.exports.mail import JobMail

TO = {"to": ["ann@reader.example"]}


@pytest.fixture
async def service():
    database = MemoryDatabase()
    resources = [JobMail(MemoryReader(database), database, MailRequests(database, "concord@sender.example"))]
    await reported(database, "j", "acme", reference="order-1")
    await database.commit([created(job("k", "acme", status="completed"))])
    async with Worker(database, resources=resources) as service:
        yield service


async def test_a_report_is_mailed_once_for_a_key_and_shown(service):
    headers = ACME | {"Idempotency-Key": "once"}
    answers = [await service.client.post("/jobs/order-1/mail", json=TO, headers=headers) for _ in range(2)]
    shown = await (await service.client.get("/jobs/j/mail", headers=ACME)).json()

    assert [answer.status for answer in answers] == [202, 202]
    assert answers[0].headers["Location"] == "/jobs/j/mail"
    assert (shown["state"], shown["waiting"], shown["attempts"]) == ("waiting", TO["to"], 0)
    assert [message.topic for _, message in service.database.outbox].count("mail.due") == 1
    await problem(await service.client.post("/jobs/j/mail", json=TO, headers=ACME), 409)


@pytest.mark.parametrize("body", [{}, {"to": []}, {"to": ["nobody"]}, {"to": ["a@b.example\r\nBcc: c@d.example"]}])
async def test_what_is_no_recipient_is_refused(service, body):
    await problem(await service.client.post("/jobs/j/mail", json=body, headers=ACME), 400)


async def test_without_a_report_or_a_mail_it_says_so(service):
    await problem(await service.client.post("/jobs/k/mail", json=TO, headers=ACME), 409)
    await problem(await service.client.get("/jobs/k/mail", headers=ACME), 404)
    await problem(await service.client.post("/jobs/j/mail", json=TO, headers=BOLT), 404)


async def test_where_nothing_is_mailed_it_says_so(service):
    database = service.database
    async with Worker(database, resources=[JobMail(MemoryReader(database), database, None)]) as other:
        refused = await problem(await other.client.post("/jobs/j/mail", json=TO, headers=ACME), 422)
        await problem(await other.client.post("/jobs/nobody/mail", json=TO, headers=ACME), 404)
    assert all(name in refused["detail"] for name in ("SMTP_HOST", "SMTP_FROM_EMAIL", "CONCORD_ENRICHMENTS"))
