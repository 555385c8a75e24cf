"""The fleet that is asked: real Kafka, real PostgreSQL, one worker with every role, and seeded tenants."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from agents.commands.serve import servers
from agents.fleet.environment import from_env
from bench import measure
from bench.__main__ import RECOGNIZERS, worker
from bench.api_fuzz.seed import KEYS, SECRET, seed

#: Two recognizers that answer at once, and an outside service.
HEARD = f"{RECOGNIZERS},webhook-stt"

#: What makes the fleet take in conversations, of which it fetches none: nobody listens there.
CONVERSATIONS = {
    "ELEVENLABS_API_KEY": "key-of-the-fuzzer",
    "ELEVENLABS_BASE_URL": "http://127.0.0.1:9",
    "ELEVENLABS_WEBHOOK_SECRET": SECRET,
    "SMTP_HOST": "127.0.0.1",
    "SMTP_PORT": "9",
    "SMTP_SECURITY": "none",
    "SMTP_FROM_EMAIL": "concord@example.com",
}


@dataclass
class Site:
    """Where the API is, what it has, and the folder in which it logs."""

    url: str
    ids: dict[str, dict[str, list[str]]]
    folder: Path


@contextlib.asynccontextmanager
async def site(jobs: int, others: int) -> AsyncIterator[Site]:
    """A fleet in a folder that is deleted afterwards."""
    data = Path(tempfile.mkdtemp(prefix="concord-fuzz-"))
    data.chmod(0o755)  # as root, PostgreSQL's user must get through
    common = {"CONCORD_RECOGNIZERS": HEARD, "WEBHOOK_SECRET": SECRET} | CONVERSATIONS
    environment = common | {
        "CONCORD_API_KEYS": ",".join(f"{tenant}={key}" for tenant, key in KEYS.items()),
        "CONCORD_REQUESTS_PER_MINUTE": "0",
        "CONCORD_ACCESS_LOG": str(data / "access.log"),
    }
    try:
        settings = from_env({"CONCORD_DATA": str(data), **common})
        log = data / "worker.log"
        async with servers(settings) as complete, worker(complete, log, **environment) as process:
            url = await measure.until_ready(log, process)
            yield Site(url, await seed(url, jobs, others), data)
    finally:
        shutil.rmtree(data, ignore_errors=True)
