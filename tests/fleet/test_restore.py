"""Events that are read again after a restore, in any order, by stages whose database has lost all of them."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from tests.fleet.conftest import JOB, FakeRecognizer

TOPICS = ("asr.requests.a", "asr.requests.b", "asr.results", "intake.due", "reconcile.due", "reconciled")


@pytest.fixture
async def restored(make_scenario):
    """A fleet that has brought a job to its end, one with its blobs and an empty database, and the upload."""
    first = make_scenario(FakeRecognizer("a"), FakeRecognizer("b"))
    uploaded = await first.upload()
    await first.fleet.run()
    second = make_scenario(FakeRecognizer("a", polls=1), FakeRecognizer("b", polls=1))
    vars(second.store).update(vars(first.store))
    return first, second, uploaded


@pytest.mark.parametrize("seed", range(16))
async def test_a_job_that_a_restore_has_taken_away_ends_again_as_it_did(restored, seed):
    first, second, uploaded = restored
    old = [record for topic in TOPICS for record in first.fleet.log[topic]]
    random.Random(seed).shuffle(old)
    for record in old[seed:]:
        second.fleet.deliver_again(record)
    await second.fleet.run()
    for record in (uploaded, *old[:seed]):
        second.fleet.deliver_again(record)
    await second.fleet.run()

    ended_as_before(first, second)
    assert all(recognizer.charges.total() <= 1 for recognizer in second.recognizers.values())


async def test_an_old_result_ends_no_run_that_waits_for_its_recognizers(restored):
    first, second, uploaded = restored
    second.fleet.deliver_again(uploaded)
    await second.fleet.run(until=timedelta(seconds=1))  # they were asked, and are looked at later
    for record in first.fleet.log["asr.results"]:
        second.fleet.deliver_again(record)
    await second.fleet.run()

    ended_as_before(first, second)
    assert all(recognizer.charges.total() == 1 for recognizer in second.recognizers.values())


def ended_as_before(first, second) -> None:
    assert second.terminal() == first.terminal() == [("persisted", JOB, 1)]
    assert _ids(second) == _ids(first)


def _ids(scenario) -> list[str | None]:
    return [record.header("ce_id") for record in scenario.fleet.log["persisted"]]
