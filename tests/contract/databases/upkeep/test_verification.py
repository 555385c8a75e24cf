"""What every database must tell `concord verify`; see `sinks.ports.upkeep.verification`."""

from __future__ import annotations

from dataclasses import replace

from schemas.jobs.outcome import Step
from schemas.jobs.rows import File
from tests.contract.databases.cases import answered, created, job, moved, requests, transcript


def file(kind: str, job_id: str = "j", tenant: str = "t") -> File:
    whose = {"tenant_id": tenant, "job_id": job_id, "run": 1}
    return File(**whose, kind=kind, uri=f"s3://{tenant}/{job_id}/{kind}", size_bytes=1, content_type="a/b", sha256="x")


def asked(of, **states: str) -> Step:
    """A job's first step, with requests in these states."""
    step = created(of)
    rows = tuple(replace(row, state=states[row.provider]) for row in requests(of, *states))
    return replace(step, outcome=replace(step.outcome, new_requests=rows))


async def test_requests_that_may_have_been_charged_are_told_when_their_run_has_ended(under_test):
    database = under_test.database
    await database.commit([asked(job("j", status="transcribing"), a="waiting", b="intended", c="parked", d="intended")])
    await database.commit([asked(job("k", status="transcribing"), a="intended")])
    await database.commit([asked(job("i", status="transcribing"), a="parked")])
    await database.commit([answered("d", None)])
    assert await database.unended_requests(10) == []
    await database.commit([moved("completed"), moved("failed", job_id="i")])

    rows = await database.unended_requests(10)

    assert [(row["job_id"], row["provider"], row["run"], row["marker"]) for row in rows] == [
        ("i", "a", 1, "m-a"),
        ("j", "b", 1, "m-b"),
        ("j", "c", 1, "m-c"),
    ]
    assert {(row["tenant_id"], row["state"], row["provider_id"], row["submitted_at"]) for row in rows} == {
        ("t", "failed", None, None)
    }
    assert [row["job_id"] for row in await database.unended_requests(1)] == ["i"]


async def test_completed_jobs_without_a_transcript_are_told(under_test):
    database = under_test.database
    await database.commit([created(job(name, status="persisting")) for name in ("c", "b", "a", "d")])
    await database.commit([created(job("failed", status="failed"))])
    await database.commit([moved("completed", job_id=name) for name in ("c", "b")])
    step = moved("completed", job_id="d")
    await database.commit([replace(step, outcome=replace(step.outcome, transcript=transcript("d", "t", 1)))])

    rows = await database.without_transcript(9)

    assert [(row["tenant_id"], row["job_id"], row["run"]) for row in rows] == [("t", "b", 1), ("t", "c", 1)]
    now = await database.now()
    assert all(row["completed_at"] <= now for row in rows)
    assert await database.without_transcript(1) == rows[:1]


async def test_files_are_told_a_page_at_a_time_in_the_order_of_their_keys(under_test):
    database = under_test.database
    kinds = ("original", "agent_optimized")
    for tenant, job_id in (("u", "a"), ("t", "k"), ("t", "j")):
        of = job(job_id, tenant)
        await database.commit([created(of, files=tuple(file(kind, job_id, tenant) for kind in kinds))])

    pages, after = [], ("", "", 0, "")
    while page := await database.files_after(*after, 4):
        pages.append([(row["tenant_id"], row["job_id"], row["run"], row["kind"], row["uri"]) for row in page])
        after = pages[-1][-1][:4]

    names = [(t, j, k) for t, j in (("t", "j"), ("t", "k"), ("u", "a")) for k in sorted(kinds)]
    assert pages[0] + pages[1] == [(t, j, 1, k, f"s3://{t}/{j}/{k}") for t, j, k in names]
    assert [len(page) for page in pages] == [4, 2]


async def test_what_jobs_refer_to_is_told_by_key_and_of_jobs_that_do_not_exist_nothing(under_test):
    database = under_test.database
    await database.commit([created(job("k", audio_uri="https://e/k.wav"))])
    await database.commit([created(job(original_uri="s3://t/j/original.wav"), files=(file("original"),))])

    j, k, unknown, other = await database.known_blobs([("u", "j"), ("t", "never"), ("t", "j"), ("t", "k")])

    assert (unknown["job_id"], unknown["status"], unknown["run"]) == ("never", None, None)
    assert (list(unknown["files"]), list(unknown["named"])) == ([], [])
    assert (j["status"], j["run"], list(j["files"])) == ("uploaded", 1, ["s3://t/j/original"])
    assert list(j["named"]) == ["file:///a.wav", "s3://t/j/original.wav"]
    assert (list(k["files"]), list(k["named"])) == ([], ["https://e/k.wav"])
    assert (other["tenant_id"], other["status"]) == ("u", None)
    assert await database.known_blobs([]) == []
