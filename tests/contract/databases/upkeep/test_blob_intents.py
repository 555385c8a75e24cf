"""What every database must return about unreferenced blobs; see `sinks.ports.upkeep.blob_intents`."""

from __future__ import annotations

import pytest

from schemas.errors import Contended
from schemas.jobs.rows import File
from tests.contract.databases.cases import created, job, moved


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


URI = "s3://b/t/j/original.wav"


async def test_a_blob_that_is_held_is_no_orphan_until_it_lapses(under_test):
    database = under_test.database
    await database.hold_blob(("t", "j"), URI, 30)
    assert await database.orphan_blobs(0, 3600, 10) == []
    await database.hold_blob(("t", "other"), "s3://b/t/other/original.wav", -1)

    assert await database.orphan_blobs(3600, 3600, 10) == ["s3://b/t/other/original.wav"]


async def test_a_blob_that_is_being_deleted_can_neither_be_held_nor_committed(under_test):
    database = under_test.database
    await database.hold_blob(("t", "j"), URI, -1)
    assert await database.orphan_blobs(3600, 3600, 10) == [URI]
    with pytest.raises(Contended):
        await database.hold_blob(("t", "j"), URI, 30)
    with pytest.raises(Contended):
        await database.commit([created(job(), files=(original(URI),))], held=URI)
    assert await database.job("t", "j") is None

    await database.forget_blobs([URI])
    await database.hold_blob(("t", "j"), URI, 30)
    await database.commit([created(job(), files=(original(URI),))], held=URI)
    assert await database.orphan_blobs(0, 0, 10) == []


async def test_a_blob_that_nobody_holds_is_not_committed(under_test):
    database = under_test.database
    with pytest.raises(Contended):
        await database.commit([created(job())], held=URI)
    await database.hold_blob(("t", "j"), URI, -1)
    with pytest.raises(Contended):
        await database.commit([created(job())], held=URI)

    assert await database.job("t", "j") is None


async def test_a_blob_that_a_job_needs_stays_until_the_job_has_its_files(under_test):
    database, staged = under_test.database, "s3://b/t/uploads/1"
    await database.hold_blob(("t", "j"), staged, 30)
    await database.commit([created(job())], held=staged)
    assert await database.orphan_blobs(0, 0, 10) == []

    await database.commit([moved("transcribing")])
    assert await database.orphan_blobs(0, 3600, 10) == [staged]


async def test_an_intention_without_a_time_is_not_given_one(under_test):
    database = under_test.database
    await database.intend_blob(("t", "j"), URI)
    await database.hold_blob(("t", "j"), URI, -1)

    assert await database.orphan_blobs(3600, 3600, 10) == []
