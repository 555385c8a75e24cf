"""Channels with a speaker each are found and decoded apart; and a transcript is made of them in the order of time."""

import numpy as np
import pytest

from agents.asr.speech_windows import recording_in_parts
from agents.media.decoding.channels import count_speakers, speaker_channels
from agents.media.decoding.decoder import decode
from agents.text.speakers.channels import reconcile_channels
from schemas.words import Hypothesis, Word
from tests.recordings import RATE, voice, write

ANN, BEN = voice(12, 1), voice(12, 5)
TURN = (np.arange(12 * RATE) // (3 * RATE)) % 2
CALL = np.stack([ANN * (TURN == 0), BEN * (TURN == 1)])


def file(path, samples):
    return write(path, samples, codec="flac")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samples", "channels"),
    [
        (CALL, 2),
        (CALL + 0.02 * CALL[::-1], 2),  # an echo 34 dB below
        (CALL * [[1.0], [0.1]], 2),  # the second line is quiet
        (CALL.sum(axis=0), 1),
        (np.stack([CALL.sum(axis=0)] * 2), 1),
        (np.stack([CALL.sum(axis=0), CALL.sum(axis=0) * 0.1]), 1),
        (np.array([[1, 0.5], [0.5, 1]]) @ CALL, 1),  # two microphones in a room
        (np.stack([ANN, 0 * ANN]), 1),
        (np.stack([0 * ANN, 0 * ANN]), 1),
        (0.1 * np.random.default_rng(1).normal(size=(2, 12 * RATE)), 1),  # nobody is ever alone, as in music
    ],
)
def test_only_a_speaker_on_each_channel_makes_channels(tmp_path, samples, channels):
    found = speaker_channels(file(tmp_path / "call.flac", samples.astype(np.float32)))

    assert (found.count if found else 1) == channels


@pytest.mark.parametrize("quiet", [1.0, 0.05])
def test_the_echo_of_the_other_line_is_not_heard_and_talk_at_once_is(tmp_path, quiet):
    call = CALL.copy()
    call[1, RATE : 2 * RATE] = BEN[RATE : 2 * RATE]  # at once with Ann
    call = call * np.array([[1.0], [quiet]])
    path = file(tmp_path / "call.flac", (call + 0.02 * quiet * call[::-1]).astype(np.float32))

    heard = [part.chunk.samples for part in recording_in_parts({"path": str(path), "diarize": True}, lambda: None)]

    assert np.abs(heard[0][4 * RATE : 5 * RATE]).max() == 0
    assert np.abs(heard[1][7 * RATE : 8 * RATE]).max() == 0
    assert np.abs(heard[0][7 * RATE : 8 * RATE]).max() > 0.1
    assert np.abs(heard[1][RATE : 2 * RATE] - call[1][RATE : 2 * RATE]).max() < 0.05


def test_a_long_channel_is_as_long_as_the_recording(tmp_path):
    path = file(tmp_path / "call.flac", CALL.astype(np.float32))

    parts = list(recording_in_parts({"path": str(path), "diarize": True, "speakers": 2}, lambda: None))

    assert [(part.channel, len(part.chunk.samples)) for part in parts] == [(0, 12 * RATE), (1, 12 * RATE)]


def test_a_channel_is_decoded_without_the_other(tmp_path):
    path = file(tmp_path / "call.flac", CALL.astype(np.float32))

    for channel in (0, 1):
        heard = np.concatenate(list(decode(path, RATE, channel=channel)))
        assert np.abs(heard - CALL[channel][: len(heard)]).max() < 0.001
    mixed = np.concatenate(list(decode(path, RATE)))
    assert np.abs(mixed - CALL.mean(axis=0))[9 * RATE :].max() < 0.01


def test_tracks_are_like_channels(tmp_path):
    path = write(tmp_path / "call.mka", *CALL.astype(np.float32), codec="flac", muxer="matroska")

    assert speaker_channels(path).count == 2
    assert np.abs(np.concatenate(list(decode(path, RATE, channel=1))) - CALL[1]).max() < 0.001


def test_a_recording_without_sound_has_one_channel():
    assert count_speakers(np.zeros((0, 2), dtype=np.float32)) == 1
    assert count_speakers(np.ones((9, 20), dtype=np.float32)) == 1


def words(text, channel, start=0, step=400, **more):
    return [
        Word(w, start + step * n, start + step * n + 300, 0.9, channel=channel, **more)
        for n, w in enumerate(text.split())
    ]


def heard(name, *parts, language="en"):
    said = sorted((word for part in parts for word in part), key=lambda word: word.start_ms)
    return Hypothesis(name, tuple(said), language, 60_000)


ASKS, SAYS = "could you give me the order number please", "yes it is four seven one nine"


def spoken(reconciliation):
    turns = []
    for word in reconciliation.words:
        if turns and turns[-1][0] == word.speaker:
            turns[-1][1].append(word.text)
        else:
            turns.append((word.speaker, [word.text]))
    return [(speaker, " ".join(texts)) for speaker, texts in turns]


def test_overlapping_talk_is_reconciled_by_channel():
    one = heard("a", words(ASKS, 0), words(SAYS, 1, 2300))
    two = heard("b", words(ASKS.replace("number", "numbers"), 0, 90), words(SAYS, 1, 2200))

    decided = reconcile_channels([one, two])

    assert [speaker for speaker, _ in spoken(decided)] == ["A", "B"]
    assert decided.notes[-1] == "Speakers are told apart by channel: A is on channel 1, B is on channel 2."
    assert decided.words[0].start_ms == 0
    assert max(word.end_ms for word in decided.words) < 6000
    assert sum(bool(one.others) for one in decided.decisions) == 1


def test_who_speaks_first_is_a():
    decided = reconcile_channels([heard("a", words(ASKS, 1), words(SAYS, 0, 5000))])

    assert spoken(decided) == [("A", ASKS), ("B", SAYS)]


def test_turns_come_in_the_order_of_time_and_sentences_are_not_cut():
    agent = words("Good morning.", 0) + words("How can I help you?", 0, 2000)
    client = words("Hello.", 1, 900) + words("Wait.", 1, 2500)

    decided = reconcile_channels([heard("a", agent, client)])

    assert spoken(decided) == [("A", "Good morning."), ("B", "Hello."), ("A", "How can I help you?"), ("B", "Wait.")]


def test_who_has_heard_the_channels_mixed_is_divided_by_the_others():
    apart = heard("a", words(ASKS, 0), words(SAYS, 1, 2300))
    mixed = heard("b", words(ASKS, None, 50, speaker="x"), words(SAYS, None, 2350, speaker="y"))

    decided = reconcile_channels([apart, mixed])

    assert spoken(decided) == [("A", ASKS), ("B", SAYS)]
    assert all(one.chosen.providers == ("a", "b") for one in decided.decisions)


def test_words_without_times_belong_to_no_channel():
    timeless = Hypothesis("b", tuple(Word(word) for word in f"{ASKS} {SAYS}".split()), "en")

    decided = reconcile_channels([heard("a", words(ASKS, 0), words(SAYS, 1, 2300)), timeless])

    assert spoken(decided) == [("A", ASKS), ("B", SAYS)]
    assert decided.providers == ("a",)
    assert any("b is left out" in note for note in decided.notes)


@pytest.mark.parametrize("hypothesis", [heard("a", words(ASKS, None)), heard("a", words(ASKS, 1)), heard("a")])
def test_words_of_one_channel_are_no_call(hypothesis):
    assert reconcile_channels([hypothesis]) is None
