"""Word frequencies of other languages: by the tokens of our normalisation, read when they are asked for, bounded."""

import subprocess
import sys

import pytest

from agents.text.frequency import KEPT, WORDS, _table, frequencies

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("tag", "common", "rare"),
    [
        ("de-AT", "und", "zählerstand"), ("fr", "homme", "ordonnance"), ("hi", "है", "ग्राहक"), ("ar", "من", "المخزن"),
        ("ja", "の", "靴"), ("zh-CN", "的", "电"), ("no", "og", "faktura"), ("hr", "je", "račun"),
    ],
)  # fmt: skip
def test_common_words_are_more_frequent_than_rare_ones(tag, common, rare):
    table = frequencies(tag)

    assert 5 < table[common] < 9
    assert table.get(rare, 0.0) < table[common] - 1
    assert 1000 < len(table) < 1.1 * WORDS
    assert not [token for token in table if token.isdecimal()]


@pytest.mark.parametrize("tag", ["tlh", "", "x-private", "th"])
def test_a_language_without_a_list_has_none(tag):
    assert frequencies(tag) == {}


def test_few_languages_stay_in_memory():
    for tag in ("hi", "is", "ta", "ur", "fil", "sl"):
        frequencies(tag)

    assert _table.cache_info().currsize == KEPT


def test_nothing_is_read_before_it_is_asked_for():
    check = "import sys, agents.text.frequency, agents.text.reconcile; sys.exit('wordfreq' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
