"""What a language has to do with personal data: how numbers and letters are said, what introduces a name, what follows
a street. Each language is a file, `<language>.toml`; entries that a file leaves out are empty.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, Literal

from schemas.accounts.redaction import LANGUAGES

#: What is never part of a name, in any language: what stands for something that was hidden.
HIDDEN: Final = "[]"

#: The order of the parts of an address: "12 Main Street", "Hauptstraße 12", "12 rue Haute", "calle Mayor 12".
Layout = Literal["number name type", "name type number", "number type name", "type name number"]

Phrase = tuple[str, ...]
Words = frozenset[str]


@dataclass(frozen=True, eq=False, kw_only=True)
class Vocabulary:
    """One language. All words are in lower case."""

    #: Primary subtag of BCP 47.
    language: str
    #: Countries (ISO 3166) of telephone numbers without a prefix, beside the policy's.
    regions: Words = frozenset()
    #: Whether common nouns are written with a capital, so that one does not make a word a name.
    has_capital_nouns: bool = False

    # Numbers and letters.

    #: By word, the digits that it says; in a language that says "twenty" and "one" as two words, the tens' first digit.
    digits: Mapping[str, str] = field(default_factory=dict)
    tens: Mapping[str, str] = field(default_factory=dict)
    hundred: Words = frozenset()
    #: The numbers from 0 to 99, alternatives divided by commas; larger ones to which they are added, as "dreihundert";
    #: and what stands between the two. Words that are written with a hyphen may be written apart.
    numbers: tuple[str, ...] = ()
    bases: Mapping[str, str] = field(default_factory=dict)
    base_joiner: str = ""
    #: By word, how often the next digit is said ("double four").
    repeats: Mapping[str, int] = field(default_factory=dict)
    #: By word, the letter that it says ("bravo", "ypsilon").
    letters: Mapping[str, str] = field(default_factory=dict)
    #: Words that people say in the middle of a number, and what stands between a letter and a word with it.
    fillers: Words = frozenset()
    meaning: tuple[Phrase, ...] = ()
    #: Letters that are words of sentences.
    word_letters: Words = frozenset()
    #: Those of which the letter is not meant even between two numbers ("2019 y 2020").
    joining_letters: Words = frozenset()
    #: What a word begins with that is no part of it ("l'adresse").
    elided: Words = frozenset()
    #: Written quantities, beside those of all languages; and what looks like a code.
    quantities: re.Pattern[str] = re.compile(r"(?!)")
    abbreviations: Words = frozenset()
    #: By word, the sign that it says.
    signs: Mapping[str, str] = field(default_factory=dict)

    # Kinds of numbers.

    #: By word, the kind that it names; of compound words, by what they contain, the first that fits; and by two words.
    kinds: Mapping[str, str] = field(default_factory=dict)
    kind_parts: Mapping[str, str] = field(default_factory=dict)
    kind_phrases: Mapping[str, str] = field(default_factory=dict)
    #: "Code", which is the card's where one was spoken of; where cards have it; how the end of a number is asked for.
    codes: Words = frozenset()
    cards: Words = frozenset()
    on_the_back: Phrase = ()
    last_four: Phrase = ()
    #: What is counted, behind a quantity.
    units: Words = frozenset()
    #: Digits of a telephone number without its area code, where all have as many; 0 where they have not.
    local_digits: int = 0
    #: Whether thousands are divided by spaces, so that they are words.
    has_spaced_thousands: bool = False

    # Dates of birth.

    months: Words = frozenset()
    ordinals: re.Pattern[str] = re.compile(r"(?!)")
    #: What a date of birth follows, what stands in a date, and which of that may end one.
    birth: Words = frozenset()
    in_dates: Words = frozenset()
    large: Words = frozenset()

    # E-mail.

    at: Words = frozenset()
    dots: Words = frozenset()
    joiners: Words = frozenset()
    #: Words before an "at" that name a page, not a person; words that end a domain; hosts whose ending goes unsaid.
    pages: Words = frozenset()
    endings: Words = frozenset()
    post: Words = frozenset()

    # Addresses.

    street_layout: Layout = "number name type"
    #: Words for streets, and what compound words for streets end with.
    streets: Words = frozenset()
    street_endings: tuple[str, ...] = ()
    #: Words for a part of a house, which a number follows, and what may stand before a house's number.
    homes: Words = frozenset()
    house: Words = frozenset()
    directions: Words = frozenset()
    street_ordinals: re.Pattern[str] = re.compile(r"(?!)")
    #: Words of sentences that stand in names of streets.
    in_streets: Words = frozenset()
    #: Words of the sentence before a street's name, which are none of it though they may stand in others.
    before_street: Words = frozenset()
    #: Words that a postal code follows; words that tell of somebody's address; words before a city.
    postal: Words = frozenset()
    living: Words = frozenset()
    before_city: Words = frozenset()
    states: Words = frozenset()
    state_codes: Words = frozenset()

    # Names.

    #: Words that hold sentences together: none is a part of a name.
    function_words: Words = frozenset()
    #: Whether the names are those of the census of the USA, beside the names of the file.
    census: bool = False
    listed_first_names: Words = frozenset()
    listed_last_names: Words = frozenset()
    #: First names that are words as well: alone, they are none.
    names_too: Words = frozenset()
    #: Phrases after which comes a name, whatever it is; and if the word is a first name, or is written like a name.
    introductions: tuple[Phrase, ...] = ()
    weak_introductions: tuple[Phrase, ...] = ()
    #: Words behind a name, and words before one that make it such where no capital does.
    behind: Words = frozenset()
    is_words: Words = frozenset()
    #: Parts of last names; words that are written like names, and are none; words before the letters of a name.
    particles: Words = frozenset()
    no_names: Words = frozenset()
    #: Words of sentences that a last name may begin with.
    first_particles: Words = frozenset()
    #: What common nouns end with, where they have capitals.
    noun_endings: tuple[str, ...] = ()
    spelling: Words = frozenset()

    @cached_property
    def first_names(self) -> Words:
        """First names without those that are words as well."""
        return self.all_first_names - self.names_too

    @cached_property
    def all_first_names(self) -> Words:
        """The same with those that are words, too, such as "Martin" and "Grace"."""
        census = _census("first:male") | _census("first:female") if self.census else frozenset()
        return (census | self.listed_first_names) - self.function_words

    @cached_property
    def last_names(self) -> Words:
        """Last names, among them words; of the census of the USA there are 88,799."""
        return self.listed_last_names | (_census("last") if self.census else frozenset())

    @cached_property
    def number_phrases(self) -> Mapping[Phrase, str]:
        """By the folded words of a number, its digits."""
        said = [(str(value), [one.strip() for one in texts.split(",")]) for value, texts in enumerate(self.numbers)]
        phrases = {_parts(text): digits for digits, texts in said for text in texts}
        for base, texts in self.bases.items():
            for begin in (one.strip() for one in texts.split(",")):
                phrases.setdefault(_parts(begin), base)
                for digits, rests in said[1:]:
                    for rest in rests:
                        phrases[_parts(f"{begin}{self.base_joiner}{rest}")] = str(int(base) + int(digits))
        return phrases

    @cached_property
    def number_beginnings(self) -> Words:
        """The first words of numbers that have several."""
        return frozenset(parts[0] for parts in self.number_phrases if len(parts) > 1)

    def number(self, words: Iterable[str]) -> str | None:
        """The digits of a number in words."""
        if not self.numbers:
            return None
        return self.number_phrases.get(tuple(part for word in words for part in _parts(word)))

    def without_article(self, word: str) -> str:
        """The word without what it begins with: "adresse" for "l'adresse"."""
        word = word.replace("\u2019", "'") if self.elided else word
        for begin in self.elided:
            if word.startswith(begin) and len(word) > len(begin):
                return word.removeprefix(begin)
        return word

    def kind_of(self, word: str) -> str | None:
        """The kind of number that a word names."""
        if (kind := self.kinds.get(word)) is not None:
            return kind
        return next((kind for part, kind in self.kind_parts.items() if part in word and part != word), None)

    def is_street(self, word: str) -> bool:
        """Whether a word is one for a street, or ends with one."""
        ending = next((end for end in self.street_endings if word.endswith(end)), None)
        return word in self.streets or (ending is not None and len(word) > len(ending) + 1)


def folded(text: str) -> str:
    """A text without accents and other marks."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _parts(text: str) -> Phrase:
    return tuple(folded(text).replace("-", " ").split())


def vocabulary(language: str | None) -> Vocabulary:
    """The words of a language (BCP 47), those of English for others and where none is known."""
    code = (language or "en").replace("_", "-").split("-")[0].lower()
    return _vocabulary(code if code in LANGUAGES else "en")


@cache
def _vocabulary(code: str) -> Vocabulary:
    entries = tomllib.loads(Path(__file__).with_name(f"{code}.toml").read_text("utf-8"))
    return Vocabulary(**{name: _read(name, entry) for name, entry in entries.items()})


def _read(name: str, entry: Any) -> Any:
    """An entry of a file as the field of this name has it."""
    kind = str(Vocabulary.__annotations__[name])
    if isinstance(entry, dict):
        number = int if kind == "Mapping[str, int]" else str
        # A file has what is said and, for each, several words or phrases.
        words = {said: _phrases(text) if name == "kind_phrases" else text.split() for said, text in entry.items()}
        return entry if name == "bases" else {word: number(said) for said, all_ in words.items() for word in all_}
    if not isinstance(entry, str) or kind in ("str", "Layout"):
        return tuple(entry) if isinstance(entry, list) else entry
    match kind:
        case "re.Pattern[str]":
            return re.compile("".join(entry.split()), re.IGNORECASE)
        case "tuple[Phrase, ...]":
            return tuple(tuple(phrase.split()) for phrase in entry.split("|"))
        case "tuple[str, ...]" if "|" in entry:
            return tuple(" ".join(one.split()) for one in entry.split("|"))
        case "Phrase" | "tuple[str, ...]":
            return tuple(entry.split())
    return frozenset(_phrases(entry) if "|" in entry else entry.split())


def _phrases(text: str) -> list[str]:
    return [" ".join(phrase.split()) for phrase in text.split("|")]


def _census(which: str) -> Words:
    from names import FILES

    lines = Path(FILES[which]).read_text("ascii").splitlines()
    return frozenset(line.split()[0].lower() for line in lines if line.strip())


#: What is taken for the language where nobody knows it.
ENGLISH: Final = vocabulary("en")
