"""What every database must answer about jobs; see `sinks.ports.jobs`."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from schemas.jobs.outcome import Outcome, Step
from tests.contract.databases.cases import (
    created,
    job,
    moved,
)


async def test_metadata_are_kept_apart_from_the_row_and_no_step_changes_them(under_test):
    database = under_test.database
    await database.commit([created(job(metadata={"caller": "Zoë"})), moved("transcribing")])
    await database.commit([moved("reconciling")])

    assert (await database.job("t", "j")).metadata is None
    assert (await database.named("t", "j", None))[0].metadata is None
    assert await database.metadata("t", "j") == {"caller": "Zoë"}
    await database.commit([moved("failed")])
    again = Outcome(tenant_id="t", job_id="j", begin=replace(await database.job("t", "j"), run=2, status="uploaded"))
    await database.commit([Step("intake", uuid4(), again)])
    assert await database.metadata("t", "j") == {"caller": "Zoë"}
    assert await database.metadata("other", "j") == {}


async def test_a_tenants_open_jobs_are_found_page_by_page(under_test):
    jobs = [job(f"j{n}", status="transcribing") for n in range(3)]
    await under_test.database.commit([created(one) for one in (*jobs, job("u"), job("x", "other"))])
    await under_test.database.commit([moved("failed", job_id="j1")])
    pages = [await under_test.database.open_jobs("t", ("uploaded", "transcribing"), after, 2) for after in ("", "j2")]

    assert pages == [[("t", "j0"), ("t", "j2")], [("t", "u")]]
    assert await under_test.database.open_jobs("t", ("transcribing",), "j2", 9) == []
