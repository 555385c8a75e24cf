"""What was read before a restore is read again, in any order, by stages whose database has forgotten all of it."""

from __future__ import annotations

import random

import pytest

from tests.fleet.conftest import J, Speaker


@pytest.mark.parametrize("seed", range(16))
async def test_a_job_that_a_restore_has_taken_away_ends_again_as_it_did(story, seed):
    first = story(Speaker("a"), Speaker("b"))
    uploaded = await first.upload()
    await first.fleet.run()
    second = story(Speaker("a"), Speaker("b"))
    vars(second.store).update(vars(first.store))  # blobs are not lost

    topics = ("asr.requests.a", "asr.requests.b", "asr.results", "intake.due", "reconcile.due", "reconciled")
    old = [record for topic in topics for record in first.fleet.log[topic]]
    random.Random(seed).shuffle(old)
    for record in old[seed:]:
        second.fleet.deliver_again(record)
    await second.fleet.run()
    for record in (uploaded, *old[:seed]):
        second.fleet.deliver_again(record)
    await second.fleet.run()

    assert second.terminal() == first.terminal() == [("persisted", J, 1)]
    assert _ids(second) == _ids(first)
    assert all(speaker.charges.total() <= 1 for speaker in second.speakers.values())


def _ids(told) -> list[str | None]:
    return [record.header("ce_id") for record in told.fleet.log["persisted"]]
