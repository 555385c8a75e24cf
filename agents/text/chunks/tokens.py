"""How long a text is for a language model, by the rule of four characters a token.

Models count with tokenizers of their own; the rule is what all of them have in common (within a fifth, for European
languages), and needs no download. In scripts without spaces between words, a character counts as a token.
"""

from __future__ import annotations

from schemas.texts import is_unspaced

#: The rule's name, which results repeat.
RULE = "4 characters a token"


def tokens(text: str) -> int:
    """Tokens of a text, rounded up."""
    unspaced = 0 if text.isascii() else sum(map(is_unspaced, text))
    return unspaced + -(-(len(text) - unspaced) // 4)


def spaced(text: str) -> str:
    """The text with spaces around characters of scripts without spaces, so that each is a word for a search."""
    if text.isascii() or not any(map(is_unspaced, text)):
        return text
    return " ".join("".join(f" {c} " if is_unspaced(c) else c for c in text).split())
