"""What is found in German, French and Spanish, by the words of a file each."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from agents.redaction.detect import detect
from agents.redaction.languages import vocabulary as module
from agents.redaction.languages.vocabulary import ENGLISH, vocabulary
from agents.redaction.redact import redacted
from agents.text.reconcile import reconcile
from bench.planted_calls import POLICY
from bench.redaction import LEAST, measured
from schemas.accounts.redaction import KINDS, LANGUAGES
from schemas.words import Hypothesis, Word

pytestmark = pytest.mark.slow


def found(language: str, text: str) -> list[tuple[str, str]]:
    words = text.split()
    findings = detect(words, POLICY, vocabulary(language))
    return [(one.kind, " ".join(words[one.start : one.end]).rstrip(".,")) for one in findings]


@pytest.mark.parametrize(
    ("language", "text", "kind", "value"),
    [
        ("de", "Meine Kartennummer ist vier eins eins eins, äh, dreimal eins eins elf elf elf elf elf", "card", None),
        ("de", "die Kreditkartennummer lautet 4012 8888 8888 1881 bitte", "card", "4012 8888 8888 1881"),
        ("de", "Die IBAN ist DE89 3704 0044 0532 0130 00 bei der Sparkasse", "iban", "DE89 3704 0044 0532 0130 00"),
        ("de", "D E neunundachtzig siebenunddreißig null vier null null vierundvierzig null fünf zweiunddreißig null",
         "iban", None),
        ("de", "Rufen Sie mich an unter null eins sieben sechs zwölf vierunddreißig sechsundfünfzig achtundsiebzig",
         "phone", "null eins sieben sechs zwölf vierunddreißig sechsundfünfzig achtundsiebzig"),
        ("de", "an anna Punkt schmidt at gmx Punkt de bitte", "email", "anna Punkt schmidt at gmx Punkt de"),
        ("de", "ich wohne in der Hauptstraße 12, 10115 Berlin und", "address", "Hauptstraße 12, 10115 Berlin"),
        ("de", "wohne Am Alten Markt dreizehn in 50667 Köln", "address", "Am Alten Markt dreizehn in 50667 Köln"),
        ("de", "geboren am vierzehnten März neunzehnhundertfünfundachtzig", "date_of_birth",
         "vierzehnten März neunzehnhundertfünfundachtzig"),
        ("de", "mein Name ist Priya Raghunathan und ich", "name", "Priya Raghunathan"),
        ("de", "Ist Frau Oberhuber da?", "name", "Oberhuber"),
        ("de", "Meine Sozialversicherungsnummer ist 65 170 839 003", "ssn", "65 170 839 003"),
        ("de", "Die Auftragsnummer ist B wie Berta, C wie Cäsar, vier sieben elf neun", "id", None),
        ("fr", "ma carte est le quatre mille non quarante et un onze onze onze onze onze onze onze", "card", None),
        ("fr", "l'IBAN est FR76 3000 6000 0112 3456 7890 189 merci", "iban", "FR76 3000 6000 0112 3456 7890 189"),
        ("fr", "rappelez-moi au zéro six douze trente-quatre cinquante-six quatre-vingt-dix huit", "phone",
         "zéro six douze trente-quatre cinquante-six quatre-vingt-dix huit"),
        ("fr", "mon portable est le 06 12 34 56 78 merci", "phone", "06 12 34 56 78"),
        ("fr", "à jean point dupont arobase orange point fr merci", "email", None),
        ("fr", "j'habite au 12 bis rue de la République, 75011 Paris", "address",
         "12 bis rue de la République, 75011 Paris"),
        ("fr", "je suis née le quatorze mars mille neuf cent quatre-vingt-cinq", "date_of_birth",
         "quatorze mars mille neuf cent quatre-vingt-cinq"),
        ("fr", "Bonjour, je m'appelle Geneviève Le Gall et", "name", "Geneviève Le Gall"),
        ("fr", "mon numéro de sécurité sociale est 2 85 03 75 116 001", "ssn", "2 85 03 75 116 001"),
        ("es", "mi tarjeta es cuatro mil ciento once once once once once once once once once", "card", None),
        ("es", "el IBAN es ES91 2100 0418 4502 0005 1332 gracias", "iban", "ES91 2100 0418 4502 0005 1332"),
        ("es", "llámeme al seiscientos doce trescientos cuarenta y cinco seiscientos setenta y ocho", "phone",
         "seiscientos doce trescientos cuarenta y cinco seiscientos setenta y ocho"),
        ("es", "mi móvil es el 612.345.678 gracias", "phone", "612.345.678"),
        ("es", "a ana punto garcía arroba gmail punto com por favor", "email", None),
        ("es", "vivo en la calle de los Reyes Católicos 29, 28013 Madrid", "address",
         "calle de los Reyes Católicos 29, 28013 Madrid"),
        ("es", "nací el catorce de marzo de mil novecientos ochenta y cinco", "date_of_birth",
         "catorce de marzo de mil novecientos ochenta y cinco"),
        ("es", "Hola, me llamo Íñigo De la Fuente y", "name", "Íñigo De la Fuente"),
        ("es", "mi DNI es 12345678Z gracias", "id", "12345678Z"),
    ],
)  # fmt: skip
def test_what_identifies_somebody_is_found(language, text, kind, value):
    findings = found(language, text)
    assert kind in [one for one, _ in findings], findings
    if value is not None:
        assert (kind, value) in findings


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Wir haben 2019 und 2020 insgesamt 150.000 Stück geliefert, das sind 12,5 Prozent mehr."),
        ("de", "Die Rechnung war über 1.284,50 Euro und um 10.30 Uhr fällig, am 3. des Monats."),
        ("de", "Ich bin Stammkunde und habe eine Frage zur Vertragsverlängerung."),
        ("de", "Das Gerät steht in der Küche neben dem Fenster, auf der Straße ist es laut."),
        ("fr", "Nous avons livré 150 000 unités en 2019 et 2020, soit 12,5 pour cent de plus."),
        ("fr", "Le train part à 10h30 et il y avait cent vingt personnes dans la rue."),
        ("fr", "Est-ce que je peux faire autre chose pour vous cet après-midi ?"),
        ("es", "Enviamos 150.000 unidades en 2019 y 2020, que es un 12,5 por ciento más."),
        ("es", "Soy cliente desde 2011 y vivo en la misma calle desde hace treinta y cinco años."),
    ],
)
def test_quantities_and_sentences_stay(language, text):
    assert found(language, text) == []


@pytest.mark.parametrize("language", sorted(LANGUAGES - {"en"}))
@pytest.mark.parametrize("seed", [3, 4])
def test_of_what_is_planted_as_much_is_hidden_as_must_be(language, seed):
    figures = measured(240, seed, language=language)

    assert {kind: figures[kind].recall for kind, least in LEAST.items() if figures[kind].recall < least} == {}
    assert min(figures[kind].precision for kind in KINDS) > 0.93
    assert figures["address"].recall > 0.95


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_words_in_any_order_are_read_without_an_error(language):
    chance, known = random.Random(7), vocabulary(language)
    pool = {*known.streets, *known.directions, *known.house, *known.postal, *known.before_city, *known.particles,
            *known.fillers, *known.birth, *known.months, *known.dots, *known.at, *known.joiners, *known.repeats,
            *known.homes, *known.living, *known.in_dates, *sorted(known.all_first_names)[:40], *known.first_particles,
            *(word for phrase in known.introductions for word in phrase),
            *(word for number in known.numbers for word in number.replace(",", " ").split()),
            *("12", "10115", "2b", "", "...", "[CARD]", "¿", "E", "S", "DE89", "@", "-", "'", "l'")}  # fmt: skip
    for _ in range(1500):
        words = [word.capitalize() if chance.random() < 0.4 else word for word in chance.choices(sorted(pool), k=9)]
        words = [word + chance.choice(["", "", "", ",", ".", "?"]) for word in words]
        for one in detect(words, language=known):
            assert 0 <= one.start < one.end <= len(words), (words, one)


def test_every_language_that_is_offered_has_a_file():
    files = {path.stem for path in Path(module.__file__).parent.glob("*.toml")}

    assert files == LANGUAGES
    assert all(vocabulary(code).language == code for code in LANGUAGES)
    assert vocabulary("de_CH") is vocabulary("de-AT") is vocabulary("de")
    assert vocabulary(None) is vocabulary("nl") is vocabulary("../en") is ENGLISH


@pytest.mark.parametrize("language", sorted(LANGUAGES - {"en"}))
def test_every_number_of_a_language_is_read(language):
    num2words = pytest.importorskip("num2words").num2words
    words = vocabulary(language)

    for number in (*range(1000), *range(1901, 1999, 7), *range(2001, 2030, 3)):
        said = num2words(number, lang=language, to="year" if language == "de" and 1900 < number < 2000 else "cardinal")
        assert words.number(said.split()) == str(number), said


def test_a_transcript_is_searched_in_its_own_language():
    text = "rufen Sie mich an unter null eins sieben sechs zwölf vierunddreißig sechsundfünfzig achtundsiebzig bitte"
    heard = tuple(Word(word, 400 * n, 400 * n + 300, 0.9) for n, word in enumerate(text.split()))
    german = reconcile([Hypothesis("a", heard, "de-AT", 9000, 0.9)])

    shown = [one.chosen.text for one in redacted(german, POLICY).reconciliation.decisions if one.chosen.text]
    assert shown == [*"rufen Sie mich an unter".split(), "[PHONE]", "bitte"]
