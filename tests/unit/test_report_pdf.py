"""Reports as PDF: what they say, in which fonts, and that it can be read back."""

from __future__ import annotations

import contextlib
import re
import time
import unicodedata
import zlib

import pypdfium2
import pytest

from agents.reports import content, fonts, typesetting
from agents.reports.content import report
from agents.reports.fonts import Fonts
from agents.reports.pdf import pdf
from agents.reports.typesetting import Span, Text
from schemas.conversations.differences import Difference
from schemas.summaries import Summary
from schemas.transcript_words import TranscriptWord

CITED = {"words": ["w1"], "quote": "the parcel", "start_ms": 65_000}
SUMMARY = Summary.model_validate(
    {
        "kind": "summary",
        "template": "default/1",
        "model": "openai/gpt-5",
        "transcript_version": 1,
        "topic": "A parcel that did not arrive.",
        "sentiment": "mixed",
        "key_points": [{"text": "It went to the old address.", "disputed": True, **CITED}],
        "action_items": [{"text": "refund the postage", "who": "Martin", "when": "until Friday", **CITED}],
        "participants": [{"name": "Martin Weber", "label": "A", **CITED}],
        "dropped": 2,
        "coverage": {"words": 9, "words_read": 9, "parts": 1},
    }
)


def words(text, speaker="A", disputed=()):
    return [
        TranscriptWord(f"w{n}", word, 400 * n, 400 * n + 350, speaker, 0.9, n in disputed)
        for n, word in enumerate(text.split())
    ]


def made(spoken, summary=None, title="A call", language="en", **metadata):
    metadata = {
        "run": 1,
        "filename": "call.wav",
        "duration": 61.0,
        "language": language,
        "confidence": 0.93,
        "method": "calibrated",
        "recognizers": ["a", "b"],
        "reconciliation_notes": [],
        "quality": {"agreement": 0.9, "expected_word_errors": 1.25},
        "custom": {"title": title, "agent": "Ann"},
    } | metadata
    return report({"reference": "order 1", "metadata": metadata}, spoken, summary, "There is no summary: none is made.")


def read(made):
    """The text of each page."""
    document = pypdfium2.PdfDocument(pdf(made))
    pages = [page.get_textpage().get_text_range() for page in document]
    document.close()
    return pages


def test_a_report_says_what_is_known_of_a_call():
    [text] = read(made(words("hello quick brown world", disputed={1, 2}), SUMMARY))

    for part in ("A call", "order 1", "1:01", "Ann", "Martin Weber (A)", "A parcel that did not arrive.", "1:05"):
        assert part in text
    for part in ("Martin: refund the postage (until Friday)", "rests on disputed words", "hello quick brown world"):
        assert part in text
    assert "2 items were left out" in text
    assert "2 of 4, 50.0%" in text


@pytest.mark.slow
def test_the_same_report_makes_the_same_bytes_whatever_was_made_before():
    texts = ["hello world", "مرحبا بالعالم", "您好世界", "नमस्ते दुनिया", "안녕하세요", "hello world", "您好世界"]
    first = {text: pdf(made(words(text))) for text in texts}

    assert {text: pdf(made(words(text))) for text in reversed(texts)} == first


@pytest.mark.parametrize(
    ("text", "font"),
    [
        ("Zoë hört Ελληνικά и русский", "NotoSans"),
        ("مرحبا بالعالم", "NotoSansArabic"),
        ("שלום לכולם", "NotoSansHebrew"),
        ("नमस्ते क्षत्रिय", "NotoSansDevanagari"),
        ("สวัสดีครับ", "NotoSansThai"),
        ("您好。世界", "NotoSansCJK"),
        ("お電話ありがとう", "NotoSansCJK"),
        ("안녕하세요", "NotoSansCJK"),
        ("ქართული", "NotoSansGeorgian"),
    ],
)
def test_each_script_has_a_font_and_can_be_read_back(text, font):
    fonts = Fonts(text)
    runs = [run for line in Text([Span(text)], fonts).lines(500) for run in line]

    assert {run.font.name.partition("-")[0] for run in runs if run.text.strip()} == {font}
    assert fonts.missing == set()
    [page] = read(made(words(text)))
    assert [letter for letter in text if letter.isalpha() and letter not in page] == []


def unicode_maps(content):
    """What the bytes of each font of a document stand for (ToUnicode)."""
    streams = [_decoded(part) for part in re.findall(rb"stream\r?\n(.*?)endstream", content, re.DOTALL)]
    maps = [stream.decode() for stream in streams if b"beginbfchar" in stream]
    return [
        {
            int(byte, 16): bytes.fromhex(text).decode("utf-16-be")
            for byte, text in re.findall(r"<(\w\w)> <(\w*)>", of.partition("endcodespacerange")[2])
        }
        for of in maps
    ]


def _decoded(stream):
    with contextlib.suppress(zlib.error):
        return zlib.decompress(stream)
    return b""


@pytest.mark.parametrize(
    ("text", "meanings"),
    [
        ("Hi 😀 there", {"😀"}),
        ("हिन्दी क्षत्रिय", {"हि", "क्ष"}),
        ("مرحبا بالعالم", {"م", "ح"}),
    ],
)
def test_each_glyph_stands_for_its_characters_and_none_for_a_private_code(text, meanings):
    maps = unicode_maps(pdf(made(words(text))))
    said = {meaning for of in maps for meaning in of.values()}

    assert meanings <= said
    assert not [one for one in said for character in one if unicodedata.category(character) in ("Co", "Cs", "Cn")]
    assert set("".join(text.split())) <= set("".join(said))
    assert all(len(of) <= 256 for of in maps)


@pytest.mark.slow
def test_what_was_shaped_before_changes_no_byte():
    texts = ["नमस्ते हिन्दी", "क्षत्रिय 😀", "مرحبا لا"]
    first = {text: pdf(made(words(text))) for text in texts}
    for font in fonts._LOADED.values():
        font.reportlab.unregister()
    fonts._LOADED.clear()
    typesetting._shaped.cache_clear()

    assert {text: pdf(made(words(text))) for text in reversed(texts)} == first


def test_emoji_and_conjuncts_are_read_back_as_they_are():
    text = "हिन्दी क्षत्रिय and 😀 ok"

    assert any(text in page for page in read(made(words(text))))


def test_text_from_the_right_is_shaped_and_turned_round_line_by_line():
    text = "مرحبا بالعالم Northwind 4711 شكرا"
    fonts = Fonts(text)
    [line] = Text([Span(text)], fonts).lines(500)

    assert Text([Span(text)], fonts).rtl
    assert [run.text.strip() for run in line if run.text.strip()] == ["شكرا", "Northwind 4711", "مرحبا بالعالم"]
    arabic = line[-1]
    assert [glyph.character for glyph in arabic.glyphs] != list(arabic.text), "letters are joined"
    first, second = Text([Span(text)], fonts).lines(90)[:2]
    assert "مرحبا" in "".join(run.text for run in first)
    assert "مرحبا" not in "".join(run.text for run in second)


def test_lines_are_no_wider_than_the_page_also_where_words_are():
    text = "a " + "x" * 400 + " 您好世界您好世界您好世界 ยินดีต้อนรับยินดีต้อนรับ end"
    fonts = Fonts(text)
    lines = Text([Span(text)], fonts).lines(100)

    assert max(sum(run.width for run in line) for line in lines) <= 100
    assert "".join(run.text for line in lines for run in line).replace(" ", "") == text.replace(" ", "")


def test_a_character_that_no_font_has_is_named():
    [text] = read(made(words("hello \U00012000 there")))

    assert "U+12000" in text


def test_an_empty_call_and_one_without_speakers_have_a_report():
    [empty] = read(made([], confidence=None, quality={}))
    [alone] = read(made(words("hello there", speaker=None)))

    assert "No speech was heard." in empty
    assert "There is no summary: none is made." in empty
    assert "Speakers" not in alone


def test_markup_and_controls_in_a_call_stay_text():
    [text] = read(made(words("<b>bold</b> &amp; \x1b[31m \u202eevil"), title="<i>\x00t</i>"))

    assert "<b>bold</b> &amp; \\x1b[31m \\u202eevil" in text
    assert "<i>" in text


def test_a_report_that_cannot_hold_all_words_says_where_it_ends(monkeypatch):
    monkeypatch.setattr(content, "MAX_WORDS", 5)
    [text] = read(made(words("one two three four five six seven")))

    assert "six" not in text
    assert "This report ends after 5 of 7 words" in text


@pytest.mark.slow
def test_a_long_call_takes_many_pages_and_loses_nothing():
    pages = read(made(words(" ".join(f"word{n}" for n in range(6000)))))

    assert len(pages) > 5
    together = " ".join(pages).split()
    assert [n for n in range(6000) if f"word{n}" not in set(together)] == []


def test_an_unfinished_direction_is_no_error():
    assert typesetting.Text([Span("(مرحبا")], Fonts("(مرحبا")).lines(50)


def test_what_an_agents_transcript_got_wrong_is_a_section_of_its_own():
    found = [
        Difference(65_000, "Tuesday", "Monday", 0.93),
        Difference(None, "", "not", 0.8),
        Difference(9, "very", "", 1),
    ]
    metadata = made(words("we meet on Monday")).model_copy
    said = "\n".join(read(metadata(update={"verification": content._verification(found)})))

    assert "What the agent's transcript got wrong" in said
    assert "1:05" in said
    assert "It has \u201cTuesday\u201d; what was said is \u201cMonday\u201d (93% sure)." in said
    assert "It lacks \u201cnot\u201d (80% sure)." in said
    assert "It has \u201cvery\u201d, which nobody said (100% sure)." in said


def test_an_agents_transcript_with_many_errors_says_how_many_are_not_shown():
    section = content._verification([Difference(n, "a", "b", 0.5) for n in range(500)])

    assert len(section.items) == 201
    assert "300 more" in section.items[-1].text


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["x" * 30_000, "م" * 8_000, "word " * 40_000], ids=["a long word", "a long Arabic word", "many words"]
)
def test_a_turn_that_is_very_long_is_set_in_seconds(text):
    started = time.process_time()
    pages = read(made(words(text)))

    assert pages
    # A word of 25,000 letters took 14 s, one of 20,000 Arabic ones 19 s, and 20,000 words 5 s.
    assert time.process_time() - started < 5
