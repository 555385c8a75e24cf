"""Converts spelled numbers to digits: a port of the number rules in Whisper's English normaliser (MIT, OpenAI)."""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = {
    name: value
    for value, name in enumerate(
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen".split(),
        start=1,
    )
}
_ONES_SUFFIXED = {
    **{("sixes" if name == "six" else name + "s"): (value, "s") for name, value in _ONES.items()},
    "zeroth": (0, "th"), "first": (1, "st"), "second": (2, "nd"), "third": (3, "rd"), "fifth": (5, "th"),
    "twelfth": (12, "th"),
    **{
        name + ("h" if name.endswith("t") else "th"): (value, "th")
        for name, value in _ONES.items()
        if value > 3 and value not in {5, 12}
    },
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_TENS_SUFFIXED = {
    **{name.replace("y", "ies"): (value, "s") for name, value in _TENS.items()},
    **{name.replace("y", "ieth"): (value, "th") for name, value in _TENS.items()},
}
_MULTIPLIERS = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "quadrillion": 10**15,
}  # fmt: skip
_MULTIPLIERS_SUFFIXED = {
    **{name + "s": (value, "s") for name, value in _MULTIPLIERS.items()},
    **{name + "th": (value, "th") for name, value in _MULTIPLIERS.items()},
}
#: By word that is added to a number, or multiplies it: its value, and the suffix that ends the number.
_ADDENDS = {name: (value, "") for name, value in (_ONES | _TENS).items()} | _ONES_SUFFIXED | _TENS_SUFFIXED
_FACTORS = {name: (value, "") for name, value in _MULTIPLIERS.items()} | _MULTIPLIERS_SUFFIXED
_ZEROS = frozenset({"o", "oh", "zero"})
_DIGITS = _ONES | dict.fromkeys(_ZEROS, 0)
_DECIMALS = frozenset({*_ONES, *_TENS, *_ZEROS})
_REPEATS = {"double": 2, "triple": 3}
_BEFORE = {"minus": "-", "negative": "-", "plus": "+", "positive": "+"}
_AFTER = {
    "pound": "£", "pounds": "£", "euro": "€", "euros": "€", "dollar": "$", "dollars": "$", "cent": "¢", "cents": "¢",
}  # fmt: skip
_SIGNS = frozenset("-+£€$¢")

#: All words that can be part of a number.
NUMBER_WORDS = frozenset({
    *_ZEROS, *_ADDENDS, *_FACTORS, *_REPEATS, *_BEFORE, *_AFTER, "per", "percent", "and", "point",
})  # fmt: skip
_ARABIC = re.compile(r"\d+(\.\d+)?\Z", re.ASCII)


def read_numbers(words: list[str]) -> list[str]:
    """The tokens with spelled numbers as digits: ["one", "oh", "one"] is ["101"], ["five", "dollars"] is ["$5"]."""
    reader = _Reader(words)
    skip = False
    for position in range(len(words)):
        skip = False if skip else reader.step(position)
    reader.flush()
    return [{"1": "one", "1s": "ones"}.get(token, token) for token in reader.out]


class _Reader:
    """The state between two words: the number so far (an int, or a text of digits with leading zeros) and its sign."""

    def __init__(self, words: list[str]) -> None:
        #: With an empty word before the first and after the last one.
        self.words = ["", *words, ""]
        self.out: list[str] = []
        self.value: int | str | None = None
        self.prefix = ""

    def put(self, token: int | str) -> None:
        """Append a token, with the sign if there is one, and reset the state."""
        self.out.append(f"{self.prefix}{token}")
        self.value, self.prefix = None, ""

    def flush(self) -> None:
        """Append the number so far, if there is one."""
        if self.value is not None:
            self.put(self.value)

    def step(self, position: int) -> bool:
        """Read one word. True if the following word was read with it."""
        before, word, after = self.words[position : position + 3]
        bare = word[1:] if word[0] in _SIGNS else word
        if _ARABIC.match(bare):
            self._arabic(word, bare)
        elif word in _ZEROS:
            self._append("0")
        elif word in _ADDENDS:
            addend, suffix = _ADDENDS[word]
            self._extend(self._joined(addend, before), suffix)
        elif word in _FACTORS:
            factor, suffix = _FACTORS[word]
            self._extend(self._multiplied(factor), suffix)
        elif word in _AFTER and self.value is not None:
            self.prefix = _AFTER[word]
            self.put(self.value)
        elif word in {"per", "percent"}:
            return self._percent(word, after)
        else:
            return self._other(word, before, after)
        return False

    def _arabic(self, word: str, bare: str) -> None:
        if isinstance(self.value, str) and self.value.endswith("."):
            self.value += word
            return
        self.flush()
        self.prefix = word[0] if bare is not word and bare != word else self.prefix
        # Whisper's rules drop the zeros of "007" but keep those of "oh oh seven"; here both are kept.
        self.value = int(bare) if "." not in bare and (bare[0] != "0" or bare == "0") else bare

    def _append(self, characters: str) -> None:
        """Append digits or a point to the number so far, which becomes a text."""
        self.value = f"{self.value or ''}{characters}"

    def _extend(self, value: int | str, suffix: str) -> None:
        """Set the number so far; a suffix ends it."""
        if suffix:
            self.put(f"{value}{suffix}")
        else:
            self.value = value

    def _joined(self, number: int, before: str) -> int | str:
        """The number so far with another part: "twenty five" is 25, "nineteen ninety" 1990, "two two" 22."""
        value = self.value
        if value is None:
            return number
        if isinstance(value, str) or (before in _ONES and number not in _TENS.values()):
            digits = str(value)
            replace = before in _TENS and number < 10 and digits.endswith("0")
            return (digits[:-1] if replace else digits) + str(number)
        room = 10 if number < 10 else 100
        return value + number if value % room == 0 else f"{value}{number}"

    def _multiplied(self, factor: int) -> int | str:
        value = self.value
        if value is None:
            return factor
        if isinstance(value, str) or value == 0:
            try:
                product = Fraction(value) * factor
            except ValueError:
                product = Fraction(1, 2)
            if product.denominator == 1:
                return product.numerator
            self.put(value)
            return factor
        return value // 1000 * 1000 + value % 1000 * factor

    def _percent(self, word: str, after: str) -> bool:
        if self.value is not None and (word == "percent" or after == "cent"):
            self.put(f"{self.value}%")
            return word == "per"
        self.flush()
        self.put(word)
        return False

    def _other(self, word: str, before: str, after: str) -> bool:
        numeric_next = _is_number(after, NUMBER_WORDS)
        if word == "and" and numeric_next and before in _MULTIPLIERS:
            return False
        if word in _REPEATS and after in _DIGITS:
            self._append(str(_DIGITS[after]) * _REPEATS[word])
            return True
        if word == "point" and _is_number(after, _DECIMALS):
            self._append(".")
            return False
        self.flush()
        if word in _BEFORE and numeric_next:
            self.prefix = _BEFORE[word]
        else:
            self.put(word)
        return False


def _is_number(word: str, number_words: frozenset[str]) -> bool:
    return word in number_words or _ARABIC.match(word) is not None
