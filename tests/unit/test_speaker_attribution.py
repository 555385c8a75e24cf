"""Words get speakers: by voices, by recognizers' labels, and by both."""

import numpy as np
import pytest

from agents.text.reconcile import reconcile
from agents.text.speakers.attribution import Voices, attributed, told_speakers
from schemas.words import Hypothesis, Word

TEXT = "How can I help you? My order has not arrived. When was it sent? Last Tuesday."
#: Who says each word.
TRUTH = "AAAAA" + "BBBBB" + "AAAA" + "BB"


def hypothesis(name, labels=None, *, text=TEXT, timed=True):
    words = []
    for n, word in enumerate(text.split()):
        label = None if labels is None or labels[n] == "-" else labels[n]
        times = (400 * n, 400 * n + 350) if timed else (None, None)
        words.append(Word(word, *times, 0.9, {"1": "Agent", "2": "Caller"}.get(label, label)))
    return Hypothesis(name, tuple(words), "en", 400 * len(words))


def voices(truth=TRUTH, count=2, late_ms=0, contrast=1.0):
    times = np.arange(0, 400 * len(truth), 100)
    said = np.array(["ABC".index(truth[max(0, time - late_ms) // 400]) for time in times.tolist()])
    return Voices(times, contrast * (said[:, None] == np.arange(count)))


def speakers(*hypotheses, heard=None):
    return "".join(word.speaker or "-" for word in attributed(reconcile(hypotheses), hypotheses, heard).words)


@pytest.mark.parametrize("late_ms", [0, 200])
def test_voices_tell_who_says_each_word_and_sentences_where_turns_end(late_ms):
    assert speakers(hypothesis("a"), heard=voices(late_ms=late_ms)) == TRUTH


def test_a_short_noise_in_a_sentence_is_no_speaker():
    assert speakers(hypothesis("a"), heard=voices("AABAA" + TRUTH[5:])) == TRUTH


def test_letters_are_in_the_order_of_first_words():
    swapped = TRUTH.translate({65: 66, 66: 65})

    assert speakers(hypothesis("a"), heard=voices(swapped)) == TRUTH


def test_a_recognizer_alone_is_believed_as_it_is():
    assert speakers(hypothesis("a", TRUTH), hypothesis("b")) == TRUTH
    assert speakers(hypothesis("a"), hypothesis("b")) == "-" * len(TRUTH)


def test_the_majority_of_recognizers_is_believed_whatever_they_call_the_speakers():
    right, also_right = hypothesis("a", TRUTH), hypothesis("b", TRUTH.translate({65: 90, 66: 89}))
    wrong = hypothesis("c", "AAAAA" + "BBBBB" + "BBBB" + "BB")

    assert speakers(right, also_right, wrong) == TRUTH


def test_a_recognizers_labels_are_more_than_a_doubtful_voice_and_less_than_a_clear_one():
    labels = "AAAAA" + "BBBBB" + "BBBB" + "BB"

    assert speakers(hypothesis("a", labels), heard=voices(TRUTH, contrast=0.5)) == labels
    assert speakers(hypothesis("a", labels), heard=voices(TRUTH, contrast=2.0)) == TRUTH


def test_roles_that_a_recognizer_tells_stay():
    labels = TRUTH.translate({65: "1", 66: "2"})

    decided = attributed(reconcile([hypothesis("a", labels)]), [hypothesis("a", labels)], voices())

    assert {word.speaker for word in decided.words} == {"Agent", "Caller"}
    assert decided.words[0].speaker == "Agent"


def test_labels_without_times_count_by_their_words():
    assert speakers(hypothesis("a", TRUTH, timed=False), hypothesis("b"), heard=voices(contrast=0.1)) == TRUTH


def test_three_voices():
    truth = "AAAAA" + "BBBBB" + "CCCC" + "AA"

    assert speakers(hypothesis("a"), heard=voices(truth, count=3)) == truth


def test_what_nobody_said_has_the_speaker_of_the_word_before():
    one, other = hypothesis("a"), hypothesis("b", text=f"{TEXT} Um")
    decided = attributed(reconcile([one, one, other]), [one, other], voices())

    assert all(decision.speaker for decision in decided.decisions)


def test_one_label_tells_nobody_apart():
    assert told_speakers([hypothesis("a", "A" * len(TRUTH)), hypothesis("b")]) == []


def test_an_empty_transcript_has_no_speakers():
    empty = Hypothesis("a", (), "en")

    assert attributed(reconcile([empty]), [empty], voices()).words == ()
