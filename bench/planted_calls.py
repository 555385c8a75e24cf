"""Sentences of calls with planted personal data of twelve kinds, written and spoken, made from a seed.

Names are of many origins, chosen without the lists that the detectors read; values are random; and between them stand
amounts, years, times and products that must stay.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from schemas.accounts.redaction import OwnPattern, RedactionPolicy

#: What a tenant of these calls has set: its customers' numbers are a pattern of its own.
POLICY: Final = RedactionPolicy(patterns=(OwnPattern(label="CUSTOMER", pattern=r"\bKD-?\d{6}\b"),))

KINDS: Final = (
    *("card", "security_code", "iban", "account", "ssn", "phone", "email", "address", "date_of_birth", "name", "id"),
    "CUSTOMER",
)


@dataclass(frozen=True)
class Planted:
    """A value: its words from `start` to `end` (exclusive), its kind, and whether it is spoken."""

    start: int
    end: int
    kind: str
    is_spoken: bool


@dataclass(frozen=True)
class Call:
    """The words of some sentences."""

    words: tuple[str, ...]
    planted: tuple[Planted, ...]


FIRST: Final = (
    "Priya Olu Siobhan Wojciech Yusuf Anneliese Thaddeus Xiomara Niamh Kwame Ingrid Rashid Mei-Ling Zoltan Beatriz "
    "Dmitri Aoife Hamza Soledad Bjorn Jennifer Robert Patricia Kevin Deborah Gregory Michelle Raymond Cynthia Douglas "
    "Megan Brandon Tiffany Malik Svetlana Lakshmi Eoin Fatima Hiroshi Guadalupe"
).split()
LAST: Final = (
    "Raghunathan Okonkwo Gallagher Kowalczyk Al-Farsi Brandtner Featherstone Villanueva O'Sullivan Asante Lindqvist "
    "Siddiqui Zhang Horvath Carvalho Petrovic Fitzgerald Chaudhry Montenegro Halvorsen Thompson Castellanos Whitaker "
    "Nakamura Delacroix Abernathy Stankiewicz Mbeki Rosenthal Underhill"
).split()
STREETS: Final = "Maple|Elm|Birchwood|Kensington|Harbor View|Fifth|Old Mill|Sunset|Jefferson|Copper Beech".split("|")
SUFFIXES: Final = ("Street", "Avenue", "Road", "Lane", "Drive", "Boulevard", "Court")
CITIES: Final = (
    ("Springfield", "Illinois", "IL"), ("Boise", "Idaho", "ID"), ("Portland", "Oregon", "OR"),
    ("Albany", "New York", "NY"), ("Austin", "Texas", "TX"), ("Tampa", "Florida", "FL"),
)  # fmt: skip
MONTHS: Final = ("January February March April May June July August September October November December").split()
ONES: Final = "zero one two three four five six seven eight nine".split()
TEENS: Final = ("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen").split()
TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS: Final = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
).split()

#: Sentences in which nothing is personal.
PLAIN: Final = (
    "We shipped 150,000 units in 2019 and 2020, which is 12.5 percent more.",
    "The invoice was for $1,284.50 and it was due at 10:30 in the morning.",
    "Let me put you on hold for two or three minutes while I check that.",
    "Revenue was 4.2 billion dollars in the fourth quarter.",
    "I bought the Galaxy S24 last summer and the screen broke twice.",
    "Your next payment of forty five dollars is due on the fifteenth of the month.",
    "There were one hundred and twenty people in the line in front of me.",
    "I have been a customer since 2011 and I never had a problem like this.",
    "The delivery takes five to seven working days, sometimes ten.",
    "May I ask why you would like to cancel the contract today?",
    "It will be between twenty and thirty degrees over the weekend.",
    "Is there anything else that I can help you with this afternoon?",
    "The train leaves at six forty five and arrives around nine.",
    "We grew from two thousand to three thousand employees in one year.",
    "I will grant you that the bill was hard to read.",
    "The loan has a rate of 3.75 percent for thirty years.",
)


def said(number: int) -> str:
    """A number below 100 in words."""
    if number < 10:
        return ONES[number]
    if number < 20:
        return TEENS[number - 10]
    return TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else "")


class Maker:
    """Makes calls."""

    #: Sentences that stand between those with values.
    plain: tuple[str, ...] = PLAIN

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def digits(self, count: int) -> str:
        """Random digits, the first of which is none of 0 and 1."""
        return str(self.random.randint(2, 9)) + "".join(self.random.choices("0123456789", k=count - 1))

    def spoken_digits(self, digits: str, group: int = 4) -> str:
        """Digits as people say them: one by one, doubled, in tens, with hesitations."""
        words: list[str] = []
        at = 0
        style = self.random.choice(("single", "single", "pairs"))
        while at < len(digits):
            if at and at % group == 0 and self.random.random() < 0.25:
                words.append(self.random.choice(("um", "uh", "okay", "then")))
            pair = digits[at : at + 2]
            if len(pair) == 2 and pair[0] == pair[1] and self.random.random() < 0.5:
                words += ["double", self.one(pair[0])]
                at += 2
            elif style == "pairs" and len(pair) == 2 and int(pair) >= 10:
                words += said(int(pair)).split()
                at += 2
            else:
                words.append(self.one(digits[at]))
                at += 1
        return " ".join(words)

    def one(self, digit: str) -> str:
        """One digit."""
        return "oh" if digit == "0" and self.random.random() < 0.5 else ONES[int(digit)]

    def letters(self, text: str) -> str:
        """Letters one by one."""
        return " ".join(text.upper())

    def grouped(self, digits: str, sizes: Sequence[int], separators: Sequence[str] = (" ", "-", "")) -> str:
        """Digits in groups."""
        parts, at = [], 0
        for size in sizes:
            parts.append(digits[at : at + size])
            at += size
        return self.random.choice(separators).join(part for part in parts if part)

    # Each returns the sentence with the value between braces.

    def card(self, *, spoken: bool) -> str:
        """A card; one in five has a wrong check digit, as misheard ones have."""
        body = self.random.choice(("4", "5", "37", "6011"))
        size = 15 if body == "37" else 16
        body += "".join(self.random.choices("0123456789", k=size - 1 - len(body)))
        total = sum(sum(divmod(int(d) * 2, 10)) if n % 2 == 0 else int(d) for n, d in enumerate(reversed(body)))
        check = (10 - total % 10) % 10
        number = body + str(check if self.random.random() < 0.8 else (check + 3) % 10)
        value = self.spoken_digits(number) if spoken else self.grouped(number, (4, 4, 4, 4))
        return self.pick("My card number is {%s}, thanks.", "It's a Visa, {%s}.", "Can you charge {%s} please?",
                         "Sure, the number is {%s}.") % value  # fmt: skip

    def security_code(self, *, spoken: bool) -> str:
        """A security code, a PIN, or a verification code."""
        number = self.digits(self.random.choice((3, 4, 6)))
        value = self.spoken_digits(number) if spoken else number
        return self.pick("The security code on the back is {%s}.", "My PIN is {%s}.", "The CVV is {%s}, right?",
                         "The verification code that I got is {%s}.") % value  # fmt: skip

    def iban(self, *, spoken: bool) -> str:
        """An IBAN with right check digits."""
        country, size = self.random.choice((("DE", 18), ("GB", 14), ("FR", 23), ("NL", 10)))
        bank = {"GB": "NWBK", "NL": "ABNA"}.get(country, "")
        body = bank + self.digits(size)
        rest = int("".join(str(int(c, 36)) for c in body + country + "00")) % 97
        iban = f"{country}{98 - rest:02}{body}"
        if spoken:
            head = len(country) + 2 + len(bank)
            parts = [self.letters(country), self.spoken_digits(iban[2:4])]
            parts += [self.letters(bank)] if bank else []
            value = " ".join([*parts, self.spoken_digits(iban[head:])])
        else:
            value = iban if self.random.random() < 0.5 else " ".join(iban[n : n + 4] for n in range(0, len(iban), 4))
        return (
            self.pick("The IBAN is {%s}.", "Please send it to {%s}, that's my bank.", "You can use {%s} for it.")
            % value
        )

    def account(self, *, spoken: bool) -> str:
        """A bank account or a routing number."""
        number = self.digits(self.random.choice((8, 9, 10, 12)))
        value = self.spoken_digits(number, 3) if spoken else number
        return self.pick("My account number is {%s}.", "The routing number is {%s}, I think.",
                         "It comes from the checking account {%s}.", "So that is {%s} at my bank.") % value  # fmt: skip

    def ssn(self, *, spoken: bool) -> str:
        """A social security number."""
        number = self.digits(9)
        value = self.spoken_digits(number, 3) if spoken else self.grouped(number, (3, 2, 4), ("-", " ", ""))
        return self.pick("My social security number is {%s}.", "The social is {%s}.", "Sure, it is {%s}.") % value

    def phone(self, *, spoken: bool) -> str:
        """A telephone number of the USA."""
        area = self.random.choice(("415", "212", "617", "303", "512", "206"))
        number = area + self.random.choice("23456789") + "".join(self.random.choices("0123456789", k=6))
        three = number[:3], number[3:6], number[6:]
        written = ("({}) {}-{}", "{}-{}-{}", "+1 {} {} {}", "{}{}{}", "{}.{}.{}")
        value = self.spoken_digits(number, 3) if spoken else self.pick(*written).format(*three)
        return self.pick("You can call me back at {%s}.", "My cell phone is {%s}.", "Text me on {%s}, please.",
                         "The best number is {%s}.") % value  # fmt: skip

    def email(self, *, spoken: bool) -> str:
        """An e-mail address."""
        first, last = self.pick(*FIRST).lower().replace("-", ""), self.pick(*LAST).lower().replace("-", "")
        last = last.replace("'", "")
        domain, ending = self.pick("gmail", "outlook", "example", "northwind traders"), self.pick("com", "org", "net")
        if not spoken:
            local = self.pick(f"{first}.{last}", f"{first[0]}{last}{self.digits(2)}", f"{last}_{first}")
            value = f"{local}@{domain.replace(' ', '')}.{ending}"
        else:
            local = self.pick(f"{first} dot {last}", f"{first[0]} {last} {self.spoken_digits(self.digits(2))}",
                              f"{first} underscore {last}", " ".join(last), f"{first}{last}")  # fmt: skip
            value = f"{local} at {domain} dot {ending}"
        return self.pick("My e-mail is {%s}.", "Send it to {%s}, please.", "You can write to {%s}.",
                         "The address on file is {%s}.") % value  # fmt: skip

    def address(self, *, spoken: bool) -> str:
        """A postal address."""
        house, street = self.random.randint(11, 1899), f"{self.pick(*STREETS)} {self.pick(*SUFFIXES)}"
        city, state, code = self.pick(*CITIES)
        zip_code = self.digits(5)
        if spoken:
            number = (
                f"{said(house // 100)} {said(house % 100)}"
                if house > 99 and house % 100 > 9
                else self.spoken_digits(str(house))
            )
            value = f"{number} {street}, {city}, {state} {self.spoken_digits(zip_code, 9)}"
        else:
            unit = self.pick("", f" Apt {self.random.randint(1, 40)},", f" Suite {self.random.randint(100, 400)},")
            value = f"{house} {street},{unit} {city}, {self.pick(state, code)} {zip_code}"
        return self.pick("I live at {%s}.", "Please ship it to {%s}.", "The billing address is {%s}.") % value

    def date_of_birth(self, *, spoken: bool) -> str:
        """A date of birth."""
        year, month, day = self.random.randint(1935, 2004), self.random.randint(1, 12), self.random.randint(1, 20)
        if spoken:
            tail = said(year % 100) if year % 100 > 9 else f"oh {ONES[year % 100]}"
            years = (
                f"nineteen {tail}"
                if year < 2000
                else f"two thousand and {said(year % 100)}"
                if year > 2000
                else "two thousand"
            )
            value = self.pick(
                f"{MONTHS[month - 1]} {ORDINALS[day - 1]} {years}",
                f"the {ORDINALS[day - 1]} of {MONTHS[month - 1]} {years}",
            )
            value = value.removeprefix("the ")
        else:
            value = self.pick(
                f"{month:02}/{day:02}/{year}", f"{MONTHS[month - 1]} {day}, {year}", f"{year}-{month:02}-{day:02}"
            )
        return self.pick("My date of birth is {%s}.", "I was born on {%s}.", "And your birthday? It's {%s}.") % value

    def name(self, *, spoken: bool) -> str:
        """A name; spoken: with its letters."""
        first, last = self.pick(*FIRST), self.pick(*LAST)
        if spoken:
            return (
                self.pick("My last name is {%s}.", "It's under the name {%s}.")
                % f"{last}, {self.letters(last.replace('-', ''))}"
            )
        with_first = (
            *("My name is {%s}.", "This is {%s} speaking.", "Thanks, {%s}, one moment."),
            *("I talked to {%s} yesterday.", "Hi, I'm {%s}, how can I help?", "Could you ask {%s} about that?"),
        )
        kind = self.random.random()
        if kind < 0.55:
            return self.pick(*with_first) % f"{first} {last}"
        if kind < 0.8:
            return self.pick(*with_first) % first
        return self.pick("Is Mr. {%s} there?", "I spoke with Ms. {%s}.", "Dr. {%s} sent me to you.") % last

    def code(self, *, spoken: bool) -> str:
        """A number, or two letters and a number, as they are said or written."""
        if self.random.random() < 0.5:
            code = "".join(self.random.choices("BCDFHJKLMNPQRSTVWXZ", k=2)) + self.digits(self.random.choice((6, 7)))
            return f"{self.letters(code[:2])} {self.spoken_digits(code[2:], 3)}" if spoken else code
        code = self.digits(self.random.choice((7, 8, 10, 11)))
        return self.spoken_digits(code, 3) if spoken else code

    def id(self, *, spoken: bool) -> str:
        """Another number or code that identifies somebody."""
        value = self.code(spoken=spoken)
        return self.pick("The policy number is {%s}.", "My passport number is {%s}.", "The claim is {%s}.",
                         "The reference they gave me was {%s}.", "My driver's license is {%s}.") % value  # fmt: skip

    def customer(self, *, spoken: bool) -> str:
        """A number in the tenant's own pattern."""
        digits = self.digits(6)
        value = f"K D {self.pick('dash ', '')}{self.spoken_digits(digits, 9)}" if spoken else f"KD-{digits}"
        return self.pick("My customer number is {%s}.", "It says {%s} on the letter.") % value

    def pick(self, *choices):  # type: ignore[no-untyped-def]
        """One of the choices."""
        return self.random.choice(choices)

    def call(self, kinds: Sequence[str]) -> Call:
        """Some sentences, one for each of these kinds and others between them."""
        words: list[str] = []
        planted: list[Planted] = []
        for kind in kinds:
            words += self.random.choice(self.plain).split()
            is_spoken = self.random.random() < 0.5
            makers: dict[str, Callable[..., str]] = {"CUSTOMER": self.customer}
            sentence = (makers.get(kind) or getattr(self, kind))(spoken=is_spoken)
            before, rest = sentence.split("{", 1)
            value, after = rest.split("}", 1)
            words += before.split()
            start = len(words)
            words += (value + after.split(" ", 1)[0]).split()
            planted.append(Planted(start, len(words), kind, is_spoken))
            words += after.split(" ", 1)[1].split() if " " in after else []
        if self.random.random() < 0.3:  # as recognizers write that know neither capitals nor punctuation
            words = [word.lower().strip(".,?!") or word for word in words]
        return Call(tuple(words), tuple(planted))


def calls(count: int = 500, seed: int = 11) -> list[Call]:
    """Calls with three values each, of all kinds in turn."""
    maker = Maker(seed)
    return [maker.call([KINDS[(3 * number + n) % len(KINDS)] for n in range(3)]) for number in range(count)]
