"""Finds all personal data in a sequence of words that a policy hides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final

from agents.redaction.addresses import addresses
from agents.redaction.birthdays import birthdays
from agents.redaction.emails import emails
from agents.redaction.finding import Finding, Words, joined
from agents.redaction.ibans import ibans
from agents.redaction.languages.vocabulary import ENGLISH, Vocabulary
from agents.redaction.names import names
from agents.redaction.numbers import numbers
from agents.redaction.own_patterns import own
from agents.redaction.streets import streets
from schemas.accounts.redaction import EVERYTHING, RedactionPolicy

_DETECTORS: Final[tuple[Callable[[Words], Iterator[Finding]], ...]] = (
    numbers,
    ibans,
    emails,
    addresses,
    streets,
    birthdays,
    names,
)


def detect(texts: Sequence[str], policy: RedactionPolicy = EVERYTHING, language: Vocabulary = ENGLISH) -> list[Finding]:
    """The findings in order; none overlaps another. Takes about 20 µs a word."""
    words = Words(texts, policy.region, language)
    found = chain.from_iterable(detector(words) for detector in _DETECTORS)
    return joined(chain((one for one in found if one.kind in policy.kinds), own(words, policy.patterns)))
