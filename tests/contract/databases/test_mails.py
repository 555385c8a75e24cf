"""What every database must do with the ledger of mails; see `sinks.ports.mail.ledger`."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from agents.upkeep.mail_requests import MailRequests
from schemas.errors import Conflict
from schemas.jobs.outcome import Outcome, Step
from schemas.mail.rows import Mail
from tests.contract.databases.cases import reported

MAIL = Mail(
    tenant_id="t",
    job_id="j",
    run=1,
    transcript_version=1,
    message_id="1@x.example",
    waiting=["a@x.example", "b@x.example"],
)


async def test_a_run_has_one_row_whoever_begins_it(under_test):
    database = under_test.database
    first = await database.begin_mail(MAIL)
    second = await database.begin_mail(replace(MAIL, waiting=["c@x.example"]))
    other = await database.begin_mail(replace(MAIL, run=2))

    assert (first.waiting, second.waiting) == (MAIL.waiting, MAIL.waiting)
    assert first.created_at is not None
    assert await database.mail("t", "j", 1) == first
    assert await database.mail("t", "j", 2) == other
    assert await database.mail("t", "j", 3) is None


async def test_an_attempt_is_begun_once_and_only_of_what_waits(under_test):
    database = under_test.database
    row = await database.begin_mail(MAIL)
    claimed = await database.claim_mail(replace(row, transcript_version=2, generation=3, message_id="2@x.example"))

    assert (claimed.attempts, claimed.transcript_version, claimed.generation) == (1, 2, 3)
    assert (claimed.message_id, claimed.waiting) == ("2@x.example", MAIL.waiting)
    assert await database.claim_mail(row) is None
    assert await database.keep_mail(replace(claimed, state="sending"))
    assert await database.claim_mail(claimed) is None


async def test_what_an_attempt_reaches_is_kept_unless_another_has_begun(under_test):
    database = under_test.database
    first = await database.claim_mail(await database.begin_mail(MAIL))
    reached = replace(
        first, waiting=["b@x.example"], accepted=["a@x.example"], refused={"c@x.example": "550 no"}, answer="250 ok"
    )
    assert await database.keep_mail(reached)
    second = await database.claim_mail(await database.mail("t", "j", 1))

    assert (second.waiting, second.accepted, second.refused) == (
        ["b@x.example"],
        ["a@x.example"],
        {"c@x.example": "550 no"},
    )
    assert second.answer == "250 ok"
    assert not await database.keep_mail(replace(first, state="sent"))
    assert not await database.keep_mail(replace(second, run=9))
    assert (await database.mail("t", "j", 1)).state == "waiting"


async def test_mails_are_listed_by_state_the_newest_first(under_test):
    database = under_test.database
    for run in (1, 2, 3):
        await database.begin_mail(replace(MAIL, run=run))
    claimed = await database.claim_mail(await database.mail("t", "j", 1))
    await database.keep_mail(replace(claimed, state="in_doubt"))
    claimed = await database.claim_mail(await database.mail("t", "j", 2))
    await database.keep_mail(replace(claimed, state="refused"))

    assert [mail.run for mail in await database.mails(("in_doubt", "refused"), 10)] == [2, 1]
    assert [mail.run for mail in await database.mails(("in_doubt", "refused"), 1)] == [2]
    assert [mail.run for mail in await database.mails(("waiting",), 10)] == [3]


async def test_a_mail_that_a_person_asks_for_begins_with_its_enrichment_and_once(under_test):
    database = under_test.database
    await reported(database)
    requests, id = MailRequests(database, "concord@sender.example"), uuid4()
    for _ in range(2):
        await requests.send(await database.job("t", "j"), ["a@x.example"], "key_1", id)
    row = await database.mail("t", "j", 1)
    with pytest.raises(Conflict):
        await requests.send(await database.job("t", "j"), ["b@x.example"], "key_1", uuid4())

    assert (row.state, row.waiting, row.generation, row.attempts) == ("waiting", ["a@x.example"], 1, 0)
    assert (await database.job("t", "j")).enrichment["mail"].state == "pending"
    assert [topic for topic, _ in await under_test.outbox()].count("mail.due") == 1


async def test_a_mail_that_has_ended_gives_way_and_its_late_attempt_changes_nothing(under_test):
    database = under_test.database
    await reported(database)
    late = await database.claim_mail(await database.begin_mail(replace(MAIL, job_id="j")))
    mail = replace(MAIL, waiting=["c@x.example"], generation=2)
    step = Outcome(tenant_id="t", job_id="j", mail=mail)
    await database.commit([Step("x", uuid4(), step)])
    row = await database.mail("t", "j", 1)
    claimed = await database.claim_mail(row)

    assert (row.waiting, row.accepted, row.generation, row.attempts) == (["c@x.example"], [], 2, late.attempts)
    assert not await database.keep_mail(replace(late, state="sent"))
    assert await database.keep_mail(replace(claimed, state="sent"))
