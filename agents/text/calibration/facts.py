"""Facts about each disputed slot and column of a network, from which the evidence about a reading is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz.distance import JaroWinkler, Levenshtein
from rapidfuzz.process import cpdist

from agents.text.alignment.network import spoken
from agents.text.calibration.knowledge import topic
from agents.text.calibration.language import Language
from agents.text.calibration.runs import Runs
from agents.text.calibration.standing import STANDING, reliability, standing
from agents.text.normalisation.sound import sound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from agents.text.alignment.network import Column, Network
    from agents.text.calibration.knowledge import Knowledge
    from schemas.words import Word

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]
    Flags = NDArray[np.bool_]

#: Slots between equal tokens of two columns up to which they may be the same token in another order.
NEARBY = 12
#: Facts per column before the recognizers' standing: of the slot and its run.
LOCAL = 25
#: Facts per column: local ones, the standing, and what is learned of words and recognizers.
FACTS = LOCAL + len(STANDING) + 6
#: Kinds of dispute, from the view of a reading: its rival is another word; its rival is nothing; it is nothing itself.
SUBSTITUTION, INSERTION, DELETION = "s", "i", "d"


class View:
    """A network without fillers and punctuation, and what is known of its words."""

    def __init__(self, network: Network, knowledge: Knowledge) -> None:
        #: The network, and the index of each of its slots in the original one.
        self.network, self.original = spoken(network)
        self.knowledge = knowledge
        self.topic = topic(self.network, knowledge)
        self.language = Language(self.network, knowledge)
        self.length = np.array([*map(len, network.names), 0], dtype=np.float32)


class Facts:
    """Facts per disputed slot and column."""

    def __init__(self, view: View, slots: Ints) -> None:
        network, knowledge = view.network, view.knowledge
        self.network, self.knowledge, self.slots, self.topic = network, knowledge, slots, view.topic
        self.names = network.names
        self.records = [knowledge.past(column.hypothesis.provider) for column in network.columns]
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
        self.runs = Runs(network, slots)
        self.table = self._table()

    def _table(self) -> Floats:
        """(slots, columns, facts): all facts that do not depend on the rival."""
        (general, domain), (general_run, domain_run) = self._paths(self.language.expected, 2)
        (call,), _ = self._paths(self.language.call, 1)
        self.path = general
        key = self.key
        everywhere = np.stack([np.bincount(c.key, minlength=len(self.names) + 1) for c in self.network.columns], axis=1)
        counted = everywhere[key]  # slots, columns, columns
        own = np.take_along_axis(counted, np.arange(key.shape[1])[None, :, None], axis=2)[..., 0]
        others = (counted.sum(axis=2) - own) / max(key.shape[1] - 1, 1)
        self.weight, self.together = reliability(self.key)
        figures = standing(self.network, self.zipf, (general, domain), self.slots, self.weight)
        traits = np.broadcast_to(figures, (*key.shape, len(STANDING)))
        surface = self._surface()
        tokens = self.runs.tokens + 1
        runs = np.stack(
            [general_run, domain_run, general_run / tokens, domain_run / tokens, *self.runs.repetition()], axis=2
        )
        parts = [
            self.there, self.zipf[key], self.length[key], general, domain, call,
            np.log1p(self.agreed_count[key]), np.log1p(others), np.log1p(own),
            self._repeats(), self._speed(), self.runs.own, self._moved(), *self._beside(),
        ]  # fmt: skip
        table = np.concatenate([np.stack(parts, axis=2), surface, runs, traits], axis=2, dtype=np.float32)
        return np.where(self.there[:, :, None] | self._of_nothing(table.shape[2]), table, np.nan)

    def _of_nothing(self, width: int) -> Flags:
        """Which facts are defined for the reading "nothing"."""
        defined = np.ones(width, dtype=bool)
        defined[[1, 2, 6, 7, 8, 12]] = False
        defined[15:19] = False
        return defined

    def _paths(self, scores: Callable[[Column, Ints], Floats], reach: int) -> tuple[Floats, Floats]:
        """(kinds, slots, columns), twice: how expected a reading and what follows are by each kind of `scores`: the sum
        over it and `reach` more tokens; and that over a column's tokens in the run of disputed slots and `reach` more.
        """
        results, wholes = [], []
        for k, column in enumerate(self.network.columns):
            first = np.where(self.there[:, k], self.at[:, k], self.next[:, k])
            last = np.where(self.there[:, k], self.at[:, k] + reach, self.next[:, k] + reach - 1)
            begin, end = self.runs.begin[:, k], self.runs.end[:, k] + reach - 1
            needed = np.unique(np.concatenate([*(first + step for step in range(reach + 1)), end]))
            needed = needed[(needed >= 0) & (needed < len(column.key))]
            values = scores(column, needed)
            score = np.zeros((len(values), len(column.key) + reach + 2), dtype=np.float32)
            score[:, needed] = values
            total = np.concatenate([np.zeros((len(values), 1)), np.cumsum(score, axis=1)], axis=1)
            results.append(total[:, np.minimum(last + 1, score.shape[1])] - total[:, first])
            wholes.append(total[:, np.minimum(end + 1, score.shape[1])] - total[:, begin])
        return np.stack(results, axis=2, dtype=np.float32), np.stack(wholes, axis=2, dtype=np.float32)

    def affinity(self, members: Flags) -> Floats:
        """(candidates,): how often the supporters agree with each other in disputed slots; NaN for a single one."""
        pairs = members.sum(axis=1) * (members.sum(axis=1) - 1)
        total = ((members @ self.together) * members).sum(axis=1) - members @ np.diag(self.together)
        result: Floats = np.where(pairs > 0, total / np.maximum(pairs, 1), np.nan)
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
            there = self.there[:, k]
            # A word is looked at once, not once for each of its tokens: a hostile word may have tens of thousands.
            positions, back = np.unique(column.first[self.at[there, k]], return_inverse=True)
            surfaces = [_surface_of(column.words, at) for at in positions.tolist()]
            result[there, k] = np.array(surfaces, dtype=np.float32).reshape(-1, 4)[back.ravel()]
        return result

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
        """(candidates, fields - 1): the weights of the call's fields but the last; NaN if its language has none."""
        weights = np.array(list(self.topic.weights.values())[:-1], dtype=np.float32)
        return np.broadcast_to(weights if self.knowledge.fields else weights * np.nan, (len(row), len(weights)))

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
            rate = past.get(kind) if past is not None and supporters >> k & 1 else None
            if past is not None and rate is not None:
                general += rate
                special += past.get(word, rate)
                count += 1
        return (general / count, special / count) if count else (np.nan, np.nan)

    def per_pair(self, row: Ints, column: Ints, against: Ints) -> Floats:
        """(candidates, 5): the similarity of the two readings in spelling and in sound, whether one extends the other,
        the milliseconds between them, and the similarity of the letters of the whole run.
        """
        result = np.full((len(row), 5), np.nan, dtype=np.float32)
        mine, theirs = self.key[row, column], self.key[row, against]
        both = np.flatnonzero((mine >= 0) & (theirs >= 0))
        width = len(self.names)
        pairs, back = np.unique(mine[both] * width + theirs[both], return_inverse=True)
        left, right = [self.names[k] for k in pairs // width], [self.names[k] for k in pairs % width]
        if len(pairs):
            spelling = cpdist(left, right, scorer=JaroWinkler.normalized_similarity)
            sounds = spelling
            if self.knowledge.fields:
                sounds = cpdist([*map(sound, left)], [*map(sound, right)], scorer=Levenshtein.normalized_similarity)
            extends = [float(a.startswith(b)) - float(b.startswith(a)) for a, b in zip(left, right, strict=True)]
            result[both, :3] = np.stack([spelling, sounds, extends], axis=1)[back.ravel()]
        result[:, 3] = self._late(row, column, against)
        result[:, 4] = self.runs.similarity(row, column, against)
        return result

    def _late(self, row: Ints, column: Ints, against: Ints) -> Floats:
        """Milliseconds from the middle of the rival's token to that of the candidate's; NaN if unknown."""
        middle = np.full(self.key.shape, np.nan, dtype=np.float32)
        for k, source in enumerate(self.network.columns):
            there = self.there[:, k]
            at = self.at[there, k]
            middle[there, k] = (source.start[at] + source.end[at]) / 2
        return middle[row, column] - middle[row, against]


def _surface_of(words: Sequence[Word], at: int) -> tuple[bool, bool, bool, bool]:
    """Of one word: whether it has a digit, a capital inside a sentence, punctuation after it; begins a sentence."""
    text = words[at].text
    begins = at == 0 or words[at - 1].text[-1] in ".?!"
    return any(map(str.isdigit, text)), text[0].isupper() and not begins, text[-1] in ".,?!", begins
