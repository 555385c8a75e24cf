"""The number of examples of property-based tests."""

from __future__ import annotations

from hypothesis import settings


def examples(number: int) -> int:
    """So many examples; fewer, in proportion, where the profile has fewer than 100, as in the quick suite."""
    return max(5, number * settings.default.max_examples // 100)
