"""Long recordings that clients send straight into S3 in parts: over HTTP, with the real store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from agents.upkeep.sweeper import Sweeper
from sinks.blobs.s3 import S3Store
from sinks.memory.database import MemoryDatabase
from tests.servers.s3 import BUCKET, OWNER, REGION
from tests.web.service import ACME, problem
from tests.web.uploading import WAV, uploading
from web.resources.uploads import direct
from web.resources.uploads.direct import ONE_PUT, PART, PARTS, part_sizes

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def uploading_to(server):
    store = S3Store(BUCKET, endpoint_url=server.endpoint, region=REGION, prefix=uuid4().hex, **OWNER)
    async with uploading(store=store) as service:
        yield service
    await store.close()


async def begun(service, **more):
    body = {"filename": "call.wav", "size_bytes": len(WAV), "in_parts": True} | more
    response = await service.client.post("/audio/uploads", json=body, headers=ACME)
    assert response.status == 201, await response.text()
    return await response.json()


@pytest.mark.parametrize("size", [1, PART, PART + 1, ONE_PUT, ONE_PUT * 4 + 7])
def test_parts_are_few_as_large_as_each_other_and_whole_together(size):
    sizes = part_sizes(size)

    assert (sum(sizes), len(sizes) <= PARTS, min(sizes[:-1], default=PART) >= PART) == (size, True, True)
    assert sizes[-1] <= sizes[0]


async def test_a_recording_in_parts_becomes_a_job_once_all_have_arrived(s3_server, monkeypatch):
    monkeypatch.setattr(direct, "part_sizes", lambda size: [size])  # a test of 64 MB would take seconds
    async with uploading_to(s3_server) as service:
        target = await begun(service)
        [part] = target["parts"]
        early = await problem(await service.client.post(target["links"]["complete"], headers=ACME), 409)
        assert (target["url"], part["size_bytes"], "0 have arrived" in early["detail"]) == (None, len(WAV), True)

        assert (await service.client.session.put(part["url"], data=WAV)).status == 200
        completed = await service.client.post(target["links"]["complete"], headers=ACME)
        job = await service.database.job("acme", target["job_id"])
        assert (completed.status, await service.store.get(job.audio_uri)) == (202, WAV)
        assert (await service.client.post(target["links"]["complete"], headers=ACME)).status == 200


async def test_parts_of_an_upload_that_is_not_completed_in_time_are_removed(s3_server):
    async with uploading_to(s3_server) as service:
        [part] = (await begun(service))["parts"]
        database, session = service.database, service.client.session
        assert (await session.put(part["url"], data=WAV)).status == 200
        sweeper = Sweeper(database, database, None, service.store, None, ("a",), 600.0, holder="here")
        assert await sweeper.sweep_blobs() == 0
        assert (await session.put(part["url"], data=WAV)).status == 200

        clock = database.clock
        database.clock = lambda: clock() + timedelta(hours=7)
        await sweeper.sweep_blobs()
        assert (await session.put(part["url"], data=WAV)).status == 404


#: A worker that stores 1 GB for a job that does not exist yet.
WRITER = """
import asyncio, sys
from sinks.blobs.s3 import S3Store

async def main(endpoint, prefix):
    store = S3Store({bucket!r}, endpoint_url=endpoint, region={region!r}, prefix=prefix, **{owner!r})
    async def pieces():
        for _ in range(1024):
            yield bytes(1 << 20)
    await store.put("acme/j/original.wav", pieces(), "audio/wav", once=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_an_upload_whose_worker_is_killed_between_two_parts_leaves_nothing(s3_server, tmp_path):
    prefix = uuid4().hex
    store = S3Store(BUCKET, endpoint_url=s3_server.endpoint, region=REGION, prefix=prefix, **OWNER)
    owner, key, uri = s3_server.client(), f"{prefix}/acme/j/original.wav", store.uri("acme/j/original.wav")

    def left():
        return [one for one in owner.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) if one["Key"] == key]

    database = MemoryDatabase()
    await database.hold_blob(("acme", "j"), uri, 30)
    code = WRITER.format(bucket=BUCKET, region=REGION, owner=OWNER)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, s3_server.endpoint, prefix, env=os.environ | {"TMPDIR": str(tmp_path)}, cwd=ROOT
    )
    try:
        async with asyncio.timeout(60):
            while not left():
                assert process.returncode is None
                await asyncio.sleep(0.02)
        process.kill()
        await process.wait()
        assert len(left()) == 1
        sweeper = Sweeper(database, database, None, store, None, ("a",), 600.0, holder="here")
        assert await sweeper.sweep_blobs() == 0, "it is held still"
        clock = database.clock
        database.clock = lambda: clock() + timedelta(seconds=31)
        assert await sweeper.sweep_blobs() == 1
        assert (left(), await store.stat(uri)) == ([], None)
    finally:
        if process.returncode is None:
            process.kill()
        owner.close()
        await store.close()


async def test_a_store_without_parts_takes_the_whole():
    async with uploading() as service:
        target = await begun(service)

        assert (target["parts"], (await service.client.session.put(target["url"], data=WAV)).status) == ([], 204)
