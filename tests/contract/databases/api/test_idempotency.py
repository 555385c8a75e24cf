"""What every database must do with idempotency keys; see `sinks.ports.api.idempotency`."""

from __future__ import annotations

from uuid import uuid4

from sinks.ports.api.idempotency import Answer

ANSWER = Answer(202, {"Location": "/jobs/j"}, b'{"a":1}')


async def test_a_key_belongs_to_the_first_who_claims_it_until_it_is_answered(under_test):
    database, mine, theirs = under_test.database.acting_as("t"), uuid4(), uuid4()
    first = await database.claim_key("t", "k", "f", mine, 30)
    other = await database.claim_key("t", "k", "f", theirs, 30)
    renewed = await database.claim_key("t", "k", "f", mine, 30)
    await database.answer_key("t", "k", theirs, ANSWER)
    await database.answer_key("t", "k", mine, ANSWER)
    later = await database.claim_key("t", "k", "other", theirs, 30)

    assert (first.claim, first.answer, other.claim, renewed.claim) == (mine, None, mine, mine)
    assert (later.claim, later.fingerprint, later.answer) == (mine, "f", ANSWER)
    assert first.created_at == later.created_at


async def test_a_claim_that_has_lapsed_is_taken_over_by_the_same_request_only(under_test):
    database, first, other, second = under_test.database.acting_as("t"), uuid4(), uuid4(), uuid4()
    began = await database.claim_key("t", "k", "f", first, -1)
    refused = await database.claim_key("t", "k", "g", other, 30)
    taken = await database.claim_key("t", "k", "f", second, 30)
    await database.answer_key("t", "k", first, ANSWER)  # it comes late

    assert (refused.claim, refused.fingerprint) == (first, "f")
    assert (taken.claim, taken.created_at) == (second, began.created_at)
    assert (await database.claim_key("t", "k", "f", uuid4(), 30)).answer is None


async def test_a_key_that_is_released_is_free_for_the_same_request_and_one_that_is_forgotten_for_any(under_test):
    database, first, second, third = under_test.database.acting_as("t"), uuid4(), uuid4(), uuid4()
    await database.claim_key("t", "k", "f", first, 30)
    await database.release_key("t", "k", first, forget=False)
    assert (await database.claim_key("t", "k", "g", second, 30)).claim == first
    assert (await database.claim_key("t", "k", "f", second, 30)).claim == second

    await database.release_key("t", "k", second, forget=True)
    assert (await database.claim_key("t", "k", "g", third, 30)).claim == third


async def test_keys_of_two_tenants_are_two_keys(under_test):
    for tenant in ("t", "u", "*"):
        claim = uuid4()
        assert (await under_test.database.acting_as(tenant).claim_key(tenant, "k", "f", claim, 30)).claim == claim
