"""Normalization of words for comparison."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.text.normalisation.normalise import is_silent, normalised, tokenise
from agents.text.normalisation.numbers import read_numbers


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("twenty twenty", "2020"),
        ("five million dollars", "$5,000,000"),
        ("two point five percent", "2.5%"),
        ("one oh one", "101"),
        ("listen-only mode", "Listen only mode."),
        ("I can't go, it's late", "i can not go it is late"),
        ("Mr. Smith's colour", "mister smith is color"),
        ("twenty third", "23rd"),
        ("double seven", "77"),
        ("nineteen ninety nine", "1999"),
        ("it\u2019s naïve", "it's naive"),
        ("gonna", "going to"),
        ("U.S.", "u s"),
        ("Q3", "q 3"),
        ("Straße", "strasse"),
    ],
)
def test_what_sounds_the_same_compares_equal(one, other):
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("four", "for"), ("its", "it's"), ("20-20", "2020"), ("e-mail", "email"), ("five", "fifth"), ("hmm", "")],
)
def test_what_differs_stays_different(one, other):
    assert normalised(one) != normalised(other)


def test_groups_say_which_words_a_token_came_from():
    tokens = tokenise(["I", "can't", "pay", "twenty", "five", "dollars", "today"])

    assert tokens.keys == ["i", "can", "not", "pay", "$25", "today"]
    assert tokens.group == [0, 1, 1, 2, 3, 4]
    assert tokens.first_word == [0, 1, 2, 3, 6, 7]


def test_numbers_that_do_not_belong_together_stay_apart():
    assert tokenise(["and", "five", "2020", "2021"]).first_word == [0, 1, 2, 3, 4]


def test_a_long_run_of_number_words_costs_little():
    started = time.perf_counter()

    assert tokenise(["one"] * 100_000).first_word[-1] == 100_000
    assert time.perf_counter() - started < 5


def test_scripts_without_spaces_are_compared_by_character():
    assert normalised("今日は", "ja") == ["今", "日", "は"]
    assert normalised("สวัสดี", "th") == list("สวัสดี")


def test_other_scripts_keep_their_vowels_and_lose_case_and_marks():
    assert normalised("हिन्दी। Привет, ΚΌΣΜΟΣ!", "hi") == ["हिन्दी", "привет", "κόσμοσ"]


def test_english_rules_are_for_english():
    assert normalised("gut' zwei", "de") == ["gut", "zwei"]
    assert normalised("dr", "de") == ["dr"]


@pytest.mark.parametrize("token", ["uh", "<inaudible>", "...", "[laughs]"])
def test_fillers_and_marks_are_silent(token):
    assert all(is_silent(piece) for piece in normalised(token))


def test_a_percent_sign_and_a_currency_need_a_number():
    assert normalised("% of $") == ["%", "of", "$"]
    assert read_numbers(["five", "per", "cent"]) == ["5%"]


TRICKY = ["one", "and", "twenty", "point", "hundred", "$5", "can't", "%"]
TEXTS = st.lists(st.text(max_size=12) | st.sampled_from(TRICKY))


@settings(deadline=None)
@given(TEXTS, st.sampled_from([None, "en-US", "de", "ja"]))
def test_every_word_that_is_not_blank_has_a_token_of_its_own_group(texts, language):
    tokens = tokenise(texts, language)
    words_with_tokens = {
        word for group in tokens.group for word in range(tokens.first_word[group], tokens.first_word[group + 1])
    }

    assert words_with_tokens >= {i for i, text in enumerate(texts) if text.strip()}
    assert tokens.group == sorted(tokens.group)
    assert tokens.first_word == sorted(tokens.first_word)
    assert tokens.first_word[-1] == len(texts)
    assert len(tokens.keys) == len(tokens.group)
    assert all(tokens.keys)


@settings(deadline=None)
@given(TEXTS)
def test_normalising_again_changes_nothing_once_it_is_plain(texts):
    once = [key for key in tokenise(texts).keys if key.isascii() and key.isalpha() and key not in {"o", "oh"}]

    assert normalised(" ".join(once)) == normalised(" ".join(normalised(" ".join(once))))
