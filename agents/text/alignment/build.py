"""Builds the word network of a recording: tokens, their alignment, and what is divided differently made one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from agents.text.alignment.align import align
from agents.text.alignment.divisions import divided_differently, joined
from agents.text.alignment.network import Column, Network, language
from agents.text.normalisation.normalise import Tokens, is_silent, tokenise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.words import Hypothesis, Word


def build(hypotheses: Sequence[Hypothesis]) -> Network:
    """Align hypotheses, in any order, into a network. Its columns are ordered by content, not by recognizer."""
    names: dict[str, int] = {}
    tag = language(hypotheses)
    ranked = sorted(hypotheses, key=_rank)
    words = [tuple(word for word in h.words if word.text.strip()) for h in ranked]
    tokens = [tokenise([word.text for word in part], tag) for part in words]
    columns = tuple(map(_column, ranked, words, tokens, itertools.repeat(names)))
    network = _aligned(columns, names)
    ranges = divided_differently(network, tag)
    if not any(ranges):
        return network
    columns = tuple(
        _column(hypothesis, part, joined(found, changed), names) if changed else column
        for hypothesis, part, found, changed, column in zip(ranked, words, tokens, ranges, columns, strict=True)
    )
    return _aligned(columns, names)


def _aligned(columns: tuple[Column, ...], names: dict[str, int]) -> Network:
    keys = list(names)
    times = [((column.start + column.end) / 2).astype(np.float32) for column in columns]
    silent = np.array([is_silent(name) for name in keys], dtype=bool)
    return Network(columns, keys, silent, align([column.key for column in columns], keys, times, silent))


def _rank(hypothesis: Hypothesis) -> tuple[object, ...]:
    words = hypothesis.words
    return len(words), [word.text for word in words], [word.start_ms or 0 for word in words], hypothesis.provider


def _column(hypothesis: Hypothesis, words: tuple[Word, ...], tokens: Tokens, names: dict[str, int]) -> Column:
    key = np.array([names.setdefault(name, len(names)) for name in tokens.keys], dtype=np.int64)
    group = np.array(tokens.group, dtype=np.int64)
    first_word = np.array(tokens.first_word, dtype=np.int64)
    first, last = first_word[group], first_word[group + 1] - 1
    start = np.array([np.nan if word.start_ms is None else word.start_ms for word in words], dtype=np.float32)
    end = np.array([np.nan if word.end_ms is None else word.end_ms for word in words], dtype=np.float32)
    return Column(hypothesis, words, tokens, key, group, first, last, start[first], end[last])
