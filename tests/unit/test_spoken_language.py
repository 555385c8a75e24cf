"""A hypothesis in another language than the recording is left out, with a note."""

import pytest

from agents.text.calibration.calibrate import shipped
from agents.text.reconcile import reconcile
from agents.text.spoken_language import primary, spoken
from schemas.words import Hypothesis, Word

pytestmark = pytest.mark.slow

GERMAN = "Guten Tag mein Name ist Martin Scheider ich rufe an weil meine Rechnung vom letzten Monat nicht stimmt"
#: What an English-only model makes of it.
INVENTED = "Guten Tag my namest martin shyder Guten my namest namest namow martinest stint Guten me beta"
ENGLISH = "hello this is Martin speaking how can I help you with your order from last Tuesday"


def heard(provider, text, language, *, tells=True, sure=None):
    words = tuple(Word(word, 400 * n, 400 * n + 300) for n, word in enumerate(text.split()))
    details = {} if sure is None else {"language_probability": sure}
    return Hypothesis(provider, words, language, tells_language=tells, details=details)


@pytest.mark.parametrize("sure", [0.455, 0.7, 0.99, None])
def test_what_an_english_only_model_makes_of_a_german_call_is_left_out(sure):
    result = reconcile([heard("base", GERMAN, "de", sure=sure), heard("tiny.en", INVENTED, "en", tells=False)])

    assert result.text == GERMAN
    assert (result.language, result.method, result.providers) == ("de", "single", ("base",))
    assert result.notes == (
        "tiny.en is left out: it wrote en, the only language that it hears; the recording is in de.",
    )


@pytest.mark.parametrize(("language", "sure"), [("cy", 0.3), ("nl", 0.9), ("nn", 0.45)])
def test_an_english_call_that_one_recognizer_takes_for_another_language_keeps_both(language, sure):
    result = reconcile([heard("base", ENGLISH, language, sure=sure), heard("tiny.en", ENGLISH, "en", tells=False)])

    assert result.text == ENGLISH
    assert "tiny.en" in result.providers


def test_where_it_is_unsure_english_words_of_an_english_only_model_are_taken():
    result = reconcile([heard("base", GERMAN, "de", sure=0.4), heard("tiny.en", ENGLISH, "en", tells=False)])

    assert (result.text, result.language) == (ENGLISH, "en")


def test_of_three_the_one_that_is_alone_is_left_out():
    result = reconcile(
        [heard("a", GERMAN, "de", sure=0.6), heard("b", GERMAN, "de-DE"), heard("c", "goede dag mijn naam is", "nl")]
    )

    assert result.providers == ("a", "b")
    assert result.text == GERMAN


@pytest.mark.parametrize(
    ("one", "other"), [("en", "en-GB"), ("no", "nb-NO"), ("zh", "yue"), ("pt-BR", "pt"), ("hr", "sr")]
)
def test_close_languages_are_compared(one, other):
    result = reconcile([heard("a", GERMAN, one), heard("b", GERMAN, other)])

    assert result.method == "calibrated"
    assert result.notes == ()


def test_a_hypothesis_without_language_is_kept():
    assert reconcile([heard("a", GERMAN, "de"), heard("b", GERMAN, None)]).providers == ("a", "b")


def test_an_empty_hypothesis_does_not_tell_the_language():
    """A recognizer that heard nothing may still name a language."""
    assert spoken([heard("a", "", "cy"), heard("b", ENGLISH, "en")], shipped().knowledge.frequency) == "en"


def test_without_anybody_who_can_tell_what_there_is_is_taken():
    result = reconcile([heard("tiny.en", ENGLISH, "en", tells=False), heard("small.en", ENGLISH, "en", tells=False)])

    assert (result.language, result.method) == ("en", "calibrated")


def test_tags_are_compared_by_their_language():
    assert {primary("de"), primary("de-AT"), primary("DE_de")} == {"de"}
