"""Queries that are combined into one statement: an error of one of them is raised to its own caller only."""

from __future__ import annotations

import asyncio

import pytest

from schemas.errors import Contended, StorageRefused, Unavailable
from sinks.coalesce import Coalesce


@pytest.mark.parametrize(
    ("said", "to"), [(StorageRefused("no"), 1), (Contended("a lock"), 1), (Unavailable("away"), 50)]
)
async def test_a_query_that_cannot_be_answered_does_not_affect_the_others(said, to):
    asked = []

    async def ask(keys):
        asked.append(len(keys))
        if 17 in keys:
            raise said
        return [key * 2 for key in keys]

    double = Coalesce(ask)
    answers = await asyncio.gather(*map(double, range(50)), return_exceptions=True)

    assert sum(answer is said for answer in answers) == to
    assert answers[17] is said
    assert len(asked) < 14
    if to == 1:
        assert [answer for answer in answers if answer is not said] == [key * 2 for key in range(50) if key != 17]
