"""The pause that a server asks for, whatever its clock and ours."""

from __future__ import annotations

import pytest

from schemas.calls.retry_after import LONGEST_S, seconds_of

DATE = "Sat, 01 Jan 2011 10:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "20"}, 20.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "1e9"}, LONGEST_S),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        # By the server's clock, which is years behind ours.
        ({"Retry-After": "Sat, 01 Jan 2011 10:00:30 GMT", "Date": DATE}, 30.0),
        ({"Retry-After": "Sat, 01 Jan 2011 09:59:00 GMT", "Date": DATE}, 0.0),
        ({"Retry-After": "Sat, 01 Jan 2011 10:00:30 GMT", "Date": "no date"}, 0.0),
        ({"Retry-After": "Sat, 01 Jan 2011 10:00:30 GMT"}, 0.0),
    ],
)
def test_a_pause_is_counted_by_the_clock_of_who_asks_for_it(headers, seconds):
    assert seconds_of(headers) == seconds
