"""A phonetic key of English words, by which words that sound alike are recognized."""

from __future__ import annotations

import re
from functools import lru_cache

#: Replacements of spellings by sounds, in order; after Philips' Metaphone (1990), simplified. All vowels become "a".
_RULES = [
    (re.compile(pattern), sound)
    for pattern, sound in (
        (r"^(kn|gn|pn|wr|ps)", lambda m: m[0][1]), (r"^x", "s"), (r"^wh", "w"), (r"mb$", "m"), (r"tch", "C"),
        (r"sch", "sk"), (r"ch|tu(?=[aeiou])", "C"), (r"sh|ti(?=[ao])|ci(?=[ao])|si(?=o)", "S"), (r"ph", "f"),
        (r"th", "T"), (r"gh(?=[aeiou])", "g"), (r"gh", ""), (r"dg(?=[eiy])", "j"),
        (r"c(?=[eiy])", "s"), (r"ck|c|q", "k"),
        (r"g(?=[eiy])", "j"), (r"x", "ks"), (r"z", "s"), (r"v", "f"), (r"d(?!$)", "t"), (r"d$", "t"), (r"b", "p"),
        (r"g", "k"), (r"j", "C"), (r"(?<=[aeiou])h|h(?=$|[^aeiou])", ""), (r"w(?![aeiou])", ""), (r"[aeiouy]+", "a"),
        (r"(.)\1+", r"\1"), (r"a$", ""),
    )
]  # fmt: skip


@lru_cache(1 << 16)
def sound(word: str) -> str:
    """The key: classes of consonants, and "a" for vowels. The word itself if it is not in ASCII letters."""
    if not word.isascii() or not word.isalpha():
        return word
    key = word
    for pattern, replacement in _RULES:
        key = pattern.sub(replacement, key)
    return key or word
