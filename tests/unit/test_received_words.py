"""Transcripts of services outside of Concord: what is refused, and in which order words are kept."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from schemas.events.received import ReceivedWords


def test_words_are_in_the_order_of_time_if_all_have_one():
    words = [{"text": "late", "start_ms": 5000, "end_ms": 5500}, {"text": "early", "start_ms": 100, "end_ms": 400}]
    assert [word.text for word in ReceivedWords(words=words).hypothesis("k").words] == ["early", "late"]

    words.append({"text": "untimed"})
    assert [word.text for word in ReceivedWords(words=words).hypothesis("k").words] == ["late", "early", "untimed"]


def test_a_word_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValidationError, match="end_ms is before start_ms"):
        ReceivedWords(words=[{"text": "a", "start_ms": 900, "end_ms": 800}])
