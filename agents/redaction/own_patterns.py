"""Finds a tenant's own patterns, by an engine whose time is linear in the text, whatever the pattern is."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from agents.redaction.finding import Finding, Words
from agents.redaction.symbols import pieces
from schemas.accounts.redaction import OwnPattern, compiled


def own(words: Words, patterns: Iterable[OwnPattern]) -> Iterator[Finding]:
    """What the patterns match: in the text as it is written, and with spoken digits and letters as one figure."""
    searches = [(one.label, compiled(one.pattern)) for one in patterns]
    if not searches:
        return
    for text, starts in (_written(words), _figures(words)):
        for label, pattern in searches:
            for match in pattern.finditer(text):
                if match.end() > match.start():
                    first, last = (bisect_right(starts, at) - 1 for at in (match.start(), match.end() - 1))
                    yield Finding(first, last + 1, label, rank=0)


def _written(words: Words) -> tuple[str, list[int]]:
    return _laid_out([f"{text} " for text in words.texts])


def _figures(words: Words) -> tuple[str, list[int]]:
    """The text in which digits and letters that are said one by one are written as one word."""
    parts, signs = pieces(words.symbols), words.vocabulary.signs
    texts = [f"{text} " for text in words.texts]
    for at, one in enumerate(words.symbols):
        is_inside = 0 < at < len(texts) - 1 and bool(words.symbols[at - 1].chars) and bool(words.symbols[at + 1].chars)
        if one.plain in signs and is_inside:
            texts[at] = signs[one.plain]
        elif one.role in ("digits", "letters", "tens", "hundred", "repeat", "part") and not one.is_written:
            texts[at] = parts[at]
        elif one.is_written:
            texts[at] = words.texts[at].strip(".,;:?!")
        if texts[at] and not texts[at].endswith(" ") and not _joins(words, at + 1):
            texts[at] += " "
    return _laid_out(texts)


def _joins(words: Words, at: int) -> bool:
    return at < len(words.symbols) and (bool(words.symbols[at].chars) or words.plain[at] in words.vocabulary.signs)


def _laid_out(texts: Sequence[str]) -> tuple[str, list[int]]:
    """The text, and where each word begins in it."""
    starts, at = [], 0
    for text in texts:
        starts.append(at)
        at += len(text)
    return "".join(texts), starts
