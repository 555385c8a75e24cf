"""External text is made storable: it contains nothing that Kafka, PostgreSQL or JSON refuses; the rest is unchanged."""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from schemas.envelope import Record, decode
from schemas.errors import MalformedEvent
from schemas.events.audio import AudioUploaded
from schemas.events.base import MAX_METADATA_BYTES
from schemas.texts import MAX_DEPTH, MAX_VALUES, described, readable, storable_json, written_bytes
from schemas.words import Hypothesis, Reconciliation, Word, adapter

ANY_TEXT = st.text(st.characters() | st.sampled_from("\x00\ud800\udfff\x1b\x9b"), max_size=20)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(min_value=10**19) | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(ANY_TEXT, st.integers(1, 30))
def test_readable_text_is_short_and_goes_everywhere(text, limit):
    clean = readable(text, limit)

    assert len(clean) <= limit
    assert "\x00" not in clean
    assert clean.encode().decode() == clean
    assert readable(clean, limit) == clean


@given(ANY_JSON)
def test_storable_json_comes_back_as_it_is(value):
    clean = storable_json(value)

    assert orjson.loads(orjson.dumps(clean)) == clean
    assert b"\\u0000" not in orjson.dumps(clean).replace(b"\\\\", b"")
    assert storable_json(clean) == clean


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a\x00b", "a\ufffdb"),
        ("a\ud83d", "a\ufffd"),
        ("\x1b[31m", "\x1b[31m"),
        (89490200001234567890, "89490200001234567890"),
        (2**64 - 1, 2**64 - 1),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (1.5, 1.5),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (True, True),
        ({"a\x00": ["\x00", {"b": 10**30}]}, {"a\ufffd": ["\ufffd", {"b": "1" + "0" * 30}]}),
    ],
)
def test_only_what_no_store_takes_is_changed(sent, kept):
    assert storable_json(sent) == kept


def nested(levels: int):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


def upload(metadata: bytes) -> Record:
    value = b'{"tenant_id":"t","audio_uri":"https://a.example/b","filename":"f","metadata":%s}' % metadata
    return Record("audio.uploaded", 0, 0, None, value)


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        (b'{"iccid": 89490200001234567890}', {"iccid": "89490200001234567890"}),
        (b'{"a": 1e400, "b": NaN}', {"a": "Infinity", "b": "NaN"}),
        (b'{"a": "cut \\ud83d", "b\\udc00": 1}', {"a": "cut \ufffd", "b\ufffd": 1}),
        (b'{"a": "\\u0000", "a": "last"}', {"a": "last"}),
    ],
)
def test_metadata_that_no_store_takes_does_not_keep_a_call_from_being_transcribed(metadata, kept):
    data = decode(upload(metadata), {"audio.uploaded": topics.UPLOADED}).data

    assert isinstance(data, AudioUploaded)
    assert data.metadata == kept


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"a": nested(MAX_DEPTH)}, "levels"),
        ({"a": nested(300)}, "JSON"),
        ({"a": [0] * MAX_VALUES}, "values"),
        ({"a": [1e300] * 4000}, "numbers written out"),
        ({"a": "x" * MAX_METADATA_BYTES}, "bytes"),
    ],
)
def test_metadata_that_is_too_much_is_refused_with_the_bound(metadata, says):
    import json

    with pytest.raises(MalformedEvent, match=says):
        decode(upload(json.dumps(metadata).encode()), {"audio.uploaded": topics.UPLOADED})


def test_an_upload_after_a_byte_order_mark_is_read():
    record = upload(b"{}")
    marked = Record("audio.uploaded", 0, 0, None, b"\xef\xbb\xbf" + record.value)

    assert decode(marked, {"audio.uploaded": topics.UPLOADED}).data.tenant_id == "t"


def test_numbers_count_as_postgres_writes_them():
    assert written_bytes([1.5, 0.0, "x", {"a": 2}]) == len(b'[1.5,0.0,"x",{"a":2}]')
    assert written_bytes([1e300]) >= 300
    assert written_bytes([1e-300]) >= 300


ODD_SHARES = st.floats() | st.integers(-5, 5)


@given(ANY_TEXT, st.none() | ANY_TEXT, ODD_SHARES, st.integers(), ANY_JSON)
def test_whatever_a_recognizer_says_can_be_stored_and_read_back(text, speaker, sure, ms, details):
    word = Word(text, ms, ms, sure, speaker)
    heard = Hypothesis("a", (word, word), text, 5, sure, text, {"d": details})
    stored = adapter(Hypothesis).dump_json(heard)

    assert adapter(Hypothesis).validate_json(stored) == heard
    assert b"\\u0000" not in stored.replace(b"\\\\", b"")
    assert all(word.text and (word.confidence is None or 0 <= word.confidence <= 1) for word in heard.words)


def test_a_word_that_an_earlier_version_stored_is_cleaned_when_it_is_read():
    stored = (
        b'{"decisions":[{"chosen":{"text":"hi\\u0000","providers":["a"],"probability":1}},'
        b'{"chosen":{"text":"\\u0000","providers":["a"],"probability":1}}],"method":"single",'
        b'"quality":{"confidence":1,"agreement":1,"disputed_spans_per_1000_words":0,"expected_word_errors":0},'
        b'"providers":["a"],"notes":["n\\u0000"]}'
    )
    decided = adapter(Reconciliation).validate_json(stored)

    assert decided.text == "hi"
    assert decided.notes == ("n",)


def test_an_exception_is_described_whatever_it_says():
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert described(Mute()) == "Mute"
    assert described(ValueError()) == "ValueError"
    assert described(ValueError("a\x00\ud800")) == "a\ufffd"
