"""A digest without a language model: the sentences of a call that say most, spread over its length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from agents.text.frequency import frequencies
from agents.text.summaries.citations import Quotable
from agents.text.summaries.utterances import Utterance, utterances
from schemas.summaries import Statement
from schemas.texts import SENTENCE_ENDS, is_unspaced
from schemas.transcript_words import TranscriptWord

#: Words for each quotation, and quotations at most.
WORDS_EACH, MOST = 120, 12

#: Words of a sentence that is quoted: a shorter one says little alone.
SHORTEST, LONGEST = 6, 45

#: What a sentence is worth that was cut: a reader misses its end.
PART: Final = 0.6

#: Zipf frequency from which on a word tells nothing of a call ("people" has 6), and that of a word that no list has.
COMMON, UNKNOWN = 5.6, 2.5


def digest(words: Sequence[TranscriptWord], language: str | None) -> tuple[Statement, ...]:
    """Quotations in the order of the call: of each stretch of it the sentence with most words that are rare in the
    language and frequent in the call. Disputed words count less.
    """
    sentences = list(_sentences(utterances(words)))
    counts = Counter(token for sentence in sentences for token in _tokens(sentence))
    rare = _weights(counts, language)
    many = min(MOST, -(-len(words) // WORDS_EACH))
    stretches: dict[int, list[Sequence[TranscriptWord]]] = {}
    before = 0
    for sentence in sentences:
        stretch = min(many - 1, before * many // max(1, len(words)))
        stretches.setdefault(stretch, []).append(sentence)
        before += len(sentence)
    best = [max(of, key=lambda sentence: _score(sentence, rare, counts)) for _, of in sorted(stretches.items())]
    return tuple(_statement(sentence) for sentence in best if _score(sentence, rare, counts) > 0)


def _sentences(spoken: Sequence[Utterance]) -> Iterator[Sequence[TranscriptWord]]:
    for utterance in spoken:
        start = 0
        for end, word in enumerate(utterance.words, 1):
            if end == len(utterance.words) or end - start >= LONGEST or word.text.endswith(SENTENCE_ENDS):
                yield utterance.words[start:end]
                start = end


def _tokens(sentence: Sequence[TranscriptWord]) -> set[str]:
    return {token for word in sentence if (token := word.text.casefold().strip(_MARKS))}


_MARKS: Final = ".,;:!?\"'()[]-…。、？！“”«»¿¡"  # noqa: RUF001


def _weights(tokens: Mapping[str, int], language: str | None) -> dict[str, float]:
    """By token, how much it tells: the rarer in the language, the more. Figures tell as much as rare words."""
    zipf = frequencies(language or "en")
    return {token: max(0.0, COMMON - zipf.get(token, UNKNOWN)) for token in tokens}


def _score(sentence: Sequence[TranscriptWord], rare: Mapping[str, float], counts: Mapping[str, int]) -> float:
    if len(sentence) < SHORTEST and not any(is_unspaced(word.text[0]) for word in sentence):
        return 0.0
    total = sum(rare[token] * min(counts[token], 3) ** 0.5 for token in _tokens(sentence))
    doubt = sum(word.disputed for word in sentence) / len(sentence)
    whole = 1.0 if sentence[-1].text.endswith(SENTENCE_ENDS) else PART
    return float(total / (len(sentence) + 8) * (1 - doubt / 2) * whole)


def _statement(sentence: Sequence[TranscriptWord]) -> Statement:
    whole = Utterance("s1", tuple(sentence))
    fields: Any = Quotable([whole]).cited("s1", whole.text)
    return Statement(text=fields["quote"], **fields)
