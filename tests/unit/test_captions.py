"""Captions: the rules of lines, durations and times, whatever words there are."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from schemas.rendering.captions import LINE, LINES, LONGEST_MS, SHORTEST_MS, cues, srt, vtt
from schemas.transcript_words import TranscriptWord

TIMES = st.none() | st.integers(0, 20_000)
WORDS = st.lists(
    st.builds(
        TranscriptWord,
        id=st.just("w"),
        text=st.sampled_from(
            ["yes.", "no", "extraordinary", "你好" * 30, "x" * 100, "<v A>", "a --> b", "&lt;", "\n\n", "é"]
        ),
        start_ms=TIMES,
        end_ms=TIMES,
        speaker=st.sampled_from([None, "A", "B", "<i>\n"]),
        disputed=st.booleans(),
    ),
    max_size=20,
)


@given(WORDS, st.booleans(), st.booleans())
def test_no_cue_breaks_a_rule(words, labels, mark):
    shown = cues(words, labels=labels, mark_disputed=mark)

    assert all(SHORTEST_MS <= cue.end_ms - cue.start_ms <= LONGEST_MS for cue in shown)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(shown))
    assert all(1 <= len(cue.lines) <= LINES and all(len(line) <= LINE for line in cue.lines) for cue in shown)


@given(WORDS)
def test_every_cue_has_its_times_and_nothing_that_players_read_as_markup(words):
    blocks = srt(words).split("\n\n") if words else []
    times = r"\d\d+:\d\d:\d\d,\d\d\d --> \d\d+:\d\d:\d\d,\d\d\d"

    assert all(re.fullmatch(rf"\d+\n{times}\n[^\n]+(\n[^\n]+)?\n?", block) for block in blocks if block)
    of_text = [line for line in vtt(words).split("\n") if "-->" not in line]
    assert all("<" not in line.removeprefix("<v ") for line in of_text)


def test_a_cue_ends_at_a_pause_at_another_speaker_and_where_its_lines_are_full():
    said = [("one", 0, "A"), ("two", 3000, "A"), ("three", 3300, "B")]
    words = [TranscriptWord("w", text, at, at + 200, speaker) for text, at, speaker in said]
    words += [TranscriptWord("w", "eleven-char", 5000 + n * 300, 5200 + n * 300, "B") for n in range(9)]

    shown = cues(words, labels=True)

    assert [cue.lines for cue in shown] == [
        ("A: one",),
        ("two",),
        ("B: three",),
        ("eleven-char eleven-char eleven-char",) * 2,
        ("eleven-char eleven-char eleven-char",),
    ]
    assert [(cue.start_ms, cue.end_ms) for cue in shown[:3]] == [(0, 1000), (3000, 4000), (4000, 5000)]
