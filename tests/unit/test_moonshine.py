"""Moonshine without its model: its vocabulary, words and times, and what runs where there is no model."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from agents.asr.moonshine.model import Heard, pieces
from agents.asr.moonshine.words import frames, words
from agents.asr.protocols import LocalRecognizer
from agents.embedded import moonshine_weights
from agents.embedded.moonshine_weights import moonshine_path
from agents.fleet import recognizers
from agents.fleet.settings import Settings
from schemas.errors import ServerError


def attention(rows, heads=3, seed=0):
    """Heads that look at one frame for each token, with some noise. `rows`: the frames of each token."""
    length = rows[-1][1]
    found = np.random.default_rng(seed).uniform(0, 0.02, (heads, len(rows), length)).astype(np.float32)
    for token, (start, end) in enumerate(rows):
        found[:, token, start:end] += 1
    return found


def test_each_token_is_where_the_attention_looks():
    rows = [(0, 30), (30, 45), (45, 100), (100, 130)]

    starts, ends = frames(attention(rows))

    assert starts == pytest.approx([start for start, _ in rows], abs=3)
    assert ends == pytest.approx([end - 1 for _, end in rows], abs=3)


def test_the_path_is_the_cheapest_of_all():
    """Beside the textbook's recurrence, cell by cell."""
    from agents.asr.moonshine.words import _path

    costs = np.random.default_rng(3).normal(size=(7, 23))
    best = np.full(costs.shape, np.inf)
    for token in range(7):
        for frame in range(23):
            before = [best[token - 1, frame]] if token else []
            before += [best[token, frame - 1]] if frame else []
            before += [best[token - 1, frame - 1]] if token and frame else []
            best[token, frame] = costs[token, frame] + (min(before) if before else 0)

    starts, ends = _path(costs)

    on_the_path = sum(costs[token, starts[token] : ends[token] + 1].sum() for token in range(7))
    assert on_the_path == pytest.approx(best[-1, -1])
    assert (starts[0], ends[-1]) == (0, 22)


def test_tokens_become_words_with_times_and_the_lowest_probability():
    rows = [(0, 20), (20, 40), (40, 60), (60, 80), (80, 100)]
    heard = Heard([b" Good", b" mor", b"ning", b"."], [0.9, 0.8, 0.4, 0.7, 1.0], attention(rows), cut_off=False)

    found = list(words(heard, 10.0))

    assert [(text, probability) for text, _, _, probability in found] == [("Good", 0.9), ("morning.", 0.4)]
    assert [time for word in found for time in word[1:3]] == pytest.approx([0.8, 2, 2, 3.2], abs=0.4)


def test_the_first_and_the_last_word_do_not_take_what_is_around_them():
    heard = Heard([b" One", b" two"], [1.0] * 3, attention([(0, 500), (500, 900), (900, 1000)]), cut_off=False)

    times = [time for word in words(heard, 10.0) for time in word[1:3]]

    assert times == pytest.approx([3.8, 5, 5, 6.2], abs=0.1)


def test_no_tokens_are_no_words():
    assert list(words(Heard([], [0.9], attention([(0, 20)]), cut_off=False), 1.0)) == []


def test_letters_in_several_tokens_are_put_together():
    heard = Heard([b" Zo", b"\xc3", b"\xab"], [1.0] * 4, attention([(0, 9), (9, 20), (20, 30), (30, 40)]), False)

    assert [text for text, *_ in words(heard, 1.0)] == ["Zoë"]


def test_entries_of_the_vocabulary_have_lengths_of_one_or_two_bytes():
    long = b"x" * 200

    assert pieces(b"\x00" + b"\x04\xe2\x96\x81a" + bytes([200 % 128 + 128, 1]) + long) == [b"", b" a", long]


# --- where there is no wheel


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Settings on a platform without a wheel."""
    monkeypatch.setattr(moonshine_weights, "supported", lambda: False)
    monkeypatch.setattr(moonshine_weights, "missing", lambda _: ["moonshine-cpp"])
    return Settings.model_validate({"CONCORD_CACHE": str(tmp_path / "cache"), "WHISPER_MODEL_DIR": str(tmp_path)})


def test_elsewhere_tiny_en_runs_in_its_place_and_says_so(elsewhere, caplog):
    with caplog.at_level(logging.WARNING):
        recognizer = recognizers.open_recognizer("moonshine-base.en", elsewhere)

    assert isinstance(recognizer, LocalRecognizer)
    assert (recognizer.name, recognizer._reported_model) == ("moonshine-base.en", "whisper-tiny.en")
    assert "whisper-tiny.en runs in its place" in caplog.text


def test_elsewhere_the_error_says_what_to_do(elsewhere):
    with pytest.raises(ServerError, match=r"Linux on x86_64 only.*whisper-tiny\.en.*WHISPER_MODEL_DIR"):
        moonshine_path(None, elsewhere.cache)


def test_a_model_from_another_machine_is_used(elsewhere, tmp_path):
    (tmp_path / "moonshine-base.en").mkdir()
    (tmp_path / "moonshine-base.en" / "decoder.onnx").write_bytes(b"mine")

    model, find = recognizers.local_model("moonshine-base.en", elsewhere)

    assert (model, find()) == ("moonshine-base.en", tmp_path / "moonshine-base.en")


def test_recognizers_elsewhere_have_no_local_model():
    assert recognizers.local_model("assemblyai", Settings()) is None
