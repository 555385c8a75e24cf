"""What every search index must do: find passages by words and by vectors, for their tenant alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from schemas.search.chunks import Generation
from sinks.memory.search.reads import MemorySearch
from sinks.ports.search.reads import EVERYWHERE, ChunkFilter, Term
from sinks.postgres.reader import Reader
from sinks.postgres.search.reads import PostgresSearch
from tests.contract.databases.doubles import OfMemory
from tests.contract.databases.searching import NOON, chunk, indexed, keep, summarized


@pytest.fixture
def search(under_test):
    if isinstance(under_test, OfMemory):
        return MemorySearch(under_test.database)
    return PostgresSearch(Reader(under_test.pool))


def may(*words):
    return [Term(word) for word in words]


async def found(search, terms, which=EVERYWHERE, tenant="t"):
    """Job and number of what matches by words, best first."""
    matches = await search.matching_words(tenant, terms, which, limit=10)
    return [(job_id, number) for (job_id, _, number), _ in [(m.key, m.score) for m in matches.matches]]


CALLS = (
    chunk("the invoice of Acme is overdue", 0),
    chunk("we agreed on a discount for Acme", 1),
    chunk("goodbye", 2),
)


async def test_a_passage_with_more_of_the_words_comes_first(under_test, search):
    await keep(under_test.database, *CALLS)

    assert await found(search, may("discount", "acme")) == [("j", 1), ("j", 0)]
    assert await found(search, may("refund")) == []
    assert await found(search, []) == []


async def test_a_rare_word_is_worth_more(under_test, search):
    await keep(under_test.database, *CALLS)

    assert await found(search, [Term("invoice", weight=3), Term("discount")]) == [("j", 0), ("j", 1)]


async def test_what_must_and_must_not_be_there_is_obeyed(under_test, search):
    await keep(under_test.database, *CALLS)

    assert await found(search, [Term("acme", use="must")]) == [("j", 0), ("j", 1)]
    assert await found(search, [Term("acme"), Term("discount", use="not")]) == [("j", 0)]
    assert await found(search, [Term("acme", use="must"), Term("overdue", use="must")]) == [("j", 0)]
    assert await found(search, [Term("discount", use="not")]) == []


async def test_a_phrase_is_found_as_it_was_said_and_a_prefix_as_a_beginning(under_test, search):
    await keep(under_test.database, *CALLS)

    assert await found(search, [Term("discount for Acme", "phrase", use="must")]) == [("j", 1)]
    assert await found(search, [Term("Acme discount", "phrase", use="must")]) == []
    assert await found(search, [Term("invo", "prefix")]) == [("j", 0)]


@pytest.mark.parametrize("beginning", ["bi", "bicy", "bicycles", "the", "Theat", "o'n", "o'neil"])
async def test_a_beginning_is_that_of_a_word_as_it_is_said_not_a_word_of_its_own(under_test, search, beginning):
    await keep(under_test.database, chunk("bicycles for the theatre of O'Neill"), chunk("goodbye", 1))
    terms = [Term(beginning, "prefix", use="must")]

    assert await found(search, terms) == [("j", 0)]
    assert await found(search, [Term("goodbye"), replace(terms[0], use="not")]) == [("j", 1)]


HOSTILE = ["it's", "a & b | !c", "'; DROP TABLE chunks; --", "\\", ":*", "<-> (", "%_", "\u00e9" * 300, " ", "'' \\'"]


async def test_any_text_may_be_looked_for(under_test, search):
    await keep(under_test.database, *CALLS)
    kinds = ("word", "phrase", "prefix")

    assert {len(await found(search, [Term(text, kind), Term("acme")])) for text in HOSTILE for kind in kinds} == {2}


async def test_what_else_was_heard_is_found_and_is_worth_less(under_test, search):
    heard = chunk("we spoke to Akmi about it", 1, heard="spoke to Acme about it\nspoke to Agni about it")
    await keep(under_test.database, heard, chunk("Acme calls back", 2), chunk("nothing", 3))

    assert await found(search, may("acme")) == [("j", 2), ("j", 1)]
    assert await found(search, [Term("agni about", "phrase", use="must")]) == [("j", 1)]


async def test_another_tenants_passages_do_not_exist(under_test, search):
    await keep(under_test.database, *CALLS)
    await keep(under_test.database, chunk("the invoice of Acme", 0, "k", "u.1"))

    assert await found(search, may("acme"), tenant="u.1") == [("k", 0)]
    assert await found(search, may("acme"), tenant="nobody") == []
    assert await search.chunks("u.1", [("j", 1, 0)]) == {}
    assert (await search.chunks("t", [("j", 1, 0), ("j", 1, 9)])) == {("j", 1, 0): CALLS[0]}


METADATA = {"team": 7, "agent": "Zoë"}

FILTERS = [
    (ChunkFilter(job="late"), ["late"]),
    (ChunkFilter(job="order-1"), ["early"]),
    (ChunkFilter(job="order-2"), []),
    (ChunkFilter(entity="acme"), ["late"]),
    (ChunkFilter(entity="bolt"), []),
    (ChunkFilter(sentiment="mixed"), ["late"]),
    (ChunkFilter(sentiment="mixed", entity="bolt"), []),
    (ChunkFilter(reference="order-1"), ["early"]),
    (ChunkFilter(created_from=NOON), ["late"]),
    (ChunkFilter(created_to=NOON), ["early"]),
    (ChunkFilter(speaker="B"), ["late"]),
    (ChunkFilter(recognizer="three"), ["early"]),
    (ChunkFilter(metadata=frozenset({("team", "7"), ("agent", "Zoë")})), ["late"]),
    (ChunkFilter(metadata=frozenset({("team", "8")})), []),
    (ChunkFilter(speaker="B", job="early"), []),
]


async def test_filters_hold_for_words_and_for_vectors(under_test, search):
    database, early, late = under_test.database, NOON - timedelta(days=1), NOON + timedelta(days=1)
    await keep(database, chunk("Acme", 0, "early", created_at=early, recognizers=["three"]), reference="order-1")
    await keep(database, chunk("Acme!", 0, "late", created_at=late, speakers=["A", "B"]), metadata=METADATA)
    await summarized(database, "late", "mixed", "Acme")
    if not isinstance(under_test, OfMemory):  # metadata are kept with the time of their job, which is now
        await under_test.pool.execute("UPDATE job_metadata SET created_at = $1", late)
    generation = await with_vectors(database, {"Acme": [1.0, 0.0], "Acme!": [0.9, 0.1]})

    for which, jobs in FILTERS:
        assert [job for job, _ in await found(search, may("acme"), which)] == jobs
        assert [m.key[0] for m in await search.nearest("t", generation, [1.0, 0.0], which, limit=5)] == jobs


async def with_vectors(database, vectors, model="m") -> Generation:
    """The generation of a model, with these vectors by text."""
    dimensions = len(next(iter(vectors.values())))
    await database.begin_generation(model, dimensions)
    generation = next(one for one in await database.generations() if one.model == model)
    for work in await database.claim_embedding_work(generation.generation, 100, 60):
        texts = await database.texts_without_vector(work, 100)
        await database.keep_vectors(work, {hash: vectors[text] for hash, text in texts.items()}, [], 60)
        await database.end_embedding_work(work)
    return generation


async def test_the_nearest_vectors_come_first_with_their_cosine(under_test, search):
    a, b, c = (chunk(text, n) for n, text in enumerate("abc"))
    await keep(under_test.database, a, b, c)
    generation = await with_vectors(under_test.database, {"a": [0.0, 1.0], "b": [1.0, 0.0], "c": [1.0, 1.0]})
    nearest = await search.nearest("t", generation, [2.0, 0.0], limit=2)

    assert [match.key for match in nearest] == [b.key, c.key]
    assert [match.score for match in nearest] == pytest.approx([1.0, 0.5**0.5], abs=1e-3)


async def test_an_index_is_asked_where_vectors_are_many(under_test, search, monkeypatch):
    """With the same result, with and without filters."""
    monkeypatch.setattr("sinks.postgres.search.reads.FEW", 2)
    chunks = [chunk(f"passage {n}", n, speakers=["B"] if n % 5 == 0 else ["A"]) for n in range(60)]
    await keep(under_test.database, *chunks)
    await keep(under_test.database, chunk("of another", 0, "k", "u"))
    vectors = {one.text: [1.0, one.number / 10] for one in chunks} | {"of another": [1.0, 0.0]}
    generation = await with_vectors(under_test.database, vectors)

    nearest = await search.nearest("t", generation, [1.0, 0.0], limit=4)
    of_b = await search.nearest("t", generation, [1.0, 0.0], ChunkFilter(speaker="B"), limit=3)

    assert [match.key[2] for match in nearest] == [0, 1, 2, 3]
    assert [match.key[2] for match in of_b] == [0, 5, 10]


async def test_a_new_index_takes_the_place_of_the_one_before_and_keeps_equal_vectors(under_test, search):
    database = under_test.database
    await keep(database, chunk("old", 0), chunk("same", 1))
    generation = await with_vectors(database, {"old": [1.0, 0.0], "same": [0.0, 1.0]})
    step = indexed(chunk("same", 0), chunk("new", 1))
    await database.commit([replace(step, outcome=replace(step.outcome, enrichment=None))])
    [work] = await database.claim_embedding_work(generation.generation, 10, 60)

    assert await found(search, may("old")) == []
    assert await found(search, may("new")) == [("j", 1)]
    assert list((await database.texts_without_vector(work, 10)).values()) == ["new"]
    assert [match.key[2] for match in await search.nearest("t", generation, [1.0, 0.0], limit=9)] == [0]


async def test_where_terms_are_in_a_text_is_told(under_test, search):
    await keep(under_test.database, *CALLS)
    texts = [("english", "An invoice, and <b>another</b> invoice"), ("english", "the invoice of Acme"), ("english", "")]
    _, second, third = await search.marked("t", [*may("invoice"), Term("ac", "prefix"), Term("of", use="not")], texts)

    assert (second, third) == ([(4, 11), (15, 19)], [])


async def test_state_tells_what_can_be_searched(under_test, search):
    empty = await search.index_state("t")
    await keep(under_test.database, *CALLS)
    await under_test.database.begin_generation("m", 2)
    state = await search.index_state("t")

    assert (empty.has_vectors, empty.serving, empty.waiting) == (True, None, 0)
    assert (state.serving.model, state.serving.dimensions, state.waiting) == ("m", 2, 1)
    assert (await search.index_state("u")).waiting == 0
