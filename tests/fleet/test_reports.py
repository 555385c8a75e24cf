"""Reports on completed runs: made once, after the summary, by a subprocess."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pypdfium2
import pytest

from agents.reports.rendering import Renderer
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages.enrichments import report
from agents.stages.enrichments.enrichment import Enriched, enrichment
from schemas import topics
from schemas.errors import InvalidInput, Transient
from schemas.events.enrichment import SummaryGenerated
from schemas.jobs.rows import run_fields
from tests.fleet.conftest import JOB, FakeRecognizer


class Titles:
    """Sets the title only; and fails as it is told."""

    def __init__(self):
        self.trouble, self.made = [], []

    async def pdf(self, content):
        if self.trouble:
            raise self.trouble.pop(0)
        self.made.append(content)
        return b"%PDF " + content.title.encode()

    async def close(self): ...


class Summaries:
    """Makes summaries that say nothing, and fails as it is told."""

    def __init__(self):
        self.trouble = []

    async def make(self, job):
        if self.trouble:
            raise self.trouble.pop(0)
        made = {"summary_uri": "memory://s", "size_bytes": 1, "sha256": "0", "form": "digest", "template": "x/1"}
        return Enriched(event=SummaryGenerated(**run_fields(job), **made))


@pytest.fixture
async def scenario(make_scenario, monkeypatch):
    """A fleet that makes summaries, and reports of them."""
    it = make_scenario(FakeRecognizer("a", "hello there"), FakeRecognizer("b"), enrichments=("summary", "report"))
    database, it.pdfs, it.summaries = it.fleet.database, Titles(), Summaries()
    monkeypatch.setattr(report, "Renderer", lambda: it.pdfs)
    tasks = LeasedTasks(database, "test", 2)
    it.resources = SimpleNamespace(
        store=it.store, database=database, leased_tasks=lambda _: tasks, on_close=lambda _: None
    )

    async def make(_):
        return it.summaries.make

    summary = enrichment("summary", version="summary/1", announces=topics.SUMMARY, make=make)
    # The report's stage first: whatever comes to both, it sees before the summary is made.
    stages = [await report.SPEC.open(it.resources), await summary.open(it.resources)]
    it.fleet.stages = [*it.fleet.stages, *stages]
    yield it
    await tasks.close()


def states(scenario):
    return {kind: status.state for kind, status in scenario.fleet.status("t", JOB).enrichment.items()}


async def test_a_report_waits_for_the_summary_and_is_announced_once(scenario):
    scenario.summaries.trouble = [Transient("away", retry_after=50)]
    await scenario.upload(metadata={"title": "A call"})
    await scenario.fleet.run(until=timedelta(seconds=20))
    assert states(scenario) == {"summary": "retrying", "report": "pending"}
    await scenario.fleet.run()
    for topic in ("persisted", "summary.generated", "report.due"):
        for record in [*scenario.fleet.log[topic]]:
            scenario.fleet.deliver_again(record)
    await scenario.fleet.run()

    [event] = scenario.fleet.events("report.generated")
    assert await scenario.store.get(event["report_uri"]) == b"%PDF A call"
    assert len(scenario.pdfs.made) == 1
    assert states(scenario) == {"summary": "done", "report": "done"}
    assert scenario.fleet.database.files["t", JOB, 1, "report"].uri == event["report_uri"]


async def test_a_summary_that_fails_leaves_a_report_without_one(scenario):
    scenario.summaries.trouble = [InvalidInput("no such thing")]
    await scenario.upload()
    await scenario.fleet.run()

    assert states(scenario) == {"summary": "failed", "report": "done"}
    assert scenario.pdfs.made[0].about == ("There is no summary of this call: no such thing",)


async def test_a_process_that_dies_is_tried_again_and_a_report_that_cannot_be_made_fails(scenario):
    scenario.pdfs.trouble = [Transient("killed")]
    await scenario.upload()
    await scenario.fleet.run()
    assert states(scenario)["report"] == "done"

    scenario.pdfs.trouble = [InvalidInput("too strange")]
    await scenario.upload("4711ca11-0000-4000-8000-000000000001")
    await scenario.fleet.run()
    [event] = scenario.fleet.events("enrichment.failed")
    assert (event["kind"], event["error"]) == ("report", "too strange")


async def test_one_that_takes_long_is_made_on_beside_its_event(scenario, monkeypatch):
    monkeypatch.setattr(report, "QUICK_S", 0.0)
    await scenario.upload()
    await scenario.fleet.run()

    assert len(scenario.pdfs.made) == len(scenario.fleet.events("report.generated")) == 1
    assert len(scenario.fleet.log["report.due"]) > 1


async def test_a_real_report_is_made_in_a_confined_process(scenario):
    await scenario.upload()
    await scenario.fleet.run()
    renderer = Renderer()
    try:
        content = await renderer.pdf(scenario.pdfs.made[0])
        assert await renderer.pdf(scenario.pdfs.made[0]) == content
    finally:
        await renderer.close()

    document = pypdfium2.PdfDocument(content)
    assert "hello there" in document[0].get_textpage().get_text_range()
    document.close()
