"""How common words are in other languages than English, from the lists of `wordfreq` (Speer 2022; data CC BY-SA 4.0).

The lists are read when a language is first asked for: importing the package takes 0.4 s, a language 0.3 s. English has
a table of its own in the calibration.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from agents.text.normalisation.normalise import normalised

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The commonest words of a language that are used, as many as the calibration has of English; and languages that are
#: kept in memory, of about 8 MB each.
WORDS, KEPT = 60_000, 4

#: The lists' codes of languages that have others in tags.
_LISTS = {
    "no": "nb", "nn": "nb", "hr": "sh", "sr": "sh", "bs": "sh", "tl": "fil", "iw": "he", "in": "id", "cmn": "zh",
}  # fmt: skip


def frequencies(tag: str) -> Mapping[str, float]:
    """By token, its Zipf frequency (log10 of occurrences in 10^9 words) in the language of a BCP 47 tag; empty if there
    is no list.

    The tokens are those that `normalised` makes of the language's words: single characters in scripts without spaces,
    the parts of `l'homme`. Of Chinese, the characters are the simplified ones.
    """
    code = tag.replace("_", "-").split("-", maxsplit=1)[0].lower()
    return _table(_LISTS.get(code, code))


@lru_cache(KEPT)
def _table(code: str) -> Mapping[str, float]:
    from wordfreq import read_cBpack

    path = _paths().get(code)
    rates: dict[str, float] = defaultdict(float)
    words = 0
    for centibels, alike in enumerate(read_cBpack(path) if path else ()):
        if words >= WORDS:
            break
        words += len(alike)
        for token in normalised(" ".join(alike), code):
            rates[token] += 10 ** (-centibels / 100)
    # The lists have 0 for every digit, so that they say nothing of numbers.
    return {token: round(math.log10(rate) + 9, 2) for token, rate in rates.items() if not token.isdecimal()}


@cache
def _paths() -> dict[str, str]:
    from wordfreq import available_languages

    return available_languages("best")
