"""The review queue over HTTP: what is disputed, what reviewers decide, and what follows from it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from schemas.jobs.outcome import Outcome
from tests.web.corrections import DECIDED, CorrectingWorker
from tests.web.service import ACME, BOLT, ROOT, problem

QUEUE = "/tenants/acme/review"
SECOND = {"X-API-Key": "acme-second"}


@pytest.fixture
async def worker():
    async with CorrectingWorker() as worker:
        await worker.transcribed()
        yield worker


async def items(worker, **query):
    return (await worker.json(QUEUE, params=query))["items"]


async def post(worker, item, action, body=None, headers=ACME, tenant="acme"):
    method = worker.client.put if action == "assignee" else worker.client.post
    path = f"/tenants/{tenant}/review/{item['id'] if isinstance(item, dict) else item}/{action}"
    return await method(path, json=body, headers=headers)


async def test_disputed_spans_come_the_most_doubtful_first(worker):
    first, second = await items(worker)

    assert (first["before"], first["after"], first["words"]) == ("My name is", "from Acme", ["w3", "w4"])
    assert [(reading["text"], reading["providers"]) for reading in first["readings"]] == [
        ("Meyer uh", ["a"]),
        ("Mayor", ["b"]),
    ]
    assert (first["start_ms"], first["end_ms"], first["speaker"], first["probability"]) == (900, 1500, "A", 0.5)
    assert first["doubt"] == pytest.approx(0.9)
    assert second["words"] == ["w6"]
    assert (first["job_id"], first["run"], first["state"]) == ("j", 1, "open")


async def test_choosing_a_reading_is_an_edit(worker):
    item = (await items(worker))[0]
    chosen = await post(worker, item, "choice", {"reading": 1})

    decided = await chosen.json()
    assert (chosen.status, decided["state"], decided["choice"]) == (200, "done", 1)
    assert decided["reviewer"] == "environment:acme"
    assert await worker.text() == "My name is Mayor from Acme"
    assert await worker.text(version=1) == DECIDED.text
    [event] = worker.events()
    assert (event["version"], event["changed_words"]) == (2, 2)
    document = (await worker.database.job("acme", "j")).enrichment["document"]
    assert (document.state, document.transcript_version) == ("pending", 2)
    assert [one["words"] for one in await items(worker)] == [["w6"]]
    assert [one["id"] for one in await items(worker, state="done")] == [item["id"]]


async def test_confirming_what_is_there_settles_its_words(worker):
    item = (await items(worker))[0]
    await post(worker, item, "choice", {"reading": 0})

    assert await worker.text() == DECIDED.text
    assert [word["disputed"] for word in await worker.full_words()] == [False] * 6 + [True]
    assert worker.events()[0]["changed_words"] == 0


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("Maier", "My name is Maier from Acme"),
        ("Maier the first", "My name is Maier the first from Acme"),
        ("", "My name is from Acme"),
    ],
)
async def test_a_reviewer_may_write_what_nobody_heard(worker, text, result):
    item = (await items(worker))[0]
    chosen = await (await post(worker, item, "choice", {"text": text})).json()

    assert (chosen["choice"], chosen["text"]) == (None, text)
    assert await worker.text() == result
    assert all(word["start_ms"] is not None for word in await worker.full_words())


@pytest.mark.parametrize("body", [{}, {"reading": 2}, {"reading": -1}, {"reading": 0, "text": "x"}, {"word": "x"}])
async def test_a_choice_is_a_reading_or_a_text(worker, body):
    item = (await items(worker))[0]

    await problem(await post(worker, item, "choice", body), 400)
    assert worker.events() == []


async def test_an_edit_of_one_of_its_words_settles_an_item(worker):
    await worker.change({"op": "replace", "word": "w3", "text": "Maier"})
    await worker.write({"text": "My name is Maier uh from ACME Inc."})

    assert await items(worker) == []
    done = await items(worker, state="done")
    assert {(one["choice"], one["reviewer"]) for one in done} == {(None, "environment:acme")}
    progress = await worker.json(f"{QUEUE}/progress")
    assert (progress["done"], progress["reviewers"]) == (2, [])


async def test_two_reviewers_of_different_spans_do_not_disturb_each_other(worker):
    first, second = await items(worker)
    answers = await asyncio.gather(
        post(worker, first, "choice", {"reading": 1}), post(worker, second, "choice", {"reading": 1}, SECOND)
    )

    assert [answer.status for answer in answers] == [200, 200]
    assert await worker.text() == "My name is Mayor from acne"
    assert [event["version"] for event in worker.events()] == [2, 3]


async def test_what_reviewers_chose_is_kept_with_the_readings_and_their_agreement_counted(worker):
    first, second = await items(worker)
    await post(worker, first, "choice", {"reading": 1})
    await post(worker, first, "choice", {"reading": 0}, ROOT)
    await post(worker, second, "choice", {"reading": 0})
    await post(worker, second, "choice", {"reading": 0}, ROOT)

    progress = await worker.json(f"{QUEUE}/progress")
    assert (progress["open"], progress["done"], progress["skipped"]) == (0, 2, 0)
    assert (progress["decided_by_several"], progress["decided_alike"], progress["agreement"]) == (2, 1, 0.5)
    assert progress["reviewers"] == [
        {"reviewer": "environment:*", "done": 2, "skipped": 0},
        {"reviewer": "environment:acme", "done": 2, "skipped": 0},
    ]
    assert await worker.text() == DECIDED.text
    kept = worker.database.choices.values()
    assert sorted((choice.reviewer, choice.choice) for choice in kept if choice.item == first["id"]) == [
        ("environment:*", 0),
        ("environment:acme", 1),
    ]


async def test_items_are_skipped_and_assigned(worker):
    first, second = await items(worker)
    skipped = await post(worker, first, "skip")
    mine = await post(worker, second, "assignee", {})
    await post(worker, second, "assignee", {"assignee": "ann@acme.example"})

    assert (await skipped.json())["state"] == "skipped"
    assert (await mine.json())["assignee"] == "environment:acme"
    assert [one["id"] for one in await items(worker, assignee="ann@acme.example")] == [second["id"]]
    progress = await worker.json(f"{QUEUE}/progress")
    assert (progress["open"], progress["assigned"], progress["skipped"]) == (1, 1, 1)
    assert progress["reviewers"] == [{"reviewer": "environment:acme", "done": 0, "skipped": 1}]
    assert (await (await post(worker, second, "assignee", {"assignee": None})).json())["assignee"] is None
    await post(worker, first, "choice", {"reading": 0})
    await problem(await post(worker, first, "skip"), 409)


async def test_a_queue_has_pages(worker):
    await worker.transcribed("k")
    pages, following = [], f"{QUEUE}?limit=1"
    while following:
        page = await worker.get(following)
        pages += (await page.json())["items"]
        following = str(page.links["next"]["url"].relative()) if "next" in page.links else None

    assert [one["doubt"] for one in pages] == sorted((one["doubt"] for one in pages), reverse=True)
    assert len({one["id"] for one in pages}) == 4
    assert {one["job_id"] for one in await items(worker, job="k")} == {"k"}
    await problem(await worker.get(f"{QUEUE}?cursor=x"), 400)


async def test_another_tenants_items_do_not_exist(worker):
    item = (await items(worker))[0]
    await worker.transcribed("b", "bolt")
    unknown = await problem(await post(worker, "unknown", "skip", headers=BOLT, tenant="bolt"), 404)

    for action, body in (("skip", None), ("choice", {"reading": 0}), ("assignee", {})):
        assert await problem(await post(worker, item, action, body, BOLT, "bolt"), 404) == unknown
    await problem(await worker.get(QUEUE, headers=BOLT), 404)
    assert item["id"] not in [one["id"] for one in (await worker.json("/tenants/bolt/review", BOLT))["items"]]


async def test_an_item_of_an_earlier_run_cannot_be_chosen(worker):
    item = (await items(worker))[0]
    job = await worker.database.job("acme", "j")
    await worker.commit("intake", Outcome(tenant_id="acme", job_id="j", begin=replace(job, run=2, status="uploaded")))

    await problem(await post(worker, item, "choice", {"reading": 0}), 409)
