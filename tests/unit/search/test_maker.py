"""Vectors are made of what has none, paid for once, and announced once, whatever the model does."""

from __future__ import annotations

import asyncio

import pytest

from agents.asr.rate_limit import ProviderLimiter
from agents.embeddings.maker import LOOK_S, WITHOUT_S, EmbeddingMaker
from agents.embeddings.scripted import ScriptedEmbedder
from agents.runtime.in_memory import Clock
from schemas.errors import ProviderError, SettingsError, Transient, Unavailable
from sinks.memory.database import MemoryDatabase
from tests.contract.databases.searching import chunk, keep

CHUNKS = [chunk(f"passage {n}", n) for n in range(5)]


class Making:
    """A database with a job of five passages, and a maker."""

    def __init__(self, **more):
        self.clock = Clock()
        self.database = MemoryDatabase(clock=self.clock)
        self.models = {"letters": ScriptedEmbedder()}
        limiter = ProviderLimiter(self.database, "embeddings")
        self.maker = EmbeddingMaker(self.database, "letters", self.open, limiter, batch=2, **more)

    def open(self, model):
        if model not in self.models:
            raise SettingsError(f"no {model}")
        return self.models[model]

    @property
    def asked(self):
        return [text for call in self.models["letters"].asked for text in call if text.startswith("passage")]

    def events(self):
        return [m for _, m in self.database.outbox if m.topic == "embeddings.generated"]

    async def settle(self):
        """Look until there is nothing to do now."""
        while await self.maker.look() < LOOK_S:
            pass


@pytest.fixture
async def making():
    it = Making()
    await keep(it.database, *CHUNKS)
    yield it
    await it.maker.close()


async def test_all_passages_get_a_vector_in_batches_and_it_is_announced_once(making):
    await making.settle()
    await making.settle()

    assert [len(call) for call in making.models["letters"].asked] == [1, 2, 2, 1]
    assert sorted(making.asked) == [one.text for one in CHUNKS]
    assert len(making.database.vectors) == 5
    [event] = making.events()
    assert b'"model":"letters","dimensions":26' in event.value.replace(b" ", b"")
    assert sum(row.quantity for row in making.database.usage if row.unit == "requests") == 3
    value = making.maker.metrics.registry.get_sample_value
    assert value("concord_usage_total", {"provider": "scripted", "unit": "requests"}) == 3


async def test_a_model_that_is_away_for_an_hour_gets_every_passage_once_when_it_is_back(making):
    await making.maker.look()
    model = making.models["letters"]
    model.trouble = [Transient("the model is away")] * 1000
    for _ in range(60):
        await making.maker.look()
        making.clock.advance(60)
    failed = 1000 - len(model.trouble)
    model.trouble = []
    making.clock.advance(1000)
    await making.maker.limiter.refresh()
    await making.settle()

    assert 5 <= failed <= 60
    assert sorted(making.asked) == [one.text for one in CHUNKS]
    assert len(making.events()) == 1


async def test_why_a_run_waits_is_kept_with_it(making):
    await making.maker.look()
    making.models["letters"].trouble = [None, ProviderError("no such model")]
    await making.maker.look()
    [(work, due)] = making.database.embedding.values()

    assert work.error == "no such model"
    assert due > making.clock()
    assert len(making.database.vectors) == 2


async def test_an_answer_is_stored_although_the_maker_is_stopped_and_the_database_away(making, monkeypatch):
    await making.maker.look()
    keep, away = making.database.keep_vectors, [True]

    async def refusing(*arguments):
        if away[0]:
            raise Unavailable("away")
        return await keep(*arguments)

    monkeypatch.setattr(making.database, "keep_vectors", refusing)
    looking = asyncio.create_task(making.maker.look())
    while not making.asked:
        await asyncio.sleep(0)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    away[0] = False
    await making.maker.paid.settled("j")
    making.clock.advance(200)
    await making.settle()

    assert sorted(making.asked) == [one.text for one in CHUNKS]


async def test_answers_of_other_dimensions_are_not_mixed_in(making):
    await making.maker.look()
    making.models["letters"].vector = lambda _: [1.0, 2.0]
    await making.maker.look()
    [(work, _)] = making.database.embedding.values()

    assert "2 dimensions in place of 26" in work.error
    assert making.database.vectors == {}


async def test_another_model_makes_all_anew_while_the_old_one_serves(making):
    await making.settle()
    making.models["other"] = ScriptedEmbedder("other", lambda text: [1.0, float(len(text))])
    making.maker.model = "other"
    await making.maker.look()
    states = [(one.model, one.state) for one in await making.database.generations()]
    await making.settle()

    assert states == [("letters", "serving"), ("other", "building")]
    assert [(one.model, one.state) for one in await making.database.generations()] == [("other", "serving")]
    assert {len(vector) for vector in making.database.vectors.values()} == {2}
    assert len(making.events()) == 2


async def test_an_old_model_that_cannot_be_used_any_more_does_not_keep_the_new_one_back(making):
    await making.settle()
    making.models = {"other": ScriptedEmbedder("other", lambda text: [1.0, float(len(text))])}
    making.maker.model, making.maker._embedders = "other", {}
    await keep(making.database, chunk("more", job_id="k"))
    await making.settle()

    assert [one.model for one in await making.database.generations()] == ["other"]
    assert len(making.database.vectors) == 6


async def test_without_vectors_in_the_database_nothing_is_asked(making):
    making.database.has_vectors = False

    assert await making.maker.look() == WITHOUT_S
    assert making.models["letters"].asked == []
