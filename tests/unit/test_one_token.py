"""What two recognizers heard alike is written once and whole, in the spelling of one of them."""

import random
import time

import pytest

from agents.text.reconcile import reconcile
from schemas.words import Hypothesis, Word
from tests.examples import examples

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
MONTHS = "January February March April May June July August September October November December".split()
ORDINALS = (
    "- first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
NAMES = "Smith Johnson Okoro Nguyen Schmidt Moon Dietz Aoki Brooks Lee Quinn Zoellner Hutton Ivey".split()
UNITS = {
    "mg": "milligrams", "kg": "kilograms", "ml": "milliliters", "km": "kilometers", "cm": "centimeters",
    "mph": "miles per hour", "mcg": "micrograms", "ft": "feet", "lbs": "pounds", "GB": "gigabytes",
}  # fmt: skip


def spelled(n, *, joint=""):
    """A cardinal number in words; `joint` is "and " where it is said."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f" {ONES[n % 10]}" if n % 10 else "")
    for size, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= size:
            rest = n % size
            return f"{spelled(n // size, joint=joint)} {name}" + (
                f" {joint if size == 100 or rest < 100 else ''}{spelled(rest, joint=joint)}" if rest else ""
            )
    raise AssertionError


def year(n):
    """A year in words."""
    if 2000 <= n < 2010:
        return f"two thousand {ONES[n % 10]}" if n % 10 else "two thousand"
    return f"{spelled(n // 100)} {spelled(n % 100) if n % 100 > 9 else 'oh ' + ONES[n % 100] if n % 100 else 'hundred'}"


def ordinal(n):
    """An ordinal number to 31 in words."""
    return ORDINALS[n] if n <= 20 else "thirtieth" if n == 30 else f"{TENS[n // 10]} {ORDINALS[n % 10]}"


def suffixed(n):
    return f"{n}{'th' if 10 < n < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def a_date(r):
    day, month, y = r.randint(1, 28), r.randint(1, 12), r.choice([*range(1950, 2035)])
    name = MONTHS[month - 1]
    return [
        f"{name} {ordinal(day)} {year(y)}", f"{name} {ordinal(day)}, {y}", f"{name} {suffixed(day)}, {y}",
        f"{name} {day}, {y}", f"{day} {name} {y}", f"the {ordinal(day)} of {name}, {y}", f"{day} {name[:3]} {y}",
        f"{name.lower()} {ordinal(day).replace(' ', '-')} {year(y)}", f"{month}/{day}/{y}", f"{y}-{month:02}-{day:02}",
    ]  # fmt: skip


def a_day(r):
    day, name = r.randint(1, 28), r.choice(MONTHS)
    return [
        f"{name} {ordinal(day)}", f"{name} {suffixed(day)}", f"{name} {day}.", f"the {ordinal(day)} of {name}",
        f"{day} {name}", f"the {suffixed(day)} of {name}", f"{name} the {suffixed(day)}",
    ]  # fmt: skip


def a_time(r):
    hour, minute, half = r.randint(1, 12), r.choice([0, 5, 15, 20, 30, 45, 59]), r.choice("ap")
    words = f"oh {ONES[minute]}" if 0 < minute < 10 else spelled(minute) if minute else ""
    said = f"{ONES[hour]} {words}".strip()
    times = [
        f"{said} {half}.m.", f"{hour}:{minute:02} {half.upper()}M", f"{hour}:{minute:02}{half}m",
        f"{said} {half} m", f"{hour}:{minute:02} {half}.m.", f"{said} {half.upper()}M", f"{said} {half}m.",
    ]  # fmt: skip
    return [*times, f"{hour} {half.upper()}M", f"{hour}{half}m"] if not minute else times


def an_hour(r):
    hour = r.randint(1, 12)
    return [f"{ONES[hour]} o'clock", f"{hour} o'clock", f"{hour}:00"]


def an_amount(r):
    whole, cents = r.choice([r.randint(1, 99), r.randint(100, 9999), r.randint(10_000, 999_999)]), r.randint(1, 99)
    dollars, pence = ("dollar" if whole == 1 else "dollars"), ("cent" if cents == 1 else "cents")
    amounts = [
        f"${whole:,}.{cents:02}", f"${whole}.{cents:02}", f"{spelled(whole)} {dollars} and {spelled(cents)} {pence}",
        f"{spelled(whole)} {dollars} {spelled(cents)} {pence}", f"{whole:,}.{cents:02} {dollars}",
        f"{spelled(whole, joint='and ')} {dollars} and {cents} {pence}", f"${whole:,} and {cents} {pence}",
    ]  # fmt: skip
    if 1100 <= whole < 10_000 and whole // 100 % 10:
        rest = f" {spelled(whole % 100)}" if whole % 100 else ""
        amounts.append(f"{spelled(whole // 100)} hundred{rest} dollars and {spelled(cents)} {pence}")
    return amounts


def a_cardinal(r):
    n = r.choice([r.randint(2, 99), r.randint(100, 999), r.randint(1000, 99_999), r.randint(10**5, 9 * 10**8)])
    numbers = [f"{n:,}", str(n), spelled(n), spelled(n, joint="and "), spelled(n).replace(" ", "-")]
    return [*numbers, f"a{spelled(n)[3:]}"] if spelled(n).startswith(("one hundred", "one thousand")) else numbers


def a_percentage(r):
    whole, part = r.randint(0, 99), r.randint(1, 99)
    digits = " ".join(ONES[int(d)] for d in str(part))
    return [
        f"{whole}.{part}%", f"{whole}.{part} percent", f"{spelled(whole)} point {digits} percent",
        f"{whole}.{part} per cent", f"{spelled(whole)} point {digits} per cent",
    ]  # fmt: skip


def a_large_number(r):
    whole, name = r.randint(1, 99), r.choice(["million", "billion"])
    money = r.random() < 0.5
    scale = 10 ** {"million": 6, "billion": 9}[name]
    sign, unit = ("$", " dollars") if money else ("", "")
    numbers = [
        f"{sign}{whole}.5 {name}", f"{spelled(whole)} and a half {name}{unit}", f"{whole} and a half {name}{unit}",
        f"{spelled(whole)} point five {name}{unit}", f"{whole}.5 {name}{unit}", f"{sign}{whole * scale + scale // 2:,}",
    ]  # fmt: skip
    return [*numbers, f"${whole}.5{name[0].upper()}", f"${whole}.5 {name[0].upper()}"] if money else numbers


def an_ordinal(r):
    n = r.randint(1, 31)
    return [ordinal(n), suffixed(n), ordinal(n).replace(" ", "-")]


def a_spelled_name(r):
    name = (
        r.choice(NAMES).upper()
        if r.random() < 0.5
        else "".join(r.choices("ABCDEFGHIKLMNOPRSTUVWYZ", k=r.randint(3, 8)))
    )
    return [
        " ".join(name),
        "-".join(name),
        ". ".join(name) + ".",
        ", ".join(name),
        f"{name.title()}",
        " ".join(name.lower()),
    ]


def a_measure(r):
    unit = r.choice(sorted(UNITS))
    n = r.randint(2, 900)
    return [f"{n} {unit}", f"{n}{unit}", f"{n} {UNITS[unit]}", f"{spelled(n)} {UNITS[unit]}", f"{spelled(n)} {unit}"]


#: Groups of words that are written in several ways.
WORDS = [
    ["ten K", "10-K", "10K", "10 K"], ["health care", "healthcare", "health-care"], ["e-mail", "email", "e mail"],
    ["gonna", "going to"], ["Dr. Miller", "Doctor Miller", "dr miller"], ["okay", "OK", "O.K.", "ok"],
    ["follow-up", "follow up", "followup"], ["R&D", "R and D", "R & D"], ["four oh one k", "401(k)", "401k"],
    ["COVID-19", "COVID 19", "covid nineteen"], ["can't", "cannot", "can not"], ["anyone", "any one"],
    ["johnsmith@example.com", "john smith at example dot com", "johnsmith at example.com"],
    ["U.S.A.", "USA", "U S A"], ["twenty four seven", "24/7", "24-7"], ["vs.", "versus"], ["etc.", "et cetera"],
    ["123 Main St.", "one twenty three Main Street", "123 Main Street"], ["98.6°", "98.6 degrees"],
    ["nineteen nineties", "1990s", "1990's"], ["Q3", "Q 3", "q three"], ["1/2 percent", "a half percent"],
    ["minus five", "-5", "minus 5"], ["half past three", "3:30", "three thirty"], ["quarter to four", "3:45"],
    ["all right", "alright"], ["wi-fi", "wifi", "Wi Fi"], ["number five", "#5", "No. 5", "number 5"],
    ["two thirds", "2/3"], ["fifty cents", "50 cents", "$0.50", "50¢"], ["double T", "T T", "T-T"],
    ["seventeen hundred", "1700", "1,700"], ["web site", "website"], ["lemme", "let me"],
    ["over-the-counter", "over the counter"],
]  # fmt: skip


def a_word(r):
    return r.choice(WORDS)


KINDS = {
    kind.__name__: kind
    for kind in (
        a_date, a_day, a_time, an_hour, an_amount, a_cardinal, a_percentage, a_large_number, an_ordinal,
        a_spelled_name, a_measure, a_word,
    )
}  # fmt: skip
FRAMES = [
    ("thank you I would say it is", "is that right"),
    ("please write down", "and let me know"),
    ("well they told us about", ""),
    ("", "was what we had talked about"),
]


def heard(provider, before, said, after, length, *, timed):
    """A sentence with `said` in it, which lasts `length` ms, each word as long as its letters."""
    words, at = [], 0
    for text, duration in ((before, 300 * len(before.split())), (said, length), (after, 300 * len(after.split()))):
        size = sum(map(len, text.split())) or 1
        for word in text.split():
            took = duration * len(word) // size
            words.append(Word(word, at if timed else None, at + took if timed else None, 0.9))
            at += took
    return Hypothesis(provider, tuple(words), language="en")


def wrong(kind, seed, count):
    """Of so many random expressions, the results that are not one recognizer's spelling of the whole."""
    r = random.Random(seed)
    for _ in range(count):
        before, after = r.choice(FRAMES)
        some = r.sample(KINDS[kind](r), 2)
        length = max(400, 60 * max(map(len, some)))
        timed = r.random() < 0.7
        result = reconcile(
            [heard(f"r{n}", before, said, after, length, timed=timed) for n, said in enumerate(some)]
        ).text
        if result not in {f"{before} {said} {after}".strip() for said in some}:
            yield f"{' | '.join(some)}: {result}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_spellings_of_one_thing(kind):
    assert list(wrong(kind, 1, examples(60))) == []


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_two_spellings_of_one_thing_many_times(kind):
    assert list(wrong(kind, 2, 400)) == []


FIGURES = "we paid $2.35 on March 3rd, 2026"
IN_WORDS = "We paid two dollars and 35 cents on March third, twenty twenty six."


@pytest.mark.parametrize(("spelling", "expected"), [("figures", "$2.35"), ("words", "two dollars and 35 cents")])
def test_numbers_are_written_as_it_is_set(spelling, expected):
    both = [heard(name, "", said, "", 6000, timed=True) for name, said in (("a", FIGURES), ("b", IN_WORDS))]

    result = reconcile(both, spelling=spelling).text

    assert expected in result
    assert ("twenty twenty six" in result) == (spelling == "words")


def test_numbers_of_a_call_are_in_the_spelling_of_one_recognizer():
    figures = "it was 4:05 pm and then 25 or 3,400"
    words = "it was four oh five p.m. and then twenty five or three thousand four hundred"
    both = [heard(name, "", said, "", 6000, timed=True) for name, said in (("a", figures), ("b", words))]

    assert reconcile(both).text == figures


def test_numbers_that_differ_stay_rivals_as_a_whole():
    one, other = "it costs fifteen dollars and ten cents today", "it costs $50.10 today"
    result = reconcile([heard(name, "", said, "", 3000, timed=True) for name, said in (("a", one), ("b", other))])

    assert result.text in {one, other}
    assert any(decision.others for decision in result.decisions)


def test_the_original_words_and_their_times_are_kept():
    spelled_out = heard("a", "", "the code is S M I T H", "", 4000, timed=True)
    result = reconcile([spelled_out, heard("b", "", "the code is s-m-i-t-h.", "", 4000, timed=False)])

    assert result.text in {"the code is S M I T H", "the code is s-m-i-t-h."}
    assert result.words[3].start_ms == spelled_out.words[3].start_ms


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["one", "hundred"] * 20_000, ["100"] * 15_000),
        (["1-" * 50_000], ["1"] * 50_000),
        (["a@b." * 30_000], ["a", "at"] * 10_000),
        (["x"] * 40_000, ["xx"] * 20_000),
        (["half", "past"] * 20_000, ["$.1.1.1"] * 20_000),
    ],
    ids=["numbers", "one long number", "one long address", "letters", "broken rules"],
)
def test_hostile_numbers_end_soon(one, other):
    started = time.process_time()

    reconcile([Hypothesis(f"r{k}", tuple(map(Word, side))) for k, side in enumerate((one, other))])

    assert time.process_time() - started < 30
