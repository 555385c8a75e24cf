"""Byte ranges and file names of streamed blobs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.resources.jobs.blob_response import byte_range, disposition

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("", None),
        ("bytes=0-", (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=3-5", (3, 6)),
        ("bytes=3-99", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-99", (0, 10)),
        ("BYTES = 3 - 5", (3, 6)),
        ("bytes=10-", (10, 10)),
        ("bytes=99-100", (10, 10)),
        ("bytes=-0", (10, 10)),
        ("bytes=5-3", None),
        ("bytes=1-2,4-5", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=²-³", None),
        ("bytes=--5", None),
        ("items=0-5", None),
        ("bytes 0-5", None),
        ("bytes=0-" + "9" * 30, None),
    ],
)
def test_a_range_is_parsed_as_rfc_9110_defines_it(header, part):
    assert byte_range(header, 10) == part


@given(st.text(max_size=30), st.integers(0, 100))
def test_a_range_lies_within_the_content_whatever_was_asked_for(text, size):
    for header in (text, f"bytes={text}"):
        part = byte_range(header, size)
        assert part is None or 0 <= part[0] <= part[1] <= size


@given(st.text())
def test_a_file_name_cannot_end_its_header(name):
    header = disposition(name)

    assert header.isascii()
    assert header.isprintable()
    assert header.startswith('inline; filename="')
    assert header.count('"') == 2
