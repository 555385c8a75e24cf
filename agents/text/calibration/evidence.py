"""Features of each reading of a disputed slot, from which the trees compute its probability.

They need no reference transcript, and no recognizer needs to be known from the fit.

There is one row per candidate: a slot and a distinct reading of it, which may be "nothing". It is built from a table of
facts per slot and column: the facts of the candidate's supporters, those of the supporters of its strongest rival,
their differences, and facts about the slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz.distance import JaroWinkler, Levenshtein
from rapidfuzz.process import cpdist

from agents.text.alignment.network import spoken
from agents.text.calibration.knowledge import topic
from agents.text.calibration.language import Language
from agents.text.normalisation.sound import sound

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from agents.text.alignment.network import Column, Network
    from agents.text.calibration.knowledge import Knowledge

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]
    Flags = NDArray[np.bool_]

#: Slots between equal tokens of two columns up to which they may be the same token in another order.
NEARBY = 12

#: Kinds of dispute, from the view of a reading: its rival is another word; its rival is nothing; it is nothing itself.
SUBSTITUTION, INSERTION, DELETION = "s", "i", "d"


@dataclass(frozen=True)
class Evidence:
    """The features of candidates: `rows[c]` belongs to the reading of column `column[c]` in slot `slot[c]`."""

    rows: Floats
    slot: Ints
    column: Ints


class View:
    """A network without fillers and punctuation, and what is known of its words."""

    def __init__(self, network: Network, knowledge: Knowledge) -> None:
        #: The network, and the index of each of its slots in the original one.
        self.network, self.original = spoken(network)
        self.knowledge = knowledge
        self.topic = topic(self.network, knowledge)
        self.language = Language(self.network, knowledge)
        self.length = np.array([*map(len, network.names), 0], dtype=np.float32)


def disputed_evidence(view: View) -> Evidence:
    """The features of every reading of every disputed slot."""
    network, original, knowledge = view.network, view.original, view.knowledge
    slots = np.flatnonzero(~network.unanimous)
    facts = _Facts(view, slots)
    same = facts.key[:, :, None] == facts.key[:, None, :]
    votes = same.sum(axis=2)
    first = ~np.tril(same, -1).any(axis=2)
    rival = _rivals(facts, same, votes)
    row, column = np.nonzero(first)
    against = rival[row, column]
    mine, theirs = same[row, column], same[row, against]
    sides = facts.learned(
        *(np.concatenate(both) for both in ((row, row), (column, against), (against, column), (mine, theirs)))
    )
    own = np.concatenate([facts.per_column(row, mine), sides[: len(row)]], axis=1)
    other = np.concatenate([facts.per_column(row, theirs), sides[len(row) :]], axis=1)
    pair = facts.per_pair(row, column, against)
    share = votes / same.shape[1]
    count = np.stack([share[row, column], share[row, against], np.full(len(row), same.shape[1])], axis=1)
    rows = np.concatenate(
        [
            count,
            own,
            other,
            (own - other)[:, DIFFERENCES],
            pair,
            facts.runs.slot_facts[row],
            facts.field(row),
            _sides(network, knowledge, mine, theirs),
        ],
        axis=1,
        dtype=np.float32,
    )
    return Evidence(rows, original[slots[row]], column)


def _sides(network: Network, knowledge: Knowledge, mine: Flags, theirs: Flags) -> Floats:
    """(candidates, recognizers with a record): 1 for a supporter, -1 for a supporter of the rival, 0 for others."""
    providers = sorted(knowledge.record)
    sides = np.zeros((len(mine), len(providers)), dtype=np.float32)
    for k, column in enumerate(network.columns):
        if column.hypothesis.provider in knowledge.record:
            sides[:, providers.index(column.hypothesis.provider)] += mine[:, k].astype(np.float32) - theirs[:, k]
    return sides


def _rivals(facts: _Facts, same: Flags, votes: Ints) -> Ints:
    """(slots, columns): the column with the strongest other reading: most votes, then most probable in its sentence."""
    strength = votes + np.clip(facts.path / 100, -0.4, 0.0)
    contest = np.where(same, -np.inf, strength[:, None, :])
    rivals: Ints = contest.argmax(axis=2)
    return rivals


#: Facts per column whose difference between candidate and rival is a feature, too.
DIFFERENCES = [1, 3, 4, 5, 6, 7, 19, 20, 21, 22, 24, 26, 27]


#: Facts per column; and the indexes in a row of the last two, the recognizers' record: of the candidate, of the rival,
#: and their differences.
FACTS = 28
RECORD_COLUMNS = (
    [3 + FACTS - 2, 3 + FACTS - 1],
    [3 + 2 * FACTS - 2, 3 + 2 * FACTS - 1],
    [3 + 2 * FACTS + len(DIFFERENCES) - 2, 3 + 2 * FACTS + len(DIFFERENCES) - 1],
)


#: The index in a row from which the features name recognizers; see `_sides`.
SIDES = 3 + 2 * FACTS + len(DIFFERENCES) + 4 + 8 + 1


class _Facts:
    """Facts per disputed slot and column."""

    def __init__(self, view: View, slots: Ints) -> None:
        network, knowledge = view.network, view.knowledge
        self.network, self.knowledge, self.slots, self.topic = network, knowledge, slots, view.topic
        self.names = network.names
        self.records = [knowledge.record.get(column.hypothesis.provider) for column in network.columns]
        self.key = network.key[slots]
        self.at = network.grid[slots]
        self.there = self.at >= 0
        #: The position of the next token in each column.
        self.next = np.cumsum(network.grid >= 0, axis=0)[slots]
        self.language = view.language
        self.zipf = self.language.zipf
        self.length = view.length
        self.agreed = network.key[network.unanimous, 0]
        self.agreed_count = np.bincount(self.agreed[self.agreed >= 0], minlength=len(self.names) + 1)
        self.runs = _Runs(network, slots)
        self.table = self._table()

    def _table(self) -> Floats:
        """(slots, columns, facts): all facts that do not depend on the rival."""
        general = self._paths(self.language.bigram, 1)
        domain = self._paths(self.language.domain, 2)
        call = self._paths(self.language.call, 1)
        self.path = general
        key = self.key
        everywhere = np.stack([np.bincount(c.key, minlength=len(self.names) + 1) for c in self.network.columns], axis=1)
        counted = everywhere[key]  # slots, columns, columns
        own = np.take_along_axis(counted, np.arange(key.shape[1])[None, :, None], axis=2)[..., 0]
        others = (counted.sum(axis=2) - own) / max(key.shape[1] - 1, 1)
        traits = np.broadcast_to(self._traits(), (*key.shape, 3))
        surface = self._surface()
        parts = [
            self.there, self.zipf[key], self.length[key], general, domain, call,
            np.log1p(self.agreed_count[key]), np.log1p(others), np.log1p(own),
            self._repeats(), self._speed(), self.runs.own, self._moved(), *self._beside(),
        ]  # fmt: skip
        table = np.concatenate([np.stack(parts, axis=2), surface, traits], axis=2, dtype=np.float32)
        return np.where(self.there[:, :, None] | self._of_nothing(table.shape[2]), table, np.nan)

    def _of_nothing(self, width: int) -> Flags:
        """Which facts are defined for the reading "nothing"."""
        defined = np.ones(width, dtype=bool)
        defined[[1, 2, 6, 7, 8, 12]] = False
        defined[15:19] = False
        return defined

    def _paths(self, scores: Callable[[Column, Ints], Floats], reach: int) -> Floats:
        """(slots, columns): how expected a reading and what follows it are: the sum over it and `reach` more tokens."""
        result = np.zeros(self.key.shape, dtype=np.float32)
        for k, column in enumerate(self.network.columns):
            first = np.where(self.there[:, k], self.at[:, k], self.next[:, k])
            last = np.where(self.there[:, k], self.at[:, k] + reach, self.next[:, k] + reach - 1)
            needed = np.unique(np.concatenate([first + step for step in range(reach + 1)]))
            needed = needed[(needed >= 0) & (needed < len(column.key))]
            score = np.zeros(len(column.key) + reach + 2, dtype=np.float32)
            score[needed] = scores(column, needed)
            total = np.concatenate([[0.0], np.cumsum(score)])
            result[:, k] = total[np.minimum(last + 1, len(score))] - total[first]
        return result

    def _repeats(self) -> Floats:
        """2 if a token equals the one before or after it in its column, 1 if one at distance two, otherwise 0."""
        result = np.zeros(self.key.shape, dtype=np.float32)
        for k, column in enumerate(self.network.columns):
            if not len(column.key):
                continue
            padded = np.concatenate([[-2, -2], column.key, [-2, -2]])
            at = np.where(self.there[:, k], self.at[:, k], self.next[:, k]) + 2
            mine = np.where(self.there[:, k], column.key[np.minimum(self.at[:, k], len(column.key) - 1)], -9)
            near = (padded[at - 1] == mine) | (padded[np.minimum(at + 1, len(padded) - 1)] == mine)
            result[:, k] = np.where(
                near, 2, (padded[at - 2] == mine) | (padded[np.minimum(at + 2, len(padded) - 1)] == mine)
            )
        return result

    def _moved(self) -> Floats:
        """The number of equal tokens of other columns in other disputed slots nearby, where the order may differ."""
        row, column = np.nonzero(self.there)
        entries = self.key[row, column]
        order = np.lexsort((self.slots[row], entries))
        row, column, entries = row[order], column[order], entries[order]
        result = np.zeros(self.key.shape, dtype=np.float32)
        slot = self.slots[row]
        for step in (1, 2, 3):
            near = (entries[step:] == entries[:-step]) & (column[step:] != column[:-step])
            near &= (slot[step:] != slot[:-step]) & (slot[step:] - slot[:-step] <= NEARBY)
            result[row[step:][near], column[step:][near]] += 1
            result[row[:-step][near], column[:-step][near]] += 1
        return result

    def _beside(self) -> tuple[Floats, Floats]:
        """The share of other columns that agree in the slot before, and after; 2 less if the column is empty there."""
        key = self.network.key
        agree = ((key[:, :, None] == key[:, None, :]).sum(axis=2) - 1) / max(key.shape[1] - 1, 1)
        agree = np.where(key >= 0, agree, agree - 2)
        agree = np.vstack([np.ones(key.shape[1]), agree, np.ones(key.shape[1])])
        return agree[self.slots].astype(np.float32), agree[self.slots + 2].astype(np.float32)

    def _speed(self) -> Floats:
        """Milliseconds per letter of a token; for "nothing", those between its neighbours. NaN without times."""
        result = np.full(self.key.shape, np.nan, dtype=np.float32)
        for k, column in enumerate(self.network.columns):
            if len(column.key) < 2:
                continue
            there, at = self.there[:, k], np.clip(self.at[:, k], 0, len(column.key) - 1)
            after = np.clip(self.next[:, k], 1, len(column.key) - 1)
            spoken = (column.end[at] - column.start[at]) / np.maximum(self.length[column.key[at]], 1)
            gap = column.start[after] - column.end[after - 1]
            result[:, k] = np.where(there, spoken, gap)
        return result

    def _surface(self) -> Floats:
        """(slots, columns, 4): digit, capital inside a sentence, punctuation after it, end of a sentence before it."""
        result = np.zeros((*self.key.shape, 4), dtype=np.float32)
        for k, column in enumerate(self.network.columns):
            words = column.words
            first = column.first
            for row in np.flatnonzero(self.there[:, k]).tolist():
                at = first[self.at[row, k]]
                text = words[at].text
                ended = at == 0 or words[at - 1].text[-1] in ".?!"
                result[row, k] = (
                    any(map(str.isdigit, text)), text[0].isupper() and not ended, text[-1] in ".,?!", ended,
                )  # fmt: skip
        return result

    def _traits(self) -> Floats:
        """(columns, 3): a recognizer's agreement with the others in this recording, and the shares of slots in which it
        alone has a token, and in which it alone has none.
        """
        key = self.network.key
        if not len(key):
            return np.zeros((key.shape[1], 3), dtype=np.float32)
        others = max(key.shape[1] - 1, 1)
        agree = ((key[:, :, None] == key[:, None, :]).sum(axis=2) - 1).mean(axis=0) / others
        present = key >= 0
        alone = (present & (present.sum(axis=1, keepdims=True) == 1)).mean(axis=0)
        missed = (~present & (present.sum(axis=1, keepdims=True) == others)).mean(axis=0)
        return np.stack([agree, alone, missed], axis=1).astype(np.float32)

    def per_column(self, row: Ints, members: Flags) -> Floats:
        """(candidates, facts): the mean over the supporting columns (`members`) of the facts that are known."""
        table = self.table[row]
        known = ~np.isnan(table)
        weight = members[:, :, None] & known
        total = weight.sum(axis=1)
        mean: Floats = np.where(weight, table, 0).sum(axis=1) / np.where(total > 0, total, np.nan)
        return mean

    def learned(self, row: Ints, column: Ints, against: Ints, members: Flags) -> Floats:
        """(candidates, 6): log odds and amount of evidence for the word in such a dispute, the same for the pair of
        words, and the record of its supporters, both in general and with this word.
        """
        bits = members @ (1 << np.arange(members.shape[1]))
        cases = np.stack([self.key[row, column], self.key[row, against], bits], axis=1)
        cases, back = np.unique(cases, axis=0, return_inverse=True)
        facts = np.array([self._word_facts(*case) for case in cases.tolist()], dtype=np.float32).reshape(-1, 6)
        return facts[back.ravel()]

    def field(self, row: Ints) -> Floats:
        """(candidates, fields - 1): the weights of the call's fields but the last."""
        weights = list(self.topic.weights.values())[:-1]
        return np.broadcast_to(np.array(weights, dtype=np.float32), (len(row), len(weights)))

    def _word_facts(self, mine: int, theirs: int, supporters: int) -> tuple[float, ...]:
        names, odds = self.names, self.topic.odds
        a, b = names[mine] if mine >= 0 else "", names[theirs] if theirs >= 0 else ""
        kind = SUBSTITUTION if a and b else INSERTION if a else DELETION
        word = f"{kind} {a or b}"
        return *odds(word), *odds(f"{kind} {a}|{b}"), *self._mean_record(kind, word, supporters)

    def _mean_record(self, kind: str, word: str, supporters: int) -> tuple[float, float]:
        """The mean record of some columns, for this kind of dispute and for this word; NaN without a record.

        `supporters` has the bit of each of these columns set.
        """
        general, special, count = 0.0, 0.0, 0
        for k, past in enumerate(self.records):
            if past is not None and supporters >> k & 1:
                rate = past[kind]
                general += rate
                special += past.get(word, rate)
                count += 1
        return (general / count, special / count) if count else (np.nan, np.nan)

    def per_pair(self, row: Ints, column: Ints, against: Ints) -> Floats:
        """(candidates, 4): the similarity of the two readings in spelling and in sound, whether one extends the other,
        and the milliseconds between them.
        """
        result = np.full((len(row), 4), np.nan, dtype=np.float32)
        mine, theirs = self.key[row, column], self.key[row, against]
        both = np.flatnonzero((mine >= 0) & (theirs >= 0))
        width = len(self.names)
        pairs, back = np.unique(mine[both] * width + theirs[both], return_inverse=True)
        left, right = [self.names[k] for k in pairs // width], [self.names[k] for k in pairs % width]
        if len(pairs):
            spelling = cpdist(left, right, scorer=JaroWinkler.normalized_similarity)
            sounds = cpdist([*map(sound, left)], [*map(sound, right)], scorer=Levenshtein.normalized_similarity)
            extends = [float(a.startswith(b)) - float(b.startswith(a)) for a, b in zip(left, right, strict=True)]
            result[both, :3] = np.stack([spelling, sounds, extends], axis=1)[back.ravel()]
        result[:, 3] = self._late(row, column, against)
        return result

    def _late(self, row: Ints, column: Ints, against: Ints) -> Floats:
        """Milliseconds from the middle of the rival's token to that of the candidate's; NaN if unknown."""
        middle = np.full(self.key.shape, np.nan, dtype=np.float32)
        for k, source in enumerate(self.network.columns):
            there = self.there[:, k]
            at = self.at[there, k]
            middle[there, k] = (source.start[at] + source.end[at]) / 2
        return middle[row, column] - middle[row, against]


class _Runs:
    """The runs of consecutive disputed slots: their lengths, their tokens by column, and the disputes around them."""

    def __init__(self, network: Network, slots: Ints) -> None:
        disputed = (~network.unanimous).astype(np.int64)
        edge = np.flatnonzero(np.diff(disputed, prepend=0, append=0))
        first, end = edge[::2], edge[1::2]
        run = np.searchsorted(first, slots, side="right") - 1
        tokens = np.vstack([np.zeros((1, network.grid.shape[1])), np.cumsum(network.grid >= 0, axis=0)])
        within = (tokens[end] - tokens[first])[run] if len(run) else np.zeros((0, network.grid.shape[1]))
        #: (slots, columns): the number of a column's tokens in the run, less the average of all columns.
        self.own = within - within.mean(axis=1, keepdims=True)
        length = (end - first)[run]
        disputes = np.concatenate([[0], np.cumsum(disputed)])
        around = [
            (disputes[np.minimum(slots + reach + 1, len(disputed))] - disputes[np.maximum(slots - reach, 0)] - length)
            / (2 * reach)
            for reach in (6, 25)
        ]
        key = np.concatenate([[-1], network.key[:, 0], [-1]])
        before, after = key[first[run]], key[np.minimum(end[run] + 1, len(key) - 1)]
        self.neighbours = before, after
        share = disputed.mean() if len(disputed) else 0.0
        segment = np.bincount(network.segment)[network.segment[slots]] if len(slots) else np.zeros(0)
        #: (slots, 8): length of the run, position in it, mean number of tokens in it, share of disputed slots nearby,
        #: in a wider range, and in the recording, length of the segment, position in the recording (0 to 1).
        self.slot_facts = np.stack(
            [length, slots - first[run], within.mean(axis=1), *around, np.full(len(slots), share), segment,
             slots / max(len(disputed), 1)],
            axis=1,
        ).astype(np.float32)  # fmt: skip
