"""The shipped calibration on output of real engines. It was fitted on these very calls, so the figures only guard
against regressions; figures for unseen calls are in bench/results/reconcile.md (`make bench-reconcile`).
"""

import gzip
import itertools
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from agents.text.reconcile import reconcile
from agents.text.score import score
from schemas.words import Hypothesis, Word

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
FIGURES = Path(__file__).parents[2] / "bench" / "results" / "reconcile.json"
#: One call of so many is used, which keeps this short.
STEPS = {"earnings21": 11, "primock57": 6}
#: The recognizers whose pairs and triples are all taken: of all in primock57 there would be 3,300 sets a call.
GOOD = {
    "earnings21": {"amazon", "google", "microsoft", "speechmatics"},
    "primock57": {"assemblyai", "deepgram", "elevenlabs", "gemini-flash", "soniox", "whisper-large-v3"},
}
#: Recognizers that loop, drop minutes or spell by ear: each is paired with each good one.
BAD = {"earnings21": {"kaldi-librispeech"}, "primock57": {"azure-foundry-phi4", "mms-1b-all", "gemma-4-e2b-it"}}

pytestmark = [
    pytest.mark.skipif(not CORPORA.is_dir(), reason="no ../shared/corpora beside this work tree"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def calls():
    """Some calls of each corpus: (corpus, reference, transcripts by recognizer)."""
    found = []
    for corpus, step in STEPS.items():
        for path in sorted((CORPORA / corpus).glob("*.json.gz"))[::step]:
            data = json.loads(gzip.decompress(path.read_bytes()))
            heard = {
                name: Hypothesis(name, tuple(Word(*word) for word in words))
                for name, words in sorted(data["hypotheses"].items())
                if name in GOOD[corpus] | BAD[corpus]
            }
            found.append((corpus, data["reference"], heard))
    return found


def test_an_hour_takes_a_moment(calls):
    """First, while there is little else in memory: collecting garbage among many results takes longer than this."""
    _, _, heard = max(calls, key=lambda call: len(call[1]))
    hour = [Hypothesis(h.provider, h.words[:9000]) for h in list(heard.values())[:2]]
    reconcile(hour)
    started = time.process_time()

    reconcile(hour)

    assert time.process_time() - started < 0.5


def sets(corpus):
    """Pairs and triples of good recognizers, and pairs of a good one with a bad one."""
    good = sorted(GOOD[corpus])
    unequal = [tuple(sorted(pair)) for pair in itertools.product(good, BAD[corpus])]
    return [*itertools.combinations(good, 2), *itertools.combinations(good, 3), *sorted(unequal)]


@pytest.fixture(scope="module")
def results(calls):
    """The sets of every call, reconciled: (number of the call, recognizers, words, probabilities)."""
    found = []
    for number, (corpus, _, heard) in enumerate(calls):
        for names in sets(corpus):
            if heard.keys() >= set(names):
                words = reconcile([heard[name] for name in names]).words
                found.append((number, names, [word.text for word in words], [word.confidence for word in words]))
    return found


@pytest.fixture(scope="module")
def gains(calls, results):
    """By corpus and number of recognizers, or "unequal", for every set: how far its pooled word errors are below those
    of the best recognizer.
    """
    single = defaultdict(int)
    for corpus, reference, heard in calls:
        for name, hypothesis in heard.items():
            single[corpus, name] += score(reference, " ".join(word.text for word in hypothesis.words)).errors
    ours = defaultdict(int)
    for number, names, words, _ in results:
        ours[calls[number][0], names] += score(calls[number][1], " ".join(words)).errors
    found = defaultdict(list)
    for (corpus, names), errors in ours.items():
        kind = "unequal" if BAD[corpus] & set(names) else len(names)
        found[corpus, kind].append(1 - errors / min(single[corpus, name] for name in names))
    return found


@pytest.mark.parametrize(
    ("corpus", "kind", "mean", "lowest"),
    [
        ("earnings21", 2, 0.13, 0.06),
        ("earnings21", 3, 0.22, 0.16),
        ("primock57", 2, 0.07, 0.0),
        ("primock57", 3, 0.10, 0.05),
        ("earnings21", "unequal", 0.0, -0.01),
        ("primock57", "unequal", 0.0, -0.01),
    ],
)
def test_the_result_is_better_than_the_best_recognizer(gains, corpus, kind, mean, lowest):
    assert np.mean(gains[corpus, kind]) >= mean
    assert min(gains[corpus, kind]) >= lowest


def test_every_word_has_a_recognizer(calls, results):
    for number, names, words, _ in results:
        heard = {word.text for name in names for word in calls[number][2][name].words}

        assert set(words) <= heard


def test_probabilities_are_honest_and_errors_are_where_they_are_low(calls, results):
    """The expected word errors of the words in the transcript are about as many as there are, in each corpus."""
    for corpus in STEPS:
        expected, found, length = 0.0, 0, 0
        for number, _, words, chances in results:
            if calls[number][0] == corpus:
                counted = score(calls[number][1], " ".join(words))
                found += counted.substitutions + counted.insertions
                length += counted.words
                expected += sum(1 - chance for chance in chances)

        assert abs(expected - found) / length < 0.03


def test_the_order_of_recognizers_makes_no_difference(calls):
    for _, _, heard in calls[::3]:
        three = list(heard.values())[:3]

        assert reconcile(three) == reconcile(three[::-1])


def test_our_normaliser_counts_as_whispers_does(calls):
    normalise = pytest.importorskip("whisper_normalizer.english").EnglishTextNormalizer()
    for _, reference, heard in calls[::3]:
        text = " ".join(word.text for word in next(iter(heard.values())).words)
        theirs = score(reference, text, lambda line: normalise(line).split(), "Whisper's English normaliser")

        assert score(reference, text).rate == pytest.approx(theirs.rate, abs=0.003)


@pytest.mark.skipif(not FIGURES.is_file(), reason="no figures yet: make bench-reconcile")
def test_the_published_figures_are_better_than_the_best_recognizer():
    """On calls, and with recognizers, that were not fitted on."""
    summary = json.loads(FIGURES.read_text())["summary"]

    assert {group.split(",")[0] for group in summary} == set(GOOD)
    assert all(group["ours"] > 0.04 for group in summary.values())
    assert all(group["worse"] <= 0.1 for group in summary.values())
