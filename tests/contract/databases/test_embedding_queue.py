"""What every queue of passages that wait for vectors must do."""

from __future__ import annotations

import pytest

from schemas.search.chunks import EmbeddingWork
from tests.contract.databases.cases import used
from tests.contract.databases.searching import chunk, indexed, keep

ONE, TWO = chunk("one", 0), chunk("two", 1)


@pytest.fixture
async def database(under_test):
    """With a generation of vectors, and then a job whose two passages have none."""
    await under_test.database.begin_generation("m", 2)
    await keep(under_test.database, ONE, TWO)
    return under_test.database


async def claimed(database, generation=1) -> list[EmbeddingWork]:
    return await database.claim_embedding_work(generation, 10, 60)


async def texts(database, work, limit=10):
    return sorted((await database.texts_without_vector(work, limit)).values())


async def test_new_passages_wait_and_are_claimed_once(database):
    [work] = await claimed(database)

    assert (work.tenant_id, work.job_id, work.run, work.transcript_version) == ("t", "j", 1, 1)
    assert await claimed(database) == []
    assert await texts(database, work) == ["one", "two"]
    assert len(await texts(database, work, 1)) == 1


async def test_vectors_are_kept_with_what_they_cost_and_the_rest_waits(database, under_test):
    [work] = await claimed(database)
    cost = [used("total_tokens", provider="openai", ref="r")]

    assert await database.keep_vectors(work, {ONE.hash: [1.0, 0.0]}, cost, 60)
    assert await database.keep_vectors(work, {ONE.hash: [1.0, 0.0]}, cost, 60)
    assert await texts(database, work) == ["two"]
    assert await under_test.usage() == cost
    await database.keep_vectors(work, {TWO.hash: [0.0, 1.0], "gone": [0.5, 0.5]}, [], 60)
    await database.end_embedding_work(work)
    assert await texts(database, work) == []
    assert await database.claim_embedding_work(1, 10, 0) == []


async def test_a_claim_ends_with_a_new_index_and_what_was_paid_for_is_kept(database):
    [work] = await claimed(database)
    step = indexed(ONE, chunk("three", 1))
    object.__setattr__(step.outcome, "enrichment", None)
    await database.commit([step])

    assert not await database.keep_vectors(work, {ONE.hash: [1.0, 0.0], TWO.hash: [1.0, 0.0]}, [], 60)
    await database.put_off_embedding(work, 3600, "late")
    await database.end_embedding_work(work)
    [again] = await claimed(database)
    assert await texts(database, again) == ["three"]


async def test_what_fails_is_due_again_with_the_reason(database):
    [work] = await claimed(database)
    await database.put_off_embedding(work, 3600, "the model is away")
    assert await claimed(database) == []
    await database.put_off_embedding(work, 0, "the model is away")
    [again] = await claimed(database)

    assert (again.error, again.attempts) == ("the model is away", work.attempts + 1)


async def test_a_change_of_model_makes_all_anew_while_the_old_serves(database):
    [work] = await claimed(database)
    await database.keep_vectors(work, {ONE.hash: [1.0, 0.0], TWO.hash: [1.0, 0.0]}, [], 60)
    await database.end_embedding_work(work)
    await database.begin_generation("m", 2)
    await database.begin_generation("n", 3)
    await database.keep_generations(100)
    states = [(one.model, one.state) for one in await database.generations()]
    new = next(one.generation for one in await database.generations() if one.model == "n")
    [work] = await claimed(database, new)

    assert states == [("m", "serving"), ("n", "building")]
    assert await texts(database, work) == ["one", "two"]
    await database.keep_vectors(work, {ONE.hash: [1.0, 0.0, 0.0], TWO.hash: [1.0, 0.0, 0.0]}, [], 60)
    await database.end_embedding_work(work)
    while await database.keep_generations(1):
        pass
    assert [(one.model, one.state) for one in await database.generations()] == [("n", "serving")]


async def test_another_change_gives_up_the_one_that_is_not_complete(database):
    await database.begin_generation("n", 3)
    await database.begin_generation("o", 4)
    while await database.keep_generations(10):
        pass

    # What waits for the new one waits for the old one, too, so that nothing is lost by the change.
    assert [(one.model, one.state) for one in await database.generations()] == [("o", "serving")]


async def test_a_deleted_job_leaves_nothing_to_make(database):
    [work] = await claimed(database)
    await database.keep_vectors(work, {ONE.hash: [1.0, 0.0]}, [], 60)
    await database.begin_deletion(("t", "j"), "me")

    assert await texts(database, work) == []
    assert not await database.keep_vectors(work, {TWO.hash: [1.0, 0.0]}, [], 60)
    assert await database.claim_embedding_work(1, 10, 0) == []
