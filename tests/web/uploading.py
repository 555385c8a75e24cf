"""The web service with the real intake of uploads and the real prober, over doubles of database and store."""

from __future__ import annotations

import contextlib
import io
from collections import Counter

import aiohttp
import orjson

from agents.media.probe_pool import ProbePool
from agents.media.source.audio_source import AudioSource
from agents.stages.uploads.received import ReceivedUploads
from agents.stages.uploads.runs import Runs
from schemas.accounts.settings import AccountSettings
from sinks.accounts import Accounts
from sinks.blobs.memory import MemoryStore
from sinks.fair_slots import FairSlots
from sinks.memory.database import MemoryDatabase
from sinks.memory.reader import MemoryReader
from tests.fleet.conftest import recording
from tests.web.service import ACME, Worker
from web.connections.caller_limit import CallerLimit
from web.resources.jobs.details import JobControl
from web.resources.uploads.direct import DirectAudio
from web.resources.uploads.process import ProcessAudio

#: Bytes that an upload may have here, in a request and straight into the store.
LIMIT, DIRECT_LIMIT = 1 << 20, 1 << 21

WAV = recording()


def form(file=WAV, name="call.wav", kind=None, *, last=False, **fields):
    """A form with a recording and these fields; the recording is the `last` part, or the first."""
    data = aiohttp.FormData(default_to_multipart=True)
    parts = [(n, orjson.dumps(v).decode() if isinstance(v, dict) else str(v), {}) for n, v in fields.items()]
    if file is not None:
        recording = ("file", io.BytesIO(file), {"filename": name, "content_type": kind})
        parts.insert(len(parts) if last else 0, recording)
    for name_of_part, value, more in parts:
        data.add_field(name_of_part, value, **more)
    return data


class Uploading(Worker):
    """A service that takes uploads. Its database is looked into."""

    def __init__(self, pool, *, recognizers=("a", "b"), at_once=40, **more):
        database, store = more.pop("database", None) or MemoryDatabase(), more.pop("store", None) or MemoryStore()

        async def limit(_):
            return LIMIT

        reader = MemoryReader(database)
        accounts = Accounts(database, AccountSettings())
        self.received = ReceivedUploads(
            database, AudioSource(store, pool, ()), Runs(recognizers, 3600.0), accounts, FairSlots(6, 5)
        )
        self.at_once = CallerLimit("uploads", at_once)
        resources = [
            ProcessAudio(self.received, store, limit, self.at_once),
            DirectAudio(database, self.received, store, self.at_once, DIRECT_LIMIT),
            JobControl(reader, database, self.received),
        ]
        super().__init__(database, store=store, reader=reader, resources=resources, **more)

    async def upload(self, *args, headers=ACME, query="", **fields):
        return await self.client.post(f"/audio/process{query}", data=form(*args, **fields), headers=headers)

    def busy(self):
        return self.at_once._open.total() > 0

    def published(self):
        """How many events of each topic there are."""
        return Counter(message.topic for _, message in self.database.outbox)

    async def blobs(self):
        return [self.store.name(uri) async for uri in self.store.list("")]


@contextlib.asynccontextmanager
async def uploading(**more):
    pool = ProbePool(processes=2)
    try:
        async with Uploading(pool, **more) as service:
            yield service
    finally:
        await pool.close()
