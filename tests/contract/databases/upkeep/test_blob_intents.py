"""What every database must return about unreferenced blobs; see `sinks.ports.upkeep.blob_intents`."""

from __future__ import annotations

from schemas.jobs.rows import File
from tests.contract.databases.cases import created, job


def original(uri):
    return File(
        tenant_id="t", job_id="j", run=1, kind="original", uri=uri, size_bytes=1, content_type="a/b", sha256="x"
    )


async def test_an_intended_blob_is_an_orphan_until_a_step_refers_to_it(under_test):
    database = under_test.database
    for uri in ("s3://b/t/j/original.wav", "s3://b/t/j/original.au"):
        await database.intend_blob(("t", "j"), uri)

    assert await database.orphan_blobs(0, 3600, 10) == []  # the job may be about to be made
    await database.commit([created(job(), files=(original("s3://b/t/j/original.wav"),))])

    assert await database.orphan_blobs(0, 0, 10) == ["s3://b/t/j/original.au"]
    await database.forget_blobs(["s3://b/t/j/original.au"])
    assert await database.orphan_blobs(0, 0, 10) == []


async def test_the_blob_of_a_refused_step_is_an_orphan_at_once(under_test):
    database = under_test.database
    await database.commit([created(job(), files=(original("s3://b/t/j/original.wav"),))])
    await database.intend_blob(("t", "j"), "s3://b/t/j/original.au")
    await database.intend_blob(("t", "j"), "s3://b/t/j/original.wav")

    await database.commit([created(job(), files=(original("s3://b/t/j/original.au"),))])
    await database.commit([created(job(), files=(original("s3://b/t/j/original.wav"),))])

    assert await database.orphan_blobs(3600, 3600, 10) == ["s3://b/t/j/original.au"]
