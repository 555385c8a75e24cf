"""A fleet in memory that processes conversations of voice agents, with local servers of ElevenLabs and of mail."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import orjson

from agents.asr.rate_limit import ProviderLimiter
from agents.conversations.client import ElevenLabs
from agents.media.probe_pool import ProbePool
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages import fetch
from agents.stages.enrichments import mail, report, summary
from agents.stages.spec import ConversationService, MailService
from schemas.accounts.settings import AccountSettings
from schemas.conversations import names
from schemas.conversations.processing import Processing, processing
from schemas.jobs.rows import Job
from sinks.accounts import Accounts
from sinks.mail.smtp import SmtpServer
from tests.recordings import voice, write
from tests.servers.elevenlabs import KEY, ElevenLabsServer
from tests.servers.smtp import SmtpServerDouble

ACCOUNT, CONVERSATION, ANN = "t", "conv_1", "ann@reader.example"
JOB = names.job_id(ACCOUNT, CONVERSATION)


@cache
def mp3(seconds: float = 16) -> bytes:
    """A recording as ElevenLabs has them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp3"
        write(path, voice(seconds), codec="mp3", muxer="mp3")
        return path.read_bytes()


class Here:
    """Renders in this process, and makes no PDF."""

    def __init__(self) -> None:
        #: Reports, by title.
        self.reports: dict[str, Any] = {}

    async def pdf(self, content):
        self.reports[content.title] = content
        return b"%PDF " + content.model_dump_json().encode()

    async def mail(self, templates, values):
        from agents.reports.templates import rendered

        return rendered(templates, values)

    async def close(self): ...


@dataclass
class Calls:
    """The fleet; `lacks`, `max_bytes` and `settings` hold from `start` on."""

    scenario: Any
    elevenlabs: ElevenLabsServer
    smtp: SmtpServerDouble
    probe_pool: ProbePool
    questions: Any = None
    lacks: tuple[str, ...] = ()
    max_bytes: int = 10 << 20
    wait_s: float = 86_400
    #: Seconds between two calls of ElevenLabs' API.
    interval_s: float = 0.0
    settings: AccountSettings = field(default_factory=AccountSettings)
    renderer: Here = field(default_factory=Here)
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @property
    def fleet(self):
        return self.scenario.fleet

    @property
    def store(self):
        return self.scenario.store

    async def start(self) -> None:
        """Build the stages, as a worker that begins does."""
        database = self.fleet.database
        rate = ProviderLimiter(database, "elevenlabs.conversations", interval_s=self.interval_s, patience_s=0.0)
        client = ElevenLabs(KEY, self.elevenlabs.url, timeout_s=3.0, rate=rate)

        def tasks(limit):
            made = LeasedTasks(database, f"test {limit}", limit)
            self.stack.push_async_callback(made.close)
            return made

        async def questions():
            return self.questions

        resources = SimpleNamespace(
            store=self.store,
            database=database,
            leased_tasks=tasks,
            on_close=self.stack.push_async_callback,
            accounts=Accounts(database, self.settings, seconds=0),
            part_tokens=24_000,
            text_questions=questions,
            recognizers=tuple(self.scenario.recognizers),
            deadline_s=3600,
            abilities={},
            has_voices=False,
            enrichments=(),
            audio_source=lambda: SimpleNamespace(probe_pool=self.probe_pool),
            conversations=lambda: ConversationService(client, self.lacks, self.max_bytes, self.wait_s),
            mail_service=lambda: MailService(
                SmtpServer("localhost", self.smtp.port, "none"), "concord@sender.example", frozenset(), 1 << 20, None
            ),
        )
        specs = (fetch.SPEC, summary.SPEC, report.SPEC, mail.SPEC)
        self.fleet.stages = [*self.fleet.stages, *[await spec.open(resources) for spec in specs]]

    def request(self, conversation: str = CONVERSATION, headers=(), **more: Any) -> None:
        """A producer asks for a conversation."""
        data = {"account_id": ACCOUNT, "conversation_id": conversation, "email_id": ANN} | more
        self.fleet.publish("conversation.requested", orjson.dumps(data), b"any", headers)

    async def job(self, job_id: str = JOB) -> Job:
        job = await self.fleet.database.job(ACCOUNT, job_id)
        assert job is not None
        return job

    async def processing(self, job_id: str = JOB) -> Processing:
        return processing(await self.job(job_id))

    async def blob(self, name: str) -> bytes:
        return await self.store.get(self.store.uri(name))


@contextlib.asynccontextmanager
async def calls(
    scenario: Any, elevenlabs: ElevenLabsServer, smtp: SmtpServerDouble, probe_pool: ProbePool, monkeypatch: Any
) -> AsyncIterator[Calls]:
    """The fleet, not started."""
    it = Calls(scenario, elevenlabs, smtp, probe_pool)
    for module in (report, mail):
        monkeypatch.setattr(module, "Renderer", lambda: it.renderer)
    async with it.stack:
        yield it
