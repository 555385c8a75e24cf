"""Batches made by hand: what Kafka takes and aiokafka cannot read, and what Kafka would not take, comes out all the
same.
"""

from __future__ import annotations

import gzip
import hashlib
import random
import struct
import zlib

import lz4.frame
import pytest
from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.runtime.kafka import decompression, record_batches
from agents.runtime.kafka.decompression import LIMIT_WITH_WINDOW, DecompressedStream
from agents.runtime.kafka.record_batches import POLL_BYTES, FetchedData, FetchResult, PartitionRecords
from agents.runtime.kafka.record_format import MAX_HEADERS, WHOLE_BYTES
from schemas.envelope import MAX_VALUE_BYTES
from tests.batches import GZIP, LZ4, SNAPPY, ZSTD, Batch, Rec, compressed, legacy, sized, varint, xerial

TP = TopicPartition("audio.uploaded", 2)
NOISE = random.Random(1).randbytes(64)  # of which no part looks like a record


def unpacked(raw: bytes, *, at: int = 0, aborted=(), committed: bool = True):
    """The records, and the offset from which is fetched next."""
    records = PartitionRecords(TP, FetchedData(raw), aborted, at, None, None, True, 1 if committed else 0)
    return list(records), records.next_fetch_offset


def read(raw: bytes, **more):
    return [(record.offset, record.value) for record in unpacked(raw, **more)[0] if record.checksum is None]


def flawed(raw: bytes, **more):
    return [record for record in unpacked(raw, **more)[0] if record.checksum is not None]


@pytest.mark.parametrize("codec", range(5))
def test_every_codec_is_read(codec):
    records, after = unpacked(
        Batch((Rec(b"a", b"k", ((b"h", b"1"), (b"n", None))), Rec(b"b")), codec, base=10).encode()
    )

    assert [(r.offset, r.key, r.value, r.headers) for r in records] == [
        (10, b"k", b"a", (("h", b"1"), ("n", None))),
        (11, None, b"b", ()),
    ]
    assert [(r.topic, r.partition, r.timestamp, r.checksum) for r in records] == [(*TP, 1_700_000_000_000, None)] * 2
    assert after == 12


@pytest.mark.parametrize(
    ("codec", "stream"),
    [
        (SNAPPY, lambda data: xerial(data, 7)),
        (SNAPPY, lambda data: xerial(data[:9]) + xerial(data[9:])),
        (GZIP, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
        (GZIP, lambda data: gzip.compress(data) + b"garbage"),  # Kafka takes it; aiokafka: BadGzipFile
        (LZ4, lambda data: lz4.frame.compress(data, block_linked=False) + b"garbage"),  # as well: DecompressionError
        (LZ4, lambda data: lz4.frame.compress(data, content_checksum=True, store_size=True)),
        (ZSTD, lambda data: zstd.compress(data[:9]) + zstd.compress(data[9:])),
        (ZSTD, lambda data: b"\x53\x2a\x4d\x18\x03\0\0\0abc" + zstd.compress(data)),
        (ZSTD, lambda data: zstd.compress(data, options={zstd.CompressionParameter.window_log: 27})),
    ],
)
def test_streams_are_read_as_kafka_reads_them(codec, stream):
    payload = Rec(NOISE).encode(0) + Rec(b"b").encode(1)
    batch = Batch((Rec(), Rec()), codec, compressed=stream(payload))

    assert read(batch.encode()) == [(0, NOISE), (1, b"b")]


def test_a_header_whose_name_is_not_utf8_is_kept_in_another_spelling():
    rec = Rec(b"v", b"k", ((b"a", b"1"), (b"h\xff\xfe", b"2"), (b"z", b"3")))
    (record,) = flawed(Batch((rec,)).encode())

    assert (record.key, record.value) == (b"k", b"v")
    assert record.headers == (("a", b"1"), ("h\\xff\\xfe", b"2"), ("z", b"3"))
    assert "name of a header is not UTF-8" in record.checksum.reason


def test_the_records_around_one_with_a_flaw_are_read():
    recs = (Rec(b"a"), Rec(b"x", headers=((b"\xff", b""),)), Rec(b"b"))

    records, after = unpacked(Batch(recs, GZIP, base=5).encode() + Batch(base=8).encode())

    assert [(r.offset, r.value, r.checksum is None) for r in records] == [
        (5, b"a", True),
        (6, b"x", False),
        (7, b"b", True),
        (8, b"v", True),
    ]
    assert after == 9


@pytest.mark.parametrize("deltas", [(0, 0), (1000, 1001), (-5, 7), (1, 0), (0, 1)])
def test_offsets_are_those_that_kafka_gave_whatever_the_records_say(deltas):
    """The client library drops the second of two with the same offset, and believes one that is a thousand further."""
    batch = Batch(tuple(Rec(b"%d" % i, delta=delta) for i, delta in enumerate(deltas)), base=40)

    assert read(batch.encode()) == [(40, b"0"), (41, b"1")]
    assert unpacked(batch.encode())[1] == 42
    assert read(batch.encode(), at=41) == [(41, b"1")]


def test_a_compacted_batch_keeps_its_offsets():
    batch = Batch((Rec(b"a", delta=1), Rec(b"b", delta=4)), base=10, last_delta=6)

    assert read(batch.encode()) == [(11, b"a"), (14, b"b")]
    assert unpacked(batch.encode())[1] == 17
    assert unpacked(Batch((), base=10, last_delta=6).encode()) == ([], 17)


@pytest.mark.parametrize("bits", [0x80, 0xFF])
def test_attributes_of_a_record_are_one_byte_without_meaning(bits):
    body = bytes([bits]) + varint(0) + varint(0) + sized(b"k") + sized(b"value") + varint(0)

    assert read(Batch((Rec(body=body),)).encode()) == [(0, b"value")]


@pytest.mark.parametrize("size", [-1, -7, -(2**31)])
def test_a_negative_length_is_null_as_it_is_to_kafka(size):
    body = b"\0\0\0" + varint(size) + varint(size) + varint(1) + sized(b"h") + varint(size)
    (record,) = unpacked(Batch((Rec(body=body),)).encode())[0]

    assert (record.key, record.value, record.headers, record.checksum) == (None, None, (("h", None),), None)


WRONG_BODIES = {
    "empty": b"",
    "key too long": b"\0\0\0" + varint(50) + b"k",
    "key huge": b"\0\0\0" + varint(2**31 - 1) + b"k",
    "value too long": b"\0\0\0" + sized(b"k") + varint(9) + b"v",
    "number without end": b"\0" + b"\xff" * 30,
    "cut in a number": b"\0\x80",
}


@pytest.mark.parametrize("body", WRONG_BODIES.values(), ids=WRONG_BODIES)
@pytest.mark.parametrize("codec", [0, LZ4])
def test_a_record_that_makes_no_sense_is_kept_as_it_came(body, codec):
    records, after = unpacked(Batch((Rec(b"a"), Rec(body=body), Rec(b"b")), codec).encode())

    assert [(r.offset, r.value, r.checksum is None) for r in records] == [
        (0, b"a", True),
        (1, body, False),
        (2, b"b", True),
    ]
    assert after == 3


WRONG_HEADERS = {
    "negative count": {"header_count": -1},
    "count too high": {"header_count": 2**31 - 1},
    "no name": {"header_count": 2, "tail": varint(-1) + varint(-1)},
    "name too long": {"header_count": 2, "tail": varint(900) + b"h"},
    "bytes after them": {"tail": b"xyz"},
}


@pytest.mark.parametrize("more", WRONG_HEADERS.values(), ids=WRONG_HEADERS)
def test_key_and_value_are_kept_when_headers_make_no_sense(more):
    (record,) = flawed(Batch((Rec(b"v", b"k", ((b"h", b"1"),), **more),), ZSTD).encode())

    assert (record.key, record.value) == (b"k", b"v")
    assert record.headers == ((("h", b"1"),) if more.get("header_count") != -1 else ())


@pytest.mark.slow
def test_headers_without_number_are_cut():
    (record,) = flawed(Batch((Rec(b"v", headers=((b"h", b""),) * 300_000),)).encode())

    assert record.value == b"v"
    assert len(record.headers) == MAX_HEADERS
    assert "300000 headers" in record.checksum.reason


GONE = {
    "length negative": Batch((Rec(b"a"), Rec(length=-3), Rec())),
    "length too long": Batch((Rec(b"a"), Rec(length=2**30), Rec())),
    "length without end": Batch((Rec(),) * 3, payload=Rec(b"a").encode(0) + b"\xff" * 9),
    "fewer than declared": Batch((Rec(b"a"),), count=3, last_delta=2),
    "cut in the middle": Batch(
        (Rec(b"a"),), ZSTD, payload=(Rec(b"a").encode(0) + Rec(NOISE).encode(1))[:-5], count=3, last_delta=2
    ),
}


@pytest.mark.parametrize("batch", GONE.values(), ids=GONE)
def test_where_the_next_record_begins_is_lost_the_rest_of_the_batch_is_one_record(batch):
    raw = batch.encode()
    records, after = unpacked(raw)

    assert [(r.offset, r.value) for r in records] == [(0, b"a"), (2, raw)]
    assert records[1].checksum.offsets == (1, 2)
    assert records[1].checksum.reason.startswith("record 2 of 3 in its batch: ")
    assert after == 3
    assert unpacked(raw, at=2)[0] == records[1:]  # delivered again, it is the same


UNREADABLE = {
    "codec 5": Batch((Rec(),) * 3, attributes=5),
    "codec 6": Batch((Rec(),) * 3, attributes=6),
    "codec 7": Batch((Rec(),) * 3, attributes=7),
    "no gzip": Batch((Rec(),) * 3, GZIP, compressed=b"garbage"),
    "no snappy": Batch((Rec(),) * 3, SNAPPY, compressed=b"\xff\xff\xff\xff\x0fgarbage"),
    "snappy that says 4 GB": Batch((Rec(),) * 3, SNAPPY, compressed=b"\xff\xff\xff\xff\x0f" + b"\xfe\xff\xff" * 99),
    "xerial with a block too long": Batch((Rec(),) * 3, SNAPPY, compressed=xerial(b"")[:16] + struct.pack(">i", 99)),
    "xerial with a block too short": Batch((Rec(),) * 3, SNAPPY, compressed=xerial(b"")[:16] + struct.pack(">i", -9)),
    "no lz4": Batch((Rec(),) * 3, LZ4, compressed=b"garbage"),
    "no zstd": Batch((Rec(),) * 3, ZSTD, compressed=b"garbage"),
    "nothing": Batch((Rec(),) * 3, ZSTD, compressed=b""),
    "gzip cut off": Batch((Rec(NOISE),) * 3, GZIP, compressed=gzip.compress(NOISE)[:30]),
    "no records": Batch((Rec(),) * 3, count=0),
    "negative records": Batch((Rec(),) * 3, count=-1),
    "more records than offsets": Batch((Rec(),) * 3, count=9),
}


@pytest.mark.parametrize("batch", UNREADABLE.values(), ids=UNREADABLE)
def test_a_batch_of_which_nothing_can_be_read_is_one_record_with_its_bytes(batch):
    raw = batch.encode()
    records, after = unpacked(raw + Batch(base=3).encode())

    assert [(r.offset, r.value) for r in records] == [(2, raw), (3, b"v")]
    assert records[0].checksum.offsets == (0, 2)
    assert records[0].timestamp == 1_700_000_000_000
    assert after == 4


def test_bytes_after_the_last_record_are_not_passed_over_in_silence():
    (record,) = flawed(Batch((Rec(b"a"),), GZIP, payload=Rec(b"a").encode(0) + b"more").encode())

    assert record.value == b"a"
    assert "bytes follow the last record" in record.checksum.reason


def test_a_wrong_checksum_is_fetched_again_before_it_is_believed():
    raw = Batch((Rec(), Rec()), base=30, crc=1).encode()
    good = Batch(base=29).encode()

    assert read(good + raw + Batch(base=32).encode(), at=29) == [(29, b"v")]
    assert unpacked(raw, at=30) == ([], 30)
    records, after = unpacked(raw + Batch(base=32).encode(), at=30)

    assert [(r.offset, r.value) for r in records] == [(31, raw), (32, b"v")]
    assert "checksum" in records[0].checksum.reason
    assert after == 33


def test_a_wrong_checksum_does_not_lead_past_what_is_not_known():
    raw = Batch(base=50, crc=1, last_delta=10**6).encode()
    for _ in range(record_batches.REFETCHES):
        assert unpacked(raw, at=50) == ([], 50)

    assert unpacked(raw, at=50)[1] == 51


def test_what_lies_before_the_fetch_is_passed_over():
    raw = Batch((Rec(),) * 3, GZIP, compressed=b"garbage").encode() + legacy(b"v", offset=3)

    assert unpacked(raw + Batch(base=4).encode(), at=4)[0] == unpacked(Batch(base=4).encode(), at=4)[0]


def test_unknown_formats_and_lengths_lead_on_by_one():
    assert unpacked(Batch(base=7, magic=3).encode(), at=7)[1] == 8
    broken = struct.pack(">qi", 9, -4) + b"anything"
    records, after = unpacked(Batch(base=8).encode() + broken, at=8)
    assert [(r.offset, r.value) for r in records] == [(8, b"v"), (9, broken)]
    assert after == 10


def test_a_batch_that_the_fetch_cut_off_is_left_for_the_next():
    raw = Batch().encode() + Batch(base=1).encode()

    assert unpacked(raw[:-1]) == (unpacked(Batch().encode())[0], 1)
    assert not FetchedData(raw[:50]).has_next()
    assert FetchedData(raw[:50]).size_in_bytes() == 0


def test_ends_of_transactions_and_aborted_records_are_passed_over():
    def of(base, attributes, value=b"v"):
        return Batch((Rec(value),), base=base, attributes=attributes, producer=77).encode()

    marker = Batch((Rec(body=b"\0\0\0" + sized(b"") + sized(None) + varint(0)),), base=1, attributes=0x30, producer=77)
    log = of(0, 0x10, b"aborted") + marker.encode() + of(2, 0x10, b"committed") + of(3, 0, b"plain")

    assert read(log, aborted=[(77, 0)]) == [(2, b"committed"), (3, b"plain")]
    assert read(log, committed=False, aborted=[(77, 0)]) == [(0, b"aborted"), (2, b"committed"), (3, b"plain")]
    assert unpacked(log, aborted=[(77, 0)])[1] == 4


def test_old_messages_are_read():
    log = legacy(b"v0", b"k", magic=0, offset=0) + legacy(b"v1", magic=1, offset=1) + legacy(None, magic=1, offset=2)
    records, after = unpacked(log)

    assert [(r.offset, r.key, r.value, r.timestamp) for r in records] == [
        (0, b"k", b"v0", None),
        (1, None, b"v1", 7),
        (2, None, None, 7),
    ]
    assert after == 3


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
@pytest.mark.parametrize("magic", [0, 1])
def test_old_messages_that_hold_others_are_read(codec, magic):
    first = 0 if magic else 20  # magic 1 counts from the first
    inner = b"".join(legacy(b"%d" % i, magic=magic, offset=first + i) for i in range(3))
    outer = legacy(compressed(inner, codec), magic=magic, offset=22, codec=codec)

    assert read(outer, at=20) == [(20, b"0"), (21, b"1"), (22, b"2")]
    assert read(outer, at=21) == [(21, b"1"), (22, b"2")]
    assert unpacked(outer, at=20)[1] == 23


def _checked(message):
    return message[:12] + struct.pack(">I", zlib.crc32(message[16:])) + message[16:]


OLD = {
    "checksum": legacy(b"v")[:-1] + b"x",
    "value too long": _checked(legacy(b"vvvv")[:-8] + struct.pack(">i", 99) + b"vvvv"),
    "not gzip": legacy(b"garbage", codec=GZIP),
    "null": legacy(None, codec=GZIP),
    "nothing inside": legacy(gzip.compress(b""), codec=GZIP),
    "twice": legacy(gzip.compress(legacy(gzip.compress(legacy(b"v")), codec=GZIP)), codec=GZIP),
    "unknown codec": legacy(b"v", codec=6),
    "too much": legacy(gzip.compress(legacy(bytes(WHOLE_BYTES))), codec=GZIP),
}


@pytest.mark.parametrize("raw", OLD.values(), ids=OLD)
def test_old_messages_that_make_no_sense_are_kept_as_they_came(raw):
    (record,), after = unpacked(raw)

    assert (record.offset, record.value, after) == (0, raw, 1)
    assert "format v0 or v1" in record.checksum.reason


@pytest.mark.slow
@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
def test_a_record_far_too_large_comes_out_cut_with_its_length_and_hash(codec):
    value = b"0123456789" * 2_000_000
    recs = (Rec(b"a"), Rec(value, b"k", ((b"h", b"1"),)), Rec(b"b"))
    records, _ = unpacked(Batch(recs, codec).encode())

    assert [(r.offset, r.key) for r in records] == [(0, None), (1, b"k"), (2, None)]
    assert records[1].value == value[:MAX_VALUE_BYTES]
    assert records[1].headers == (("h", b"1"),)
    assert records[1].checksum.whole == (len(value), hashlib.sha256(value).hexdigest())
    assert dict(records[1].checksum.headers)["dlq-value-length"] == b"20000000"


def test_a_record_of_which_something_else_is_far_too_large_is_cut_as_a_whole():
    rec = Rec(b"v", bytes(WHOLE_BYTES))
    (record,) = flawed(Batch((rec,), ZSTD).encode())

    body = rec.encode(0)[4:]
    assert record.checksum.whole == (len(body), hashlib.sha256(body).hexdigest())
    assert record.value == body[:MAX_VALUE_BYTES]


@pytest.mark.slow
def test_many_records_that_are_too_much_together_come_out_one_by_one():
    recs = tuple(Rec(bytes([i]) * 880_000) for i in range(170))
    raw = Batch(recs, ZSTD).encode()
    records = PartitionRecords(TP, FetchedData(raw), (), 0, None, None, True, 1)

    for number, record in enumerate(records):
        assert (record.offset, record.value[:1], len(record.value)) == (number, bytes([number]), 880_000)
        assert records.next_fetch_offset == number + 1
    assert number == 169


def test_what_a_batch_comes_to_is_bounded(monkeypatch):
    monkeypatch.setattr(decompression, "LIMIT", 4 * WHOLE_BYTES)
    big = Rec(bytes(WHOLE_BYTES - 100))
    recs = (big,) * 7
    raw = Batch(recs, ZSTD).encode()
    records, after = unpacked(raw)

    assert [r.checksum is None for r in records[:-1]] == [True] * 4
    assert records[-1].value == raw
    assert f"more than {4 * WHOLE_BYTES} bytes" in records[-1].checksum.reason
    assert after == len(recs)


def test_a_zstd_window_that_would_take_the_memory_has_a_lower_bound():
    raw = zstd.compress(bytes(2 * LIMIT_WITH_WINDOW), options={zstd.CompressionParameter.window_log: 27})
    stream = DecompressedStream(memoryview(raw), ZSTD)

    assert len(stream.read(2 * LIMIT_WITH_WINDOW)) <= LIMIT_WITH_WINDOW
    assert stream.error


def test_the_records_of_a_batch_are_bounded_in_number(monkeypatch):
    monkeypatch.setattr(record_batches, "MAX_RECORDS", 100)
    records, after = unpacked(Batch((Rec(None),) * 105, GZIP).encode())

    assert [r.checksum is None for r in records] == [True] * 100 + [False]
    assert records[-1].checksum.offsets == (100, 104)
    assert after == 105


class _Assignment:
    """As much of aiokafka's as a fetch result looks at."""

    active = True
    paused = False
    position = 0

    def state_value(self, tp):
        return self

    def consumed_to(self, position):
        self.position = position


def test_a_consumer_is_given_bytes_in_portions():
    raw = Batch(tuple(Rec(bytes(POLL_BYTES // 2)) for _ in range(5)), GZIP).encode()
    assignment = _Assignment()
    records = PartitionRecords(TP, FetchedData(raw), (), 0, None, None, True, 1)
    result = FetchResult(TP, assignment=assignment, partition_records=records, backoff=0)

    portions = []
    while result.has_more():
        portions.append([record.offset for record in result.getall(200)])
        assert assignment.position == (portions[-1][-1] + 1 if portions[-1] else 5)

    assert portions == [[0, 1], [2, 3], [4]]


def test_a_consumer_is_given_no_more_records_than_it_asks_for():
    records = PartitionRecords(TP, FetchedData(Batch((Rec(),) * 5).encode()), (), 0, None, None, True, 1)
    result = FetchResult(TP, assignment=_Assignment(), partition_records=records, backoff=0)

    assert [len(result.getall(2)) for _ in range(3)] == [2, 2, 1]


texts = st.text(max_size=20)
headers = st.lists(st.tuples(texts, st.none() | st.binary(max_size=20)), max_size=4)
honest = st.lists(
    st.tuples(st.none() | st.binary(max_size=30), st.none() | st.binary(max_size=200), headers), min_size=1, max_size=8
)


@given(honest, st.integers(0, 4))
def test_what_aiokafka_writes_comes_out_as_it_was(records, codec):
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=10**6,
    )
    for offset, (key, value, pairs) in enumerate(records):
        builder.append(offset, timestamp=1, key=key, value=value, headers=pairs)

    out, after = unpacked(bytes(builder.build()))

    assert [(r.key, r.value, list(r.headers), r.checksum) for r in out] == [(*record, None) for record in records]
    assert [r.offset for r in out] == list(range(len(records)))
    assert after == len(records)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(0, 4))
def test_whatever_the_bytes_are_each_offset_comes_out_once_and_nothing_is_raised(data, codec):
    """A batch with some bytes replaced, and its checksum made right again; one that is valid follows."""
    payload = bytearray(b"".join(Rec(b"value-%d" % i, b"key", ((b"h", b"1"),)).encode(i) for i in range(4)))
    stream = bytearray(compressed(bytes(payload), codec) if data.draw(st.booleans()) else b"")
    where = stream or payload
    for _ in range(data.draw(st.integers(0, 4))):
        where[data.draw(st.integers(0, len(where) - 1))] = data.draw(st.integers(0, 255))
    more = {"compressed": bytes(stream) or None}
    if data.draw(st.booleans()):
        more = {"count": data.draw(st.integers(-2, 9)), "attributes": data.draw(st.integers(0, 15))}
    last = 10 + data.draw(st.sampled_from([3, 3, 8]))
    batch = Batch((Rec(),) * 4, codec, base=10, payload=bytes(payload), last_delta=last - 10, **more)
    raw = batch.encode() + Batch(base=last + 1).encode()

    records, after = unpacked(raw, at=10)

    assert after == last + 2
    assert (records[-1].offset, records[-1].value) == (last + 1, b"v")
    offsets = [record.offset for record in records]
    assert offsets == sorted(set(offsets))
    firsts = [r.checksum.offsets[0] if r.checksum and r.checksum.offsets else r.offset for r in records]
    covered = [o for first, r in zip(firsts, records, strict=True) for o in range(first, r.offset + 1)]
    assert covered == sorted(set(covered))
    assert covered == list(range(10, last + 2)) or last == 18  # after compaction, some are missing
    middle = data.draw(st.integers(10, last + 1))
    assert unpacked(raw, at=middle)[0] == [record for record in records if record.offset >= middle]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 100))
def test_no_bytes_raise(raw, at):
    records, after = unpacked(raw, at=at)

    assert after >= at
    assert all(record.offset >= at for record in records)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=14, max_size=120), st.integers(0, 3))
def test_no_bytes_behind_a_valid_length_raise(body, magic):
    raw = struct.pack(">qi", 5, len(body)) + body[:4] + bytes([magic]) + body[5:]
    assert unpacked(raw)[1] >= 0
