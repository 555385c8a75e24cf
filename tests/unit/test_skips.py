"""Records that are skipped: which ones, and what happens to them."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from agents.runtime.kafka.record_batches import FetchedData, PartitionRecords
from agents.runtime.skips import Skips
from schemas.envelope import Flaw, Record
from schemas.errors import Unavailable
from schemas.operations import Skip
from tests.batches import Batch, Rec

AT = ("audio.uploaded", 2, 17)


class Rows:
    """Where wishes are kept."""

    def __init__(self, *skips: Skip) -> None:
        self.kept, self.told, self.away = list(skips), list[tuple[Skip, str]](), False

    async def skips(self) -> list[Skip]:
        if self.away:
            raise Unavailable("PostgreSQL is away")
        return self.kept

    async def done(self, skip: Skip, stage: str) -> None:
        if self.away:
            raise Unavailable("PostgreSQL is away")
        self.told.append((skip, stage))


async def known(*skips: Skip) -> Skips:
    found = Skips(Rows(*skips))
    await found.refresh()
    return found


@pytest.mark.parametrize(
    ("record", "meant"),
    [
        (Record(*AT, None, b"v", timestamp_ms=5), True),
        (Record("audio.uploaded", 2, 18, None, b"v", timestamp_ms=5), False),
        (Record("audio.uploaded", 1, 17, None, b"v", timestamp_ms=5), False),
        (Record("intake.due", 2, 17, None, b"v", timestamp_ms=5), False),
        (Record(*AT, None, b"v", timestamp_ms=6), False),  # the topic was made again: another record at this place
    ],
)
async def test_the_very_record_is_meant(record, meant):
    skips = await known(Skip(*AT, "it kills us", timestamp_ms=5))

    assert (skips.of(record) is not None) == meant


async def test_a_batch_of_which_one_record_is_meant_is_meant():
    skips = await known(Skip(*AT, "it kills us", unread=True))

    assert skips.of(Record("audio.uploaded", 2, 19, None, b"raw", flaw=Flaw("?", offsets=(15, 19)))) is not None
    assert skips.of(Record("audio.uploaded", 2, 24, None, b"raw", flaw=Flaw("?", offsets=(20, 24)))) is None
    assert skips.unread("audio.uploaded", 2, 15, 19) == "it kills us"
    assert skips.unread("audio.uploaded", 2, 18, 19) is None


async def test_only_what_is_to_stay_unread_is():
    assert (await known(Skip(*AT, "it kills us"))).unread("audio.uploaded", 2, 15, 19) is None


async def test_wishes_hold_while_the_database_is_away():
    rows = Rows(Skip(*AT, "it kills us"))
    skips = Skips(rows)
    await skips.refresh()
    rows.away = True
    with pytest.raises(Unavailable):
        await skips.refresh()

    assert skips.of(Record(*AT, None, b"v")) is not None
    await skips.done(rows.kept[0], "intake")
    assert rows.told == []


async def test_a_batch_that_is_to_stay_unread_comes_out_as_its_bytes(monkeypatch):
    monkeypatch.setattr(
        PartitionRecords, "skipped", await known(Skip("audio.uploaded", 2, 1, "it kills us", unread=True))
    )
    raw = Batch((Rec(b"a"), Rec(b"b"), Rec(b"c"))).encode()
    records = list(
        PartitionRecords(
            TopicPartition("audio.uploaded", 2), FetchedData(raw + Batch(base=3).encode()), (), 0, None, None, True, 1
        )
    )

    assert [(record.offset, record.value) for record in records] == [(2, raw), (3, b"v")]
    assert records[0].checksum.offsets == (0, 2)
    assert records[0].checksum.reason.startswith("it kills us")
