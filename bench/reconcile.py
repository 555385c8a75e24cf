"""How right a reconciled transcript is: `make bench-reconcile`. Writes bench/results/reconcile.md, .svg and .json.

All pairs and triples of recognizers of the shared corpora, always on calls that were not fitted on; and recognizers
that were not fitted on. Word error rates are pooled over calls, counted with agents/text/score.py, which keeps to
Whisper's English normaliser.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein

from agents.text.calibrate import Calibration
from agents.text.network import Network
from agents.text.normalise import is_silent, tokenise
from agents.text.reconcile import reconcile
from agents.text.score import bootstrap, words
from bench.corpora import CORPORA, Call, Sample, load, samples
from bench.fit_reconciler import FOLDS, english, fit, folds
from bench.reconcile_report import plot, report
from schemas.words import Word

RESULTS = Path(__file__).parent / "results"
WAYS = ("best single", "ROVER", "longest", "ours", "oracle")
#: Folds whose calls test the recognizers that were left out; the others fit.
LEFT_OUT_FOLDS = (0, 1)


@dataclass
class Tally:
    """Word errors of one set of recognizers, per call: of each recognizer, and of each way to combine them."""

    calls: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    errors: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def gain(self, recognizers: tuple[str, ...], way: str = "ours", draw: np.ndarray | slice = slice(None)) -> float:
        """How much lower the error rate is than the best single recognizer's, pooled over (some) calls."""
        best = min(np.array(self.errors[name])[draw].sum() for name in recognizers)
        return 1 - float(np.array(self.errors[way])[draw].sum()) / max(float(best), 1.0)


class Scorer:
    """Counts errors against the references, with Whisper's normaliser."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.known: dict[str, int] = {}
        self.references = [self.tokens(call.reference) for call in calls]
        self.single: dict[tuple[int, str], int] = {}

    def tokens(self, text: str) -> array[int]:
        return array("q", [self.known.setdefault(word, len(self.known)) for word in words(text)])

    def errors(self, call: int, text: str) -> int:
        return int(Levenshtein.distance(self.references[call], self.tokens(text)))

    def recognizer(self, call: int, name: str) -> int:
        if (call, name) not in self.single:
            heard = self.calls[call].hypotheses[name].words
            self.single[call, name] = self.errors(call, " ".join(word.text for word in heard))
        return self.single[call, name]


def add(tally: Tally, part: Sample, scorer: Scorer, calibration: Calibration, reliability: list[np.ndarray]) -> None:
    """Score one call of one set of recognizers in every way."""
    call = scorer.calls[part.call]
    result = reconcile([call.hypotheses[name] for name in part.recognizers], calibration)
    tally.calls.append(part.call)
    tally.words.append(len(scorer.references[part.call]))
    for name in part.recognizers:
        tally.errors[name].append(scorer.recognizer(part.call, name))
    tally.errors["ours"].append(scorer.errors(part.call, result.text))
    for way, text in (("ROVER", voted(part, "")), ("longest", voted(part, "longest")), ("oracle", oracle(part))):
        tally.errors[way].append(scorer.errors(part.call, text))
    reliability.append(checked(result.words, scorer, part.call))


def voted(part: Sample, tie: str) -> str:
    """Plain voting over the network. A tie goes to the first recognizer (NIST's rover), or the longest word (crowd-
    kit).
    """
    network = part.network
    order = sorted(range(len(network.columns)), key=lambda k: network.columns[k].hypothesis.provider)
    names = [*network.names, ""]
    said = []
    for key in network.key[:, order].tolist():
        votes = [(key.count(k), len(names[k]), names[k]) if tie else (key.count(k), -key.index(k)) for k in key]
        said.append(names[key[votes.index(max(votes))]])
    return " ".join(filter(None, said))


def oracle(part: Sample) -> str:
    """The right reading wherever somebody had it, else the first recognizer's."""
    network: Network = part.network
    names = [*network.names, ""]
    right = (network.key == part.truth[:, None]).any(axis=1)
    keys = np.where(right, part.truth, network.key[:, 0])
    return " ".join(filter(None, (names[key] for key in keys.tolist())))


def checked(said: tuple[Word, ...], scorer: Scorer, call: int) -> np.ndarray:
    """(tokens, 2): the probability given to each scored token of a transcript, and whether it is right."""
    found = tokenise([word.text for word in said])
    chance = [min(word.confidence or 0.0 for word in said[a:b]) for a, b in itertools.pairwise(found.first_word)]
    scored = [(key, chance[group]) for key, group in zip(found.keys, found.group, strict=True) if not is_silent(key)]
    tokens = array("q", [scorer.known.setdefault(key, len(scorer.known)) for key, _ in scored])
    right = np.zeros(len(tokens))
    for op in Levenshtein.opcodes(scorer.references[call], tokens):
        if op.tag == "equal":
            right[op.dest_start : op.dest_end] = 1
    return np.stack([np.array([p for _, p in scored]), right], axis=1)


def calibration_error(pairs: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean distance of probability and share of right words, over bins of probability."""
    place = np.minimum((pairs[:, 0] * bins).astype(int), bins - 1)
    return float(
        sum(
            abs(pairs[place == b, 0].mean() - pairs[place == b, 1].mean()) * (place == b).mean()
            for b in np.unique(place)
        )
    )


def share_of_errors(pairs: np.ndarray, share: float = 0.1) -> float:
    """The share of the wrong words among which are the words with the lowest probability."""
    order = np.argsort(pairs[:, 0], kind="stable")
    wrong = 1 - pairs[order, 1]
    return float(wrong[: int(len(wrong) * share)].sum() / max(wrong.sum(), 1.0))


def cross_validated(calls: list[Call], data: list[Sample], scorer: Scorer) -> tuple[dict, dict]:
    """Tallies by (corpus, recognizers), and (probability, right) of every word by (corpus, number of recognizers)."""
    tallies: dict = defaultdict(Tally)
    reliability: dict = defaultdict(list)
    fold, general = folds(calls), english()
    for number in range(FOLDS):
        fitted = fit(calls, data, {call for call in range(len(calls)) if fold[call] != number}, general)
        for part in data:
            if fold[part.call] == number and len(part.recognizers) > 1:
                corpus = calls[part.call].corpus
                into = reliability[corpus, len(part.recognizers)]
                add(tallies[corpus, part.recognizers], part, scorer, fitted, into)
    return tallies, reliability


def left_out(calls: list[Call], data: list[Sample], scorer: Scorer) -> dict:
    """Tallies by (corpus, recognizer left out, number of recognizers), with a calibration that never saw that
    recognizer.
    """
    fold, general = folds(calls), english()
    chosen = {call for call in range(len(calls)) if fold[call] not in LEFT_OUT_FOLDS}
    names = {
        corpus: sorted({n for c in calls if c.corpus == corpus for n in c.hypotheses})
        for corpus in {c.corpus for c in calls}
    }
    rounds = max(map(len, names.values()))
    tallies: dict = defaultdict(Tally)
    for turn in range(rounds):
        out = {corpus: list_[turn % len(list_)] for corpus, list_ in sorted(names.items())}
        fitted = fit(calls, [p for p in data if not set(out.values()) & set(p.recognizers)], chosen, general)
        for part in data:
            corpus = calls[part.call].corpus
            new = turn < len(names[corpus])
            if part.call not in chosen and out[corpus] in part.recognizers and len(part.recognizers) > 1 and new:
                add(tallies[corpus, part.recognizers, out[corpus]], part, scorer, fitted, [])
    return tallies


def cost(corpora: Path) -> list[tuple[int, float, float]]:
    """(recognizers, seconds, MB) for a call of an hour, each measured in a process of its own."""
    command = [sys.executable, "-m", "bench.reconcile_hour", str(corpora)]
    return [
        (size, *json.loads(subprocess.run([*command, str(size)], check=True, capture_output=True).stdout))
        for size in (2, 3, 4)
    ]


def summary(tallies: dict) -> dict[str, dict]:
    """Per corpus and number of recognizers: gains over the best single recognizer, with a bootstrap interval of their
    mean.
    """
    groups = defaultdict(list)
    for (corpus, names, *_), tally in tallies.items():
        groups[f"{corpus}, {len(names)} recognizers"].append((names, tally))
    found = {}
    for group, members in sorted(groups.items()):
        gains = {way: [tally.gain(names, way) for names, tally in members] for way in WAYS[1:]}
        calls = sorted(members[0][1].calls)
        place = [{call: at for at, call in enumerate(tally.calls)} for _, tally in members]

        def mean(draw: np.ndarray, members: list = members, calls: list = calls, place: list = place) -> float:
            return float(
                np.mean(
                    [
                        tally.gain(names, "ours", np.array([at[calls[d]] for d in draw if calls[d] in at]))
                        for (names, tally), at in zip(members, place, strict=True)
                    ]
                )
            )

        found[group] = {
            "sets": len(members),
            **{way: float(np.mean(values)) for way, values in gains.items()},
            "lowest": min(gains["ours"]),
            "interval": bootstrap(mean, len(calls), 300),
        }
    return found


def rates(tallies: dict) -> list[dict]:
    """Error rates of every set."""
    found = []
    for (corpus, names), tally in sorted(tallies.items(), key=lambda item: (item[0][0], len(item[0][1]), item[0][1])):
        total = sum(tally.words)
        found.append({
            "set": f"{corpus}: {' + '.join(names)}",
            "single": [sum(tally.errors[name]) / total for name in names],
            **{way: sum(tally.errors[way]) / total for way in WAYS[1:]},
            "gain": tally.gain(names),
        })  # fmt: skip
    return found


def compared(out: dict, known: dict) -> dict[str, tuple[float, float]]:
    """Mean gain with a recognizer left out, and with it known, on the same calls."""
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (corpus, names, _), tally in out.items():
        whole = known[corpus, names]
        same = np.array([whole.calls.index(call) for call in tally.calls])
        groups[f"{corpus}, {len(names)} recognizers"].append((tally.gain(names), whole.gain(names, "ours", same)))
    return {group: tuple(np.mean(values, axis=0).tolist()) for group, values in sorted(groups.items())}


def measure(calls: list[Call], data: list[Sample], corpora: Path) -> Iterator[dict]:
    """The figures, first without what takes longest: recognizers that were left out."""
    scorer = Scorer(calls)
    tallies, reliability = cross_validated(calls, data, scorer)
    pairs = {
        f"{corpus}, {size} recognizers": np.concatenate(parts) for (corpus, size), parts in sorted(reliability.items())
    }
    found = {
        "summary": summary(tallies),
        "reliability": {g: (len(p), calibration_error(p), share_of_errors(p)) for g, p in pairs.items()},
        "left out": {},
        "cost": cost(corpora),
        "sets": rates(tallies),
    }
    yield found
    yield {**found, "left out": compared(left_out(calls, data, scorer), tallies)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, default=CORPORA)
    options = parser.parse_args()
    calls = load(options.corpora)
    RESULTS.mkdir(exist_ok=True)
    for found in measure(calls, samples(calls), options.corpora):
        (RESULTS / "reconcile.json").write_text(json.dumps(found, indent=1) + "\n")
        (RESULTS / "reconcile.md").write_text(report(found))
        (RESULTS / "reconcile.svg").write_text(plot(found))
    print(report(found))


if __name__ == "__main__":
    main()
