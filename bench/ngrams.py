"""Makes the reconciler's models of words in a row: of general English from the one in pocketsphinx (CMU Sphinx, BSD
licence), and of a corpus by absolute discounting (Ney, Essen and Kneser 1994).
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files

import numpy as np

from agents.text.calibration.ngrams import START, NGrams, quantised

#: How much the sum of log probabilities of a text may change by what is left out of the general model, per word: at
#: 1e-7, four of five n-grams go, and the perplexity of a consultation rises from 75 to 80 together with its own model.
PRUNED = 1e-7
#: What absolute discounting takes from each count.
DISCOUNT = 0.75
#: The base of pocketsphinx' logarithms.
_BASE = 1.0001
_MAGIC = b"Trie Language Model"
_BINS = 1 << 16


def general() -> NGrams:
    """Three words in a row of US English: what is left of 3.7 million n-grams of plain words after pruning."""
    words, one, back, pairs, two, two_back, triples, three = _plain(*_read())
    size = len(words)
    chance = 10.0**one
    first, second = pairs // size, pairs % size
    two_worth = chance[first] * 10.0**two * np.abs(two - (back[first] + one[second]))
    context = np.searchsorted(pairs, triples // size)
    last = pairs[context] % size * size + triples % size
    at = np.minimum(np.searchsorted(pairs, last), len(pairs) - 1)
    shorter = np.where(pairs[at] == last, two[at], back[last // size] + one[last % size])
    joint = chance[first[context]] * 10.0 ** two[context] * 10.0**three
    keep_three = joint * np.abs(three - (two_back[context] + shorter)) > PRUNED
    keep_two = two_worth > PRUNED
    keep_two[context[keep_three]] = True
    return NGrams(
        words, quantised(one), quantised(back), pairs[keep_two], quantised(two[keep_two]),
        quantised(two_back[keep_two]), triples[keep_three], quantised(three[keep_three]),
    )  # fmt: skip


def of_texts(texts: Iterable[Sequence[str]], rare: Callable[[Sequence[str]], np.ndarray]) -> NGrams:
    """A model of these texts. `rare` gives log10 of the probability of words elsewhere, to which it backs off."""
    single: Counter[str] = Counter()
    double: Counter[tuple[str, str]] = Counter()
    triple: Counter[tuple[str, str, str]] = Counter()
    for text in texts:
        padded = [START, START, *text]
        single.update(text)
        double.update(zip(padded[1:], text, strict=False))
        triple.update(zip(padded, padded[1:], text, strict=False))
    words = (*sorted(single.keys() - {START}), START)
    number = {word: n for n, word in enumerate(words)}
    size, total = len(words), max(single.total(), 1)
    kept = np.array([max(single[word] - DISCOUNT, 0) / total for word in words])
    unknown = max(1 - float(kept.sum()), 1e-4)
    one = kept + unknown * 10.0 ** rare(words)
    seen, left = _discounted(double)
    two = {pair: (n - DISCOUNT) / seen[pair[0]] + left[pair[0]] * one[number[pair[1]]] for pair, n in double.items()}
    repeated = Counter({words: n for words, n in triple.items() if n > 1})
    seen_two, left_two = _discounted(triple, repeated)
    pairs = sorted(double, key=lambda pair: (number[pair[0]], number[pair[1]]))
    triples = sorted(repeated, key=lambda words: tuple(map(number.__getitem__, words)))
    three = [
        (repeated[a, b, c] - DISCOUNT) / seen_two[a, b] + left_two[a, b] * two[b, c] for a, b, c in triples
    ]  # fmt: skip
    return NGrams(
        words, quantised(np.log10(np.maximum(one, 1e-10))), quantised([math.log10(left.get(w, 1.0)) for w in words]),
        np.array([number[a] * size + number[b] for a, b in pairs], dtype=np.int64),
        quantised(np.log10([two[pair] for pair in pairs])),
        quantised([math.log10(left_two.get(pair, 1.0)) for pair in pairs]),
        np.array([(number[a] * size + number[b]) * size + number[c] for a, b, c in triples], dtype=np.int64),
        quantised(np.log10(three) if three else np.zeros(0)), math.log10(unknown),
    )  # fmt: skip


def _discounted(every: Counter, kept: Counter | None = None) -> tuple[Counter, dict]:
    """By context (all words but the last): the number of words after it, and the share that is left for words that the
    model does not have after it.
    """
    seen: Counter = Counter()
    given: Counter = Counter()
    for words, count in every.items():
        seen[words[:-1] if len(words) > 2 else words[0]] += count
    for words, count in (every if kept is None else kept).items():
        given[words[:-1] if len(words) > 2 else words[0]] += count - DISCOUNT
    return seen, {context: max(1 - given[context] / count, 1e-4) for context, count in seen.items()}


def _plain(words, one, back, pairs, two, two_back, triples, three) -> tuple:
    """The model without words that are not plain letters, with sorted keys."""
    plain = np.array([word.isascii() and word.isalpha() for word in words])
    number = np.cumsum(plain) - 1
    size = int(plain.sum())
    keep, keep_three = plain[pairs].all(axis=1), plain[triples].all(axis=1)
    pairs, triples = number[pairs[keep]], number[triples[keep_three]]
    pair_keys = pairs[:, 0] * size + pairs[:, 1]
    triple_keys = (triples[:, 0] * size + triples[:, 1]) * size + triples[:, 2]
    order, order_three = np.argsort(pair_keys), np.argsort(triple_keys)
    return (
        tuple(word for word, is_plain in zip(words, plain, strict=True) if is_plain), one[plain], back[plain],
        pair_keys[order], two[keep][order], two_back[keep][order],
        triple_keys[order_three], three[keep_three][order_three],
    )  # fmt: skip


def _read() -> tuple:
    """Pocketsphinx' model of US English: words; log10 of probability and backoff by word; pairs of words, last word
    last, with both; triples with their probability. The format is that of sphinxbase's lm_trie.c: tries from the last
    word backwards, in bit arrays, with quantised values.
    """
    data = (files("pocketsphinx") / "model" / "en-us" / "en-us.lm.bin").read_bytes()
    if not data.startswith(_MAGIC) or data[len(_MAGIC)] != 3:
        raise SystemExit("pocketsphinx' language model is not the trie of three words that this reads")
    at = len(_MAGIC) + 1
    counts = struct.unpack_from("<3I", data, at)
    at += 12 + 4
    tables = np.frombuffer(data, "<f4", 3 * _BINS, at).reshape(3, _BINS) * math.log10(_BASE)
    at += 3 * _BINS * 4
    alone = np.frombuffer(data, np.dtype([("p", "<f4"), ("backoff", "<f4"), ("next", "<u4")]), counts[0] + 1, at)
    at += alone.nbytes
    word, after = counts[0].bit_length(), counts[2].bit_length()
    (before, two_back, two, following), used = _unpacked(data[at:], counts[1] + 1, (word, 16, 16, after))
    at += used
    (earlier, three), used = _unpacked(data[at:], counts[2] + 1, (word, 16))
    at += used
    (length,) = struct.unpack_from("<I", data, at)
    words = [name.decode() for name in data[at + 4 : at + 4 + length].split(b"\0")[:-1]]
    children = alone["next"].astype(np.int64)
    size = int(children[-1])
    pairs = np.stack([before[:size], np.repeat(np.arange(counts[0]), np.diff(children))], axis=1)
    owner = np.repeat(np.arange(size), np.diff(np.maximum.accumulate(following[: size + 1])))
    triples = np.column_stack([earlier[: len(owner)], pairs[owner]])
    scale = math.log10(_BASE)
    return (
        words, alone["p"][:-1] * scale, alone["backoff"][:-1] * scale,
        pairs, tables[0][two[:size]], tables[1][two_back[:size]], triples, tables[2][three[: len(owner)]],
    )  # fmt: skip


def _unpacked(data: bytes, count: int, widths: Sequence[int]) -> tuple[list[np.ndarray], int]:
    """The fields of an array of records that are packed in bits; and the length of the array in bytes."""
    size = (count * sum(widths) + 7) // 8 + 8
    octets = np.frombuffer(data[:size] + bytes(8), np.uint8)
    record = np.arange(count, dtype=np.int64) * sum(widths)
    fields, offset = [], 0
    for width in widths:
        bit = record + offset
        value = np.zeros(count, np.uint64)
        for step in range(8):
            value |= octets[(bit >> 3) + step].astype(np.uint64) << np.uint64(8 * step)
        fields.append(((value >> (bit & 7).astype(np.uint64)) & np.uint64((1 << width) - 1)).astype(np.int64))
        offset += width
    return fields, size
