"""How right a reconciled transcript is: `make bench-reconcile`. Writes bench/results/reconcile.md, .svg and .json.

Random sets of recognizers of the shared corpora, good with bad, on calls that were not fitted on, by calibrations that
do not know a third of the recognizers of `primock57`. Word error rates are pooled over calls, counted with
agents/text/score.py, which keeps to Whisper's English normaliser.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import subprocess
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
from rapidfuzz.distance import Levenshtein

from agents.text.alignment.network import Network
from agents.text.calibration.calibrate import Calibration
from agents.text.normalisation.normalise import is_silent, tokenise
from agents.text.phrases import Disputes
from agents.text.reconcile import Compared, compare
from agents.text.score import bootstrap, words
from bench import remaining
from bench.corpora import CORPORA, SEED, Call, Sample, load, sample
from bench.fit_reconciler import English, english, fit
from bench.reconcile_report import plot, report
from bench.rover import rover
from schemas.words import Word

RESULTS = Path(__file__).parent / "results"
WAYS = ("best single", "rover", "ROVER", "longest", "ours", "oracle")
#: Each rotation tests a third of the calls, and is fitted on the others without a third of the recognizers.
ROTATIONS = 3
#: By corpus and number of recognizers, how many sets are drawn at most. `earnings21` has 7 recognizers, which all
#: rotations know, `primock57` 28.
TESTED = {"earnings21": {2: 21, 3: 8}, "primock57": {2: 100, 3: 40, 5: 20}}
#: Two recognizers are close if the worse one has at most so many times the errors of the better one.
CLOSE = 1.2


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

    def close(self, recognizers: tuple[str, ...]) -> bool:
        """Whether the second best recognizer is nearly as good as the best."""
        first, second, *_ = sorted(sum(self.errors[name]) for name in recognizers)
        return second <= CLOSE * first


class Scorer:
    """Counts errors against the references, with Whisper's normaliser."""

    def __init__(self, calls: list[Call], general: English, program: str | None = None) -> None:
        self.calls, self.program = calls, program
        self.frequency = general.frequency
        self.known: dict[str, int] = {}
        self.names = [remaining.names(call) for call in calls]
        #: Per corpus, what our errors are.
        self.remaining: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        #: Per corpus and number of recognizers, the disputes of several words by how they were decided.
        self.mixing: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
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

    def explain(self, call: int, text: str) -> None:
        """Count what the errors of a transcript of ours are."""
        heard, vocabulary = self.tokens(text), list(self.known)
        found = remaining.errors(self.references[call], heard, vocabulary, self.names[call], self.frequency)
        self.remaining[self.calls[call].corpus].update(found)


def add(tally: Tally, part: Sample, scorer: Scorer, calibration: Calibration, reliability: list[np.ndarray]) -> str:
    """Score one call of one set of recognizers in every way; returns our transcript."""
    call = scorer.calls[part.call]
    compared = compare([call.hypotheses[name] for name in part.recognizers], calibration)
    result = compared.decided
    scorer.mixing[call.corpus, len(part.recognizers)].update(mixing(compared, part))
    tally.calls.append(part.call)
    tally.words.append(len(scorer.references[part.call]))
    for name in part.recognizers:
        tally.errors[name].append(scorer.recognizer(part.call, name))
    tally.errors["ours"].append(scorer.errors(part.call, result.text))
    for way, text in (("ROVER", voted(part, "")), ("longest", voted(part, "longest")), ("oracle", oracle(part))):
        tally.errors[way].append(scorer.errors(part.call, text))
    if scorer.program:
        tally.errors["rover"].append(scorer.errors(part.call, rover(scorer.program, part)))
    reliability.append(checked(result.words, scorer, part.call))
    return result.text


def mixing(compared: Compared, part: Sample) -> Counter[str]:
    """How many disputes of several words are decided for one recognizer, and how many mix, with more, as many or fewer
    right slots than the best recognizer of the dispute has.
    """
    network, key = part.network, part.network.key
    disputes = Disputes.of(network)
    result = key[np.arange(len(key)), compared.chosen][:, None]
    pure = (disputes.total(key != result) == 0).any(axis=1)
    right = disputes.total(key == part.truth[:, None])
    gain = disputes.total(result[:, 0] == part.truth) - right.max(axis=1)
    kinds = np.where(pure, "one", np.where(gain > 0, "better", np.where(gain < 0, "worse", "equal")))
    return Counter(kinds.tolist())


def voted(part: Sample, tie: str) -> str:
    """Plain voting over our network, not over rover's or crowd-kit's own alignment. A tie goes to the first recognizer,
    as in NIST's rover, or to the longest word, as in crowd-kit.
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


def tested(calls: list[Call]) -> dict[str, list[tuple[str, ...]]]:
    """The sets of recognizers that are measured, by corpus."""
    sets: dict[str, list[tuple[str, ...]]] = {}
    for corpus, counts in TESTED.items():
        names = sorted({name for call in calls if call.corpus == corpus for name in call.hypotheses})
        random = Random(SEED)
        sets[corpus] = []
        for size, count in counts.items():
            every = list(itertools.combinations(names, size))
            sets[corpus] += sorted(random.sample(every, min(count, len(every))))
    return sets


def rotations(calls: list[Call]) -> Iterator[tuple[set[int], set[str]]]:
    """Of each rotation: the calls that it tests (their numbers), and the recognizers that its fit does not know."""
    random = np.random.default_rng(SEED)
    turn = np.empty(len(calls), dtype=np.int64)
    for corpus in sorted({call.corpus for call in calls}):
        here = np.array([number for number, call in enumerate(calls) if call.corpus == corpus])
        turn[random.permutation(here)] = np.arange(len(here)) % ROTATIONS
    names = random.permutation(sorted({n for call in calls if call.corpus == "primock57" for n in call.hypotheses}))
    for number in range(ROTATIONS):
        yield set(np.flatnonzero(turn == number).tolist()), set(names[number::ROTATIONS].tolist())


def held_out(calls: list[Call], scorer: Scorer, general: English, share: float) -> tuple[dict, dict]:
    """Tallies by (corpus, recognizers), and (probability, right) of every word by (corpus, number of recognizers)."""
    tallies: dict = defaultdict(Tally)
    reliability: dict = defaultdict(list)
    sets = tested(calls)
    for mine, unknown in rotations(calls):
        fitted = fit(calls, set(range(len(calls))) - mine, general, unknown, share)
        for number in sorted(mine):
            call = calls[number]
            for names in sets[call.corpus]:
                if call.hypotheses.keys() >= set(names):
                    part = sample(number, call, names)
                    into = reliability[call.corpus, len(names)]
                    scorer.explain(number, add(tallies[call.corpus, names], part, scorer, fitted, into))
    return tallies, reliability


def learning_curve(calls: list[Call], scorer: Scorer, general: English, share: float) -> list[tuple[int, dict]]:
    """(calls fitted on, summary on the calls of the first rotation) for ever more of the other calls."""
    mine, unknown = next(rotations(calls))
    others = np.random.default_rng(SEED).permutation(sorted(set(range(len(calls))) - mine)).tolist()
    sets, curve = tested(calls), []
    for count in (len(others) // 4, len(others) // 2, len(others)):
        fitted, tallies = fit(calls, set(others[:count]), general, unknown, share), defaultdict(Tally)
        for number in sorted(mine):
            for names in sets[calls[number].corpus]:
                if calls[number].hypotheses.keys() >= set(names):
                    part = sample(number, calls[number], names)
                    add(tallies[calls[number].corpus, names], part, scorer, fitted, [])
        curve.append((count, {group: s["ours"] for group, s in summary(tallies, 0).items()}))
    return curve


def cost(corpora: Path) -> list[tuple[int, float, float]]:
    """(recognizers, seconds, MB) for a call of an hour, each measured in a process of its own."""
    command = [sys.executable, "-m", "bench.reconcile_hour", str(corpora)]
    return [
        (size, *json.loads(subprocess.run([*command, str(size)], check=True, capture_output=True).stdout))
        for size in (2, 3, 5)
    ]


def summary(tallies: dict, rounds: int = 300) -> dict[str, dict]:
    """Per corpus and number of recognizers: gains over the best single recognizer, with a bootstrap interval of their
    mean.
    """
    groups = defaultdict(list)
    for (corpus, names, *_), tally in tallies.items():
        groups[f"{corpus}, {len(names)} recognizers"].append((names, tally))
    found = {}
    for group, members in sorted(groups.items()):
        gains = {way: [tally.gain(names, way) for names, tally in members] for way in _ways(members[0][1])}
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
            "close": _mean([tally.gain(names) for names, tally in members if tally.close(names)]),
            "worse": float(np.mean([gain < -0.01 for gain in gains["ours"]])),
            "lowest": min(gains["ours"]),
            "interval": bootstrap(mean, len(calls), rounds) if rounds else None,
        }
    return found


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _ways(tally: Tally) -> list[str]:
    return [way for way in WAYS[1:] if way in tally.errors]


def rates(tallies: dict) -> list[dict]:
    """Error rates of every set."""
    found = []
    for (corpus, names), tally in sorted(tallies.items(), key=lambda item: (item[0][0], len(item[0][1]), item[0][1])):
        total = sum(tally.words)
        found.append({
            "set": f"{corpus}: {' + '.join(names)}",
            "single": [sum(tally.errors[name]) / total for name in names],
            **{way: sum(tally.errors[way]) / total for way in _ways(tally)},
            "gain": tally.gain(names),
        })  # fmt: skip
    return found


def measure(calls: list[Call], corpora: Path, program: str | None, share: float, curve: bool) -> Iterator[dict]:
    """The figures, first without the learning curve."""
    general = english()
    scorer = Scorer(calls, general, program)
    tallies, reliability = held_out(calls, scorer, general, share)
    found = {
        "summary": summary(tallies),
        "reliability": reliable(reliability),
        "curve": [],
        "remaining": {
            corpus: sorted(([*what, n] for what, n in count.items()), key=lambda row: (-row[2], row))
            for corpus, count in sorted(scorer.remaining.items())
        },
        "mixing": {f"{corpus}, {size} recognizers": dict(c) for (corpus, size), c in sorted(scorer.mixing.items())},
        "share": share,
        "cost": cost(corpora),
        "sets": rates(tallies),
    }
    yield found
    if curve:
        scorer.program = None
        found["curve"] = learning_curve(calls, scorer, general, share)
        yield found


def reliable(reliability: dict) -> dict[str, tuple[int, float, float]]:
    """Per corpus and number of recognizers: words, calibration error, share of the errors among the least probable."""
    pairs = {
        f"{corpus}, {size} recognizers": np.concatenate(parts) for (corpus, size), parts in sorted(reliability.items())
    }
    return {g: (len(p), calibration_error(p), share_of_errors(p)) for g, p in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, default=CORPORA)
    parser.add_argument(
        "--rover", default=shutil.which("rover"), help="NIST's rover, of SCTK; default: that in the PATH"
    )
    parser.add_argument("--every", type=int, default=1, help="only one call of so many, for a quick look")
    parser.add_argument("--share", type=float, default=1.0, help="fit on this share of the sets, for a quick look")
    parser.add_argument("--curve", action="store_true", help="measure the learning curve, too")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures")
    options = parser.parse_args()
    calls = load(options.corpora)[:: options.every]
    options.output.mkdir(exist_ok=True)
    for found in measure(calls, options.corpora, options.rover, options.share, options.curve):
        (options.output / "reconcile.json").write_text(json.dumps(found, indent=1) + "\n")
        (options.output / "reconcile.md").write_text(report(found))
        (options.output / "reconcile.svg").write_text(plot(found))
    print(report(found))


if __name__ == "__main__":
    main()
