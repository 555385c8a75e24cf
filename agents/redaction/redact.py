"""Hides personal data in a reconciled transcript: in every reading of every slot, whichever reading reveals them."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, count
from string import ascii_uppercase
from typing import Final

from agents.redaction.detect import detect
from agents.redaction.finding import Finding, joined
from agents.redaction.languages.vocabulary import Vocabulary, vocabulary
from agents.redaction.symbols import symbol
from schemas.accounts.redaction import EVERYTHING, PLACEHOLDER, RedactionPolicy
from schemas.texts import joined as joined_text
from schemas.words import Decision, Hypothesis, Reading, Reconciliation, Word

#: The rule of a decision that was redacted.
RULE: Final = "redacted"

#: What recognizers that redact by themselves write, by what it is here.
_THEIRS: Final = {
    "CREDIT_CARD_NUMBER": "card", "CREDIT_CARD_EXPIRATION": "card", "CREDIT_CARD_CVV": "security_code",
    "PASSWORD": "security_code", "ACCOUNT_NUMBER": "account", "BANKING_INFORMATION": "account",
    "US_SOCIAL_SECURITY_NUMBER": "ssn", "PHONE_NUMBER": "phone", "EMAIL_ADDRESS": "email",
    "LOCATION": "address", "LOCATION_ADDRESS": "address", "LOCATION_ADDRESS_STREET": "address",
    "LOCATION_COORDINATE": "address", "DATE_OF_BIRTH": "date_of_birth", "PERSON_NAME": "name", "USERNAME": "name",
}  # fmt: skip

#: Kinds in which a neighbour that looks like a digit belongs to what was found.
_OF_DIGITS: Final = frozenset(("card", "security_code", "iban", "account", "ssn", "phone", "id"))


@dataclass(frozen=True, slots=True)
class Redacted:
    """A transcript without what was hidden."""

    reconciliation: Reconciliation
    #: The hidden spans: indexes of the decisions from `start` to `end` (exclusive), and the kind.
    spans: tuple[Finding, ...]

    @property
    def counts(self) -> Counter[str]:
        """How many spans of each kind are hidden."""
        return Counter(span.kind for span in self.spans)

    def unredacted(self, original: Reconciliation) -> Reconciliation:
        """This transcript with the words of the original in the hidden spans; what was decided since stays."""
        decisions = list(self.reconciliation.decisions)
        for span in self.spans:
            decisions[span.start : span.end] = original.decisions[span.start : span.end]
        return replace(self.reconciliation, decisions=tuple(decisions))


def redacted(reconciliation: Reconciliation, policy: RedactionPolicy = EVERYTHING) -> Redacted:
    """Hide what the policy says. The number of decisions stays, and so do the ids of words.

    Looks at what each recognizer heard, at what was chosen, and at the readings that look like digits, wherever they
    come from. A slot of which one reading is personal is hidden in all readings. Redacting twice changes nothing.
    """
    decisions, language = reconciliation.decisions, vocabulary(reconciliation.language)
    spans = list(_placeholders(decisions))
    for slots, texts in _paths(reconciliation, language):
        spans += [
            replace(one, start=slots[one.start], end=slots[one.end - 1] + 1)
            for one in detect(texts, policy, language)
            if not all(map(PLACEHOLDER.match, texts[one.start : one.end]))
        ]
    spans = joined([_widened(span, decisions, language) for span in joined(spans)])
    hidden = list(decisions)
    for span in spans:
        hidden[span.start : span.end] = _hidden(decisions[span.start : span.end], policy.label(span.kind))
    if "name" in policy.kinds:
        hidden = _with_plain_speakers(hidden)
    return Redacted(replace(reconciliation, decisions=tuple(hidden)), tuple(spans))


#: What recognizers call speakers whom they do not know: "A", "speaker_01", "Agent". Outside services may tell names.
_PLAIN_SPEAKER: Final = re.compile(
    r"((speaker|spk|channel|agent|ai|customer|caller|callee|client|operator|user|unknown)[\s_#-]*)?([a-z]|\d{1,3})?",
    re.IGNORECASE,
)


def _with_plain_speakers(decisions: Sequence[Decision]) -> list[Decision]:
    """The decisions with a letter, or a number, for each speaker who is called by something else."""
    speakers = dict.fromkeys(one.speaker for one in decisions if one.speaker is not None)
    named = [speaker for speaker in speakers if not _PLAIN_SPEAKER.fullmatch(speaker)]
    if not named:
        return list(decisions)
    free = (label for label in chain(ascii_uppercase, map(str, count(1))) if label not in speakers)
    labels = dict(zip(named, free, strict=False))
    return [replace(one, speaker=labels.get(one.speaker or "", one.speaker)) for one in decisions]


def _placeholders(decisions: Sequence[Decision]) -> Iterator[Finding]:
    """What recognizers have hidden: the others' words in the same slots, and at the same time, are hidden, too."""
    for at, decision in enumerate(decisions):
        for reading in (decision.chosen, *decision.others):
            if decision.rule != RULE and reading.text and (match := PLACEHOLDER.match(reading.text)):
                start, end = _at_same_time(decisions, at, reading)
                yield Finding(start, end, _THEIRS.get(match[1], match[1].lower()))


def _at_same_time(decisions: Sequence[Decision], at: int, reading: Reading) -> tuple[int, int]:
    """The slots around this one in which any reading overlaps the time of this reading."""
    start, end = at, at + 1
    if reading.start_ms is None or reading.end_ms is None:
        return start, end
    while start > 0 and _overlaps(decisions[start - 1], reading.start_ms, reading.end_ms):
        start -= 1
    while end < len(decisions) and _overlaps(decisions[end], reading.start_ms, reading.end_ms):
        end += 1
    return start, end


def _overlaps(decision: Decision, start_ms: int, end_ms: int) -> bool:
    return any(
        reading.start_ms is not None
        and reading.end_ms is not None
        # The middle of the word, because recognizers differ by some hundredths of a second where words meet.
        and start_ms < (reading.start_ms + reading.end_ms) / 2 < end_ms
        for reading in (decision.chosen, *decision.others)
        if reading.text
    )


def _paths(reconciliation: Reconciliation, language: Vocabulary) -> Iterator[tuple[list[int], list[str]]]:
    """Sequences of readings with their slots: the chosen one, each recognizer's, and the one most like digits."""
    decisions = reconciliation.decisions
    yield _path([decision.chosen.text for decision in decisions])
    if not any(decision.others for decision in decisions):
        return
    for provider in reconciliation.providers:
        yield _path([heard_by(provider, decision).text for decision in decisions])
    yield _path([_most_like_digits(decision, language) for decision in decisions])


def _path(texts: Sequence[str | None]) -> tuple[list[int], list[str]]:
    slots = [at for at, text in enumerate(texts) if text]
    return slots, [texts[at] or "" for at in slots]


def heard_by(provider: str, decision: Decision) -> Reading:
    """The reading of a recognizer. One that is listed nowhere has the chosen text, divided otherwise."""
    readings = (reading for reading in (decision.chosen, *decision.others) if provider in reading.providers)
    return next(readings, decision.chosen)


def _most_like_digits(decision: Decision, language: Vocabulary) -> str | None:
    texts = [reading.text for reading in (decision.chosen, *decision.others)]
    return max(texts, key=lambda text: len(symbol(text, language).chars) if text else 0)


def _widened(span: Finding, decisions: Sequence[Decision], language: Vocabulary) -> Finding:
    """The span with neighbouring slots in which some recognizer has heard a digit, where it is a number."""
    if span.kind not in _OF_DIGITS:
        return span
    start, end = span.start, span.end
    while start > 0 and decisions[start - 1].others and _has_digits(decisions[start - 1], language):
        start -= 1
    while end < len(decisions) and decisions[end].others and _has_digits(decisions[end], language):
        end += 1
    return replace(span, start=start, end=end)


def _has_digits(decision: Decision, language: Vocabulary) -> bool:
    return any(
        symbol(reading.text, language).role in ("digits", "tens", "repeat")
        for reading in (decision.chosen, *decision.others)
        if reading.text
    )


def _hidden(decisions: Sequence[Decision], label: str) -> Iterator[Decision]:
    """The decisions of a span: the first has the label, and the times of all; the others have no word."""
    readings = [reading for one in decisions for reading in (one.chosen, *one.others)]
    starts = [reading.start_ms for reading in readings if reading.start_ms is not None]
    ends = [reading.end_ms for reading in readings if reading.end_ms is not None]
    providers = tuple(sorted({name for reading in readings for name in reading.providers}))
    if any(reading.text and None in (reading.start_ms, reading.end_ms) for reading in readings):
        starts, ends = [], []  # a part of it may lie outside
    probability = min(one.chosen.probability for one in decisions)
    last = next((one.chosen.text for one in reversed(decisions) if one.chosen.text), None)
    # Where only others have heard something, the transcript has no word, and gets none.
    text = None if last is None else label + (last[-1] if last[-1] in ".,?!" else "")
    chosen = Reading(text, providers, probability, min(starts, default=None), max(ends, default=None))
    yield Decision(chosen, (), RULE, decisions[0].speaker)
    for one in decisions[1:]:
        yield Decision(Reading(None, providers, probability), (), RULE, one.speaker)


#: Milliseconds before and behind a hidden word that are muted with it.
PADDING_MS: Final = 250


def muted_ms(redaction: Redacted, hypotheses: Iterable[Hypothesis] = ()) -> list[tuple[int, int | None]]:
    """The intervals that are muted, in order: the hidden words, when any recognizer has heard them, with what is around
    them. Where no recognizer tells when a word was said, all is muted from the last word before it whose time is known
    to the first one behind it; None is the recording's end.
    """
    decisions = redaction.reconciliation.decisions
    times = sorted(
        (word.start_ms, word.end_ms)
        for hypothesis in hypotheses
        for word in hypothesis.words
        if word.start_ms is not None and word.end_ms is not None
    )
    muted: list[tuple[int, int | None]] = []
    for span in redaction.spans:
        first = decisions[span.start].chosen
        start, end = first.start_ms, first.end_ms
        if start is None or end is None:
            before = (one.chosen.end_ms for one in reversed(decisions[: span.start]) if one.chosen.end_ms is not None)
            behind = (one.chosen.start_ms for one in decisions[span.end :] if one.chosen.start_ms is not None)
            start, end = next(before, 0), next(behind, None)
        else:
            start, end = _as_all_heard(start, end, times)
        muted.append((max(0, start - PADDING_MS), None if end is None else end + PADDING_MS))
    return muted


def _as_all_heard(start_ms: int, end_ms: int, times: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The interval with the whole of all words that recognizers have heard mostly in it: of words on which they agree,
    the transcript has the times of one recognizer. `times` are sorted.
    """
    first = bisect_left(times, (start_ms - _LONGEST_WORD_MS,))
    inside = [
        (start, end)
        for start, end in times[first : bisect_left(times, (end_ms,))]
        if start_ms <= (start + end) / 2 <= end_ms
    ]
    return min([start_ms, *(start for start, _ in inside)]), max([end_ms, *(end for _, end in inside)])


#: Milliseconds that a word takes at most.
_LONGEST_WORD_MS: Final = 5000


def redacted_hypothesis(hypothesis: Hypothesis, reconciliation: Reconciliation) -> Hypothesis:
    """What a recognizer heard, read from a redacted transcript. One that the transcript does not have is empty."""
    provider = hypothesis.provider
    pairs = [(heard_by(provider, one), one.speaker) for one in reconciliation.decisions]
    words = [Word(r.text, r.start_ms, r.end_ms, r.confidence, speaker) for r, speaker in pairs if r.text]
    known = provider in reconciliation.providers
    return replace(hypothesis, words=tuple(words) if known else (), details={})


#: Words of a recognizer that are searched for the one in a slot: readings may be divided otherwise than its words.
_WINDOW = 8


def turns_left(
    hypothesis: Hypothesis, counts: Sequence[int], before: Sequence[Decision], after: Sequence[Decision]
) -> list[tuple[str | None, str]]:
    """Of one recognizer's own words, what is left in a redacted transcript: speaker and words of each turn. `counts`
    are the words of each turn of the hypothesis; `before` and `after` are the decisions without and with redaction,
    which are as many.
    """
    turns = [number for number, count in enumerate(counts) for _ in range(count)]
    firsts = [0, *accumulate(counts)]
    left: dict[int, list[str]] = {}
    for word, decision in zip(_words(hypothesis, before), after, strict=True):
        text = heard_by(hypothesis.provider, decision).text
        if text is not None:
            left.setdefault(turns[word] if word < len(turns) else max(len(counts) - 1, 0), []).append(text)
    return [(_speaker(hypothesis, firsts[turn]), joined_text(texts)) for turn, texts in sorted(left.items())]


def _speaker(hypothesis: Hypothesis, word: int) -> str | None:
    return hypothesis.words[word].speaker if word < len(hypothesis.words) else None


def _words(hypothesis: Hypothesis, decisions: Sequence[Decision]) -> Iterator[int]:
    """By slot, the index of the recognizer's word there; where it has none, that of the last one."""
    words = [_folded(word.text) for word in hypothesis.words]
    following = 0
    for decision in decisions:
        reading = heard_by(hypothesis.provider, decision)
        if reading.text is not None and hypothesis.provider in reading.providers:
            folded = _folded(reading.text)
            ahead = words[following : following + _WINDOW]
            following += (ahead.index(folded) if folded in ahead else 0) + 1
        yield max(following - 1, 0)


def _folded(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
