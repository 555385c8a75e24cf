"""Fits the shipped calibration (TARGET) on the shared corpora: `python -m bench.fit_reconciler`. The same input, the
same bytes.

Three things are learned: tables about words and recognizers (Knowledge), trees that weigh the evidence in disputed
slots, and trees for the words that all heard. Rows for the trees are made with tables from other calls, so the trees
learn how far to trust a table about calls it has not seen; a part of the rows has its recognizers' record hidden, so
they do without as well.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import wordfreq

from agents.text.alignment.network import runs
from agents.text.calibration.agreed import RECORD as AGREED_RECORD
from agents.text.calibration.agreed import agreed_evidence
from agents.text.calibration.calibrate import NGRAMS, TREES, Calibration, Passes, dump
from agents.text.calibration.evidence import RECORD_COLUMNS, Evidence, disputed_evidence, first_pass_evidence
from agents.text.calibration.facts import View
from agents.text.calibration.knowledge import LOWEST_RATE, Knowledge
from agents.text.calibration.language import rare
from agents.text.calibration.ngrams import NGrams
from agents.text.calibration.trees import UNKNOWN, Tree, Trees
from agents.text.score import Score, pooled, score
from bench import ngrams
from bench.corpora import CORPORA, SEED, Call, Sample, drawn, load

FOLDS = 5
TARGET = Path(__file__).parents[1] / "agents" / "text" / "calibration"
#: Disputes longer than this are stretches a recognizer missed; they say little about words, slots.
LONGEST_DISPUTE = 8
#: Share of rows whose recognizers' record is hidden: all of it, the candidate's, its rival's.
HIDDEN = (0.3, 0.1, 0.1)
#: Share of samples that are fitted on once more without what is known of English.
OTHER_LANGUAGE = 0.2
#: Number of trees, their leaves, and their learning rate: of the two passes over disputes, and for agreed words.
FIRST, SECOND, AGREED = (60, 24, 0.12), (150, 24, 0.08), (60, 14, 0.13)
THREADS = 2
#: Share of the agreed slots used: there are many, and they are easy.
AGREED_SHARE = 0.08


@dataclass(frozen=True)
class Rows:
    """Rows for one kind of trees, with what is right."""

    values: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class Case:
    """The evidence of one sample, and which of its readings are right."""

    evidence: Evidence
    right: np.ndarray
    fold: int
    size: int


@dataclass(frozen=True)
class English:
    """General English, from packages."""

    #: By word, its Zipf frequency.
    frequency: dict[str, float]
    #: Three words in a row.
    ngrams: NGrams

    def rare(self, words: Sequence[str]) -> np.ndarray:
        """log10 of the probability of each word."""
        frequency = [self.frequency.get(word, 0.0) for word in words]
        return self.ngrams.alone(self.ngrams.ids(words), rare(words, frequency))


def english(words: int = 60_000) -> English:
    """Zipf frequencies of the most common words (wordfreq), and n-grams (pocketsphinx)."""
    rates = wordfreq.get_frequency_dict("en", wordlist="large")
    common = sorted(rates, key=lambda word: (-rates[word], word))[:words]
    return English({word: round(math.log10(rates[word]) + 9, 2) for word in common}, ngrams.general())


def folds(calls: list[Call]) -> np.ndarray:
    """The fold of each call, spread evenly over each corpus."""
    random = np.random.default_rng(SEED)
    fold = np.empty(len(calls), dtype=np.int64)
    for corpus in sorted({call.corpus for call in calls}):
        here = np.array([number for number, call in enumerate(calls) if call.corpus == corpus])
        fold[random.permutation(here)] = np.arange(len(here)) % FOLDS
    return fold


def learn(calls: list[Call], counts: dict[int, Counts], chosen: set[int], general: English) -> Knowledge:
    """The tables, from some of the calls."""
    total: dict[str, Counts] = defaultdict(Counts)
    everywhere = Counts()
    for number in sorted(chosen):
        total[calls[number].corpus].add(counts[number])
        everywhere.add(counts[number])
    words = {
        corpus: {key: list(pair) for key, pair in sorted(part.words.items()) if pair[1] >= 4}
        for corpus, part in sorted(total.items())
    }
    past = {
        name: {
            key: _odds(right, total, _rate(everywhere.words[key]) if len(key) == 1 else _rate(kinds[key[0]]), 20)
            for key, (right, total) in sorted(kinds.items())
            if total >= 20
        }
        for name, kinds in sorted(everywhere.record.items())
    }
    said = {
        corpus: Counter(word for n in sorted(chosen) if calls[n].corpus == corpus for word in calls[n].said)
        for corpus in sorted(total)
    }
    fields = {
        corpus: ngrams.of_texts([calls[n].said for n in sorted(chosen) if calls[n].corpus == corpus], general.rare)
        for corpus in sorted(total)
    }
    lines = _rate_odds(past, {name: error_rate(calls, name, chosen) for name in past})
    return Knowledge(general.frequency, general.ngrams, fields, words, _topics(said), past, lines)


def error_rate(calls: list[Call], name: str, chosen: set[int]) -> float:
    """A recognizer's word error rate over some calls."""
    scores = [score_of(calls[number], name) for number in sorted(chosen) if name in calls[number].hypotheses]
    return pooled(scores).rate


@cache
def score_of(call: Call, name: str) -> Score:
    """A recognizer's word errors in a call."""
    return score(call.reference, " ".join(word.text for word in call.hypotheses[name].words))


def _rate_odds(past: dict[str, dict[str, float]], rates: dict[str, float]) -> dict[str, list[float]]:
    """By kind of dispute, intercept and slope of a recognizer's log odds over the log of its word error rate."""
    lines = {}
    for kind in "sida":
        names = [name for name in sorted(past) if kind in past[name]]
        if len(names) > 2:
            logs = [math.log(max(rates[name], LOWEST_RATE)) for name in names]
            slope, start = np.polyfit(logs, [past[name][kind] for name in names], 1)
            lines[kind] = [round(float(start), 3), round(float(slope), 3)]
    return lines


def _topics(said: dict[str, Counter[str]], least: int = 10) -> dict[str, dict[str, float]]:
    """Per corpus and word the log of how much more common it is there than on average over the corpora."""
    vocabulary = sorted(word for word, count in sum(said.values(), Counter()).items() if count >= least)
    share = {
        corpus: {w: (count[w] + 0.5) / (count.total() + 0.5 * len(vocabulary)) for w in vocabulary}
        for corpus, count in said.items()
    }
    mean = {word: sum(part[word] for part in share.values()) / len(share) for word in vocabulary}
    return {
        corpus: {word: round(math.log(part[word] / mean[word]), 2) for word in vocabulary}
        for corpus, part in share.items()
    }


class Counts:
    """How often readings were right, of how many: by kind and word, and by recognizer, kind and word."""

    def __init__(self) -> None:
        self.words: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self.record: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))

    def add(self, other: Counts) -> None:
        for mine, theirs in (
            (self.words, other.words),
            *((self.record[name], kinds) for name, kinds in other.record.items()),
        ):
            for key, (right, total) in theirs.items():
                pair = mine[key]
                pair[0] += right
                pair[1] += total


def count(data: list[Sample]) -> dict[int, Counts]:
    """Per call, from its pairs of recognizers."""
    counts: dict[int, Counts] = defaultdict(Counts)
    for part in data:
        if len(part.recognizers) == 2:
            _count_disputes(part, counts[part.call].words, counts[part.call].record)
            _count_agreed(part, counts[part.call].words, counts[part.call].record)
    return counts


def _rate(tally: list[int]) -> float:
    return (tally[0] + 1) / (tally[1] + 2)


def _odds(right: int, total: int, usual: float, strength: float) -> float:
    """Log odds of a share that leans on the usual one, until there is more evidence than `strength`."""
    share = (right + usual * strength) / (total + strength)
    return round(math.log(share / (1 - share)), 3)


def _count_disputes(part: Sample, tally: dict[str, list[int]], record: dict[str, dict[str, list[int]]]) -> None:
    network = part.network
    names, key = [*network.names, ""], network.key
    silent = np.append(network.silent, True)
    disputes = runs(~network.unanimous)
    short = [slot for first, end in disputes if end - first <= LONGEST_DISPUTE for slot in range(first, end)]
    for slot in short:
        if silent[key[slot]].all():
            continue
        for mine, other in ((0, 1), (1, 0)):
            a, b = int(key[slot, mine]), int(key[slot, other])
            kind = "s" if a >= 0 and b >= 0 else "i" if a >= 0 else "d"
            word = f"{kind} {names[a] or names[b]}"
            past = record[network.columns[mine].hypothesis.provider]
            for counter in (tally[kind], tally[word], tally[f"{kind} {names[a]}|{names[b]}"], past[kind], past[word]):
                counter[0] += int(part.truth[slot] == a)
                counter[1] += 1


def _count_agreed(part: Sample, tally: dict[str, list[int]], record: dict[str, dict[str, list[int]]]) -> None:
    network = part.network
    slots = np.flatnonzero(network.unanimous & ~np.append(network.silent, True)[network.key[:, 0]])
    for key, truth in zip(network.key[slots, 0].tolist(), part.truth[slots].tolist(), strict=True):
        for counter in (tally["a"], tally[f"a {network.names[key]}"]):
            counter[0] += key == truth
            counter[1] += 1
    right = int((network.key[slots, 0] == part.truth[slots]).sum())
    for column in network.columns:
        counter = record[column.hypothesis.provider]["a"]
        counter[0] += right
        counter[1] += len(slots)


def cases(data: list[Sample], knowledge: Knowledge, fold: int, random: np.random.Generator) -> Iterator[Case]:
    """The evidence of samples of one fold. A part of them comes once more as if it were in another language."""
    other = knowledge.other_language(knowledge.frequency)
    for part in data:
        if len(part.recognizers) < 2:
            continue
        for known in (knowledge, other) if random.random() < OTHER_LANGUAGE else (knowledge,):
            evidence = disputed_evidence(View(part.network, known))
            hidden = replace(evidence, rows=hide(evidence.rows, random))
            right = part.network.key[evidence.slot, evidence.column] == part.truth[evidence.slot]
            yield Case(hidden, right, fold, len(part.recognizers))


def agreed_rows(data: list[Sample], knowledge: Knowledge, random: np.random.Generator) -> Iterator[Rows]:
    """A part of the rows about agreed words."""
    other = knowledge.other_language(knowledge.frequency)
    for part in data:
        known = other if random.random() < OTHER_LANGUAGE / 2 else knowledge
        values, slot = agreed_evidence(View(part.network, known))
        pick = random.random(len(slot)) < AGREED_SHARE
        yield Rows(values[pick], (part.network.key[slot, 0] == part.truth[slot])[pick])


def hide(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Rows with the record of some recognizers unknown."""
    values = values.copy()
    lot = random.random(len(values))
    everything, mine, theirs = np.cumsum(HIDDEN)
    own, other, difference = RECORD_COLUMNS
    for columns, hidden in (
        (own, (lot < mine)),
        (other, (lot < everything) | ((lot >= mine) & (lot < theirs))),
        (difference, lot < theirs),
    ):
        values[np.ix_(hidden, columns)] = np.nan
    return values


def passes(found: list[Case]) -> Passes:
    """Trees for both passes. The second learns from what a first pass says about calls that it has not seen."""
    values = np.concatenate([case.evidence.rows for case in found])
    right = np.concatenate([case.right for case in found])
    fold = np.repeat([case.fold for case in found], [len(case.right) for case in found])
    guess = np.zeros(len(right))
    for number in np.unique(fold):
        here = fold == number
        guess[here] = grow(Rows(values[~here], right[~here]), *FIRST).probability(values[here])
    ends = np.cumsum([len(case.right) for case in found])
    more = [
        first_pass_evidence(case.evidence, part) for case, part in zip(found, np.split(guess, ends[:-1]), strict=True)
    ]
    first = grow(Rows(values, right), *FIRST)
    return Passes(first, grow(Rows(np.concatenate([values, np.concatenate(more)], axis=1), right), *SECOND))


def grow(part: Rows, rounds: int, leaves: int, rate: float) -> Trees:
    """Boosted trees that tell right from wrong: LightGBM (Ke et al. 2017), with fixed seeds, so repeatable."""
    model = lightgbm.train(
        {
            "objective": "binary", "learning_rate": rate, "num_leaves": leaves, "min_data_in_leaf": 150, "lambda_l2": 5,
            "feature_fraction": 0.5, "bagging_fraction": 0.6, "bagging_freq": 1, "max_bin": 127, "seed": SEED,
            "deterministic": True, "force_row_wise": True, "num_threads": THREADS, "verbose": -1,
        },
        lightgbm.Dataset(np.nan_to_num(part.values, nan=UNKNOWN), part.right.astype(np.float32)),
        rounds,
    )  # fmt: skip
    return Trees(0.0, tuple(_tree(tree["tree_structure"]) for tree in model.dump_model()["tree_info"]))


def _tree(root: dict[str, Any]) -> Tree:
    """A tree of LightGBM as leaves from left to right and, per test, the leaves that stay when it holds."""
    feature, threshold, keep, leaves = [], [], [], []

    def visit(node: dict[str, Any]) -> int:
        """Returns the bits of the leaves below."""
        if "leaf_value" in node:
            leaves.append(node["leaf_value"])
            return 1 << (len(leaves) - 1)
        place = len(feature)
        feature.append(node["split_feature"])
        threshold.append(node["threshold"])
        keep.append(0)
        left = visit(node["left_child"])
        keep[place] = 0xFFFFFFFF & ~left
        return left | visit(node["right_child"])

    visit(root)
    return Tree(
        np.array(feature, dtype=np.int64), np.array(threshold, dtype=np.float32), np.array(keep, dtype=np.uint32),
        np.array(leaves, dtype=np.float32),
    )  # fmt: skip


def fit(
    calls: list[Call], chosen: set[int], general: English, without: Collection[str] = (), share: float = 1.0
) -> Calibration:
    """A calibration from some of the calls (their numbers), and from all recognizers but some. `share` of the usual
    number of sets is fitted on.
    """
    fold, random = folds(calls), np.random.default_rng(SEED)
    data = drawn(calls, chosen, without, share)
    counts = count(data)
    disputed: list[Case] = []
    agreed: list[Rows] = []
    for number in range(FOLDS):
        mine = {call for call in chosen if fold[call] == number}
        knowledge = learn(calls, counts, chosen - mine, general)
        here = [part for part in data if part.call in mine]
        disputed += cases(here, knowledge, number, random)
        agreed += agreed_rows(here, knowledge, random)
    sure = Rows(*(np.concatenate([getattr(part, name) for part in agreed]) for name in ("values", "right")))
    sure.values[random.random(len(sure.values)) < HIDDEN[0], AGREED_RECORD] = np.nan
    return Calibration(
        learn(calls, counts, chosen, general),
        passes([case for case in disputed if case.size == 2]),
        passes([case for case in disputed if case.size > 2]),
        grow(sure, *AGREED),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, default=CORPORA)
    parser.add_argument("--output", type=Path, default=TARGET, help="folder for the two files of the calibration")
    parser.add_argument("--every", type=int, default=1, help="only one call of so many, for a quick look")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the output would be another")
    options = parser.parse_args()
    calls = load(options.corpora)[:: options.every]
    fitted = fit(calls, set(range(len(calls))), english())
    provenance = {
        "command": "python -m bench.fit_reconciler",
        "corpora": {
            name: sum(call.corpus == name for call in calls) for name in sorted({call.corpus for call in calls})
        },
        "sources": [
            "Earnings-21 (Del Rio et al. 2021), CC BY-SA 4.0",
            "PriMock57 (Papadopoulos Korfiatis et al. 2022), CC BY 4.0; hypotheses from Omi Health, MIT",
            "wordfreq (Speer 2022), CC BY-SA 4.0",
            "pocketsphinx (CMU Sphinx), BSD: n-grams of US English, pruned",
        ],
        "lightgbm": lightgbm.__version__,
        "figures": "bench/results/reconcile.md, by `make bench-reconcile`: on calls and recognizers that were left out",
    }
    contents = dump(replace(fitted, provenance=provenance))
    for path, content in zip((options.output / TREES, options.output / NGRAMS), contents, strict=True):
        if not options.check:
            path.write_bytes(content)
        elif path.read_bytes() != content:
            raise SystemExit(f"{path} is not what these corpora, this seed and these versions give")
        print(f"{path}: {len(content)} bytes{', the same as before' if options.check else ''}")


if __name__ == "__main__":
    main()
