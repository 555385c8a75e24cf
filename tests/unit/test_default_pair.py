"""What the recognizers that need no key heard on twelve clips (tests/data/default_pair), reconciled as by default."""

from __future__ import annotations

import pytest

from agents.text.score import pooled
from bench.default_pair import CONDITIONS, RECOGNIZERS, SETS, kept, scores

PAIR = " + ".join(SETS[0])


@pytest.fixture(scope="module")
def by_clip():
    return {clip.name: scores(clip) for clip in kept()}


def test_there_are_clips_in_every_condition(by_clip):
    assert len(by_clip) == 12
    assert {name.rpartition("-")[2] for name in by_clip} == set(CONDITIONS)


def test_the_default_pair_is_better_than_either_alone(by_clip):
    rates = {name: pooled([clip[name] for clip in by_clip.values()]).rate for name in (*RECOGNIZERS, PAIR)}

    assert rates[PAIR] < 0.8 * min(rates[name] for name in RECOGNIZERS)


def test_no_clip_is_much_worse_than_its_better_recognizer(by_clip):
    worse = {n: clip[PAIR].errors - min(clip[name].errors for name in SETS[0]) for n, clip in by_clip.items()}

    assert max(worse.values()) <= 1, worse


def test_a_second_family_gains_more_than_a_smaller_model(by_clip):
    pair, small = (pooled([clip[" + ".join(names)] for clip in by_clip.values()]).errors for names in SETS[:2])

    assert pair < small
