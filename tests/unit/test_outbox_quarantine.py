"""Rows that the relay sets apart: the row that Kafka refuses is found, and other rows wait no longer than necessary."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.runtime.outbox.publisher import Refusal
from agents.runtime.outbox.quarantine import (
    MAX_BACKOFF_S,
    MAX_SUSPECTS,
    TRIES,
    UNPROVEN_S,
    ParkedTopic,
    Quarantine,
    SuspectGroup,
)

FINAL, CLEAR, VAGUE = Refusal("too large", True, True), Refusal("too large", True, False), Refusal("?", False, False)


def row(id: int, topic: str = "x", key: bytes | None = None) -> dict[str, object]:
    return {"id": id, "topic": topic, "key": key}


def rows_of(group: SuspectGroup) -> list[dict[str, object]]:
    return [row(suspect.id, suspect.topic, suspect.key) for suspect in group.rows]


def refuse(quarantine: Quarantine, rows, retry=None, *, now: float = 0.0, refusal: Refusal = FINAL):
    return quarantine.suspect(retry, rows, {r["id"]: refusal for r in rows}, now)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.data())
def test_the_rows_to_blame_are_found_and_all_others_are_published_once(count, data):
    bad = set(data.draw(st.lists(st.integers(0, count - 1), max_size=4)))
    rows = [row(n, key=b"%d" % (n % 3)) for n in range(count)]
    quarantine, published, aside = Quarantine(), [], []
    if bad:
        blamed = refuse(quarantine, rows)
        aside += [blamed[0]["id"]] if blamed else []
    else:
        published = [r["id"] for r in rows]
    while (group := quarantine.due(0.0)) is not None:
        if bad & set(group.ids):
            blamed = refuse(quarantine, rows_of(group), group)
            aside += [blamed[0]["id"]] if blamed else []
        else:
            quarantine.published(group, rows_of(group), 0.0)
            published += group.ids

    assert sorted(aside) == sorted(bad)
    assert published == [n for n in range(count) if n not in bad], "in their order"
    assert (quarantine.ids, quarantine.keys, quarantine.errors, quarantine.wait_s(0.0)) == ([], [], {}, None)


def test_where_too_many_rows_are_suspects_the_others_of_their_topic_wait():
    quarantine = Quarantine()
    refuse(quarantine, [row(n, "narrow") for n in range(MAX_SUSPECTS)])
    assert quarantine.topics == []

    refuse(quarantine, [row(n, "narrow") for n in range(MAX_SUSPECTS, 2 * MAX_SUSPECTS)])
    assert quarantine.topics == ["narrow"]


def test_only_the_rows_that_failed_are_suspects():
    quarantine = Quarantine()
    quarantine.suspect(None, [row(n) for n in range(10)], {3: CLEAR, 4: CLEAR}, 0.0)

    assert quarantine.ids == [3, 4]
    assert quarantine.topics == []


def tries_until_given_up(refusal: Refusal, *, others_at: float | None = None) -> tuple[int, float]:
    """How often one row is tried, and when it is given up."""
    quarantine, now, tries = Quarantine(), 0.0, 1
    blamed = refuse(quarantine, [row(1)], refusal=refusal)
    while blamed is None:
        assert quarantine.due(now) is None, "not at once again"
        now += quarantine.wait_s(now) or 0.0
        if others_at is not None and now >= others_at:
            quarantine.published(None, [row(2)], now)
        group = quarantine.due(now)
        tries += 1
        blamed = refuse(quarantine, [row(1)], group, now=now, refusal=refusal)
    return tries, now


def test_what_can_never_be_taken_is_given_up_at_once():
    assert tries_until_given_up(FINAL) == (1, 0.0)


def test_what_its_topic_may_come_to_take_is_tried_for_some_seconds():
    tries, seconds = tries_until_given_up(CLEAR)

    assert tries == TRIES
    assert 5 < seconds < 15


def test_an_error_that_may_be_about_anything_is_held_against_a_row_when_others_are_taken_or_after_long():
    tries, seconds = tries_until_given_up(VAGUE, others_at=2.0)
    assert (tries, seconds < 15) == (TRIES, True)

    tries, seconds = tries_until_given_up(VAGUE)
    assert tries > TRIES
    assert UNPROVEN_S <= seconds < UNPROVEN_S + MAX_BACKOFF_S + 1


def test_rows_of_a_suspects_key_do_not_overtake_it_and_other_suspects_do():
    quarantine = Quarantine()
    refuse(quarantine, [row(1, key=b"a")], refusal=CLEAR)
    refuse(quarantine, [row(2, key=b"b"), row(3, key=b"b")], refusal=CLEAR)

    assert sorted(quarantine.keys) == [b"a", b"b"]
    first = quarantine.due(0.0)
    assert isinstance(first, SuspectGroup)
    assert first.ids == [2], "the row with key a waits for its next try"
    refuse(quarantine, rows_of(first), first, refusal=CLEAR)
    assert quarantine.due(0.0) is None, "the other row with key b waits for the first"


def test_a_topic_that_takes_nothing_is_tried_ever_more_rarely_until_it_does():
    quarantine, now, waits = Quarantine(), 0.0, []
    quarantine.park(None, {"x": "missing"}, now)
    for _ in range(12):
        assert quarantine.due(now) is None
        waits.append(quarantine.wait_s(now))
        now += waits[-1]
        parked = quarantine.due(now)
        assert isinstance(parked, ParkedTopic)
        quarantine.park(parked, {"x": "missing"}, now)

    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(waits) == MAX_BACKOFF_S
    assert (quarantine.topics, quarantine.errors) == (["x"], {"x": "missing"})
    quarantine.published(parked, [row(1)], now)
    assert (quarantine.topics, quarantine.errors) == ([], {})
