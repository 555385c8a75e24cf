"""The port of call rates and pauses of a provider (a circuit breaker), which all workers share."""

from __future__ import annotations

from typing import Final, Protocol

#: Failures in a row after which all workers pause, and the longest pause that the provider did not ask for.
TOLERATED: Final = 5
LONGEST_S: Final = 60.0


class Limits(Protocol):
    """Times are on the database's clock; answers are seconds from now."""

    async def reserve_calls(self, provider: str, calls: int, interval_s: float) -> float:
        """Reserve moments for that many calls, `interval_s` apart, none within a pause; seconds until the first."""

    async def space_calls(self, provider: str, calls: int, interval_s: float, within_s: float) -> float | None:
        """Space calls that are about to be made in a second, short queue, `interval_s` apart: seconds until the first.
        None, and nothing is reserved, if that is more than `within_s`.

        Callers that missed their reserved moment meet here, instead of calling in a burst.
        """

    async def provider_failed(self, provider: str, retry_after: float | None) -> None:
        """Count a failed call. All workers pause for `retry_after` seconds, or for longer after several failures in a
        row (`pause_s`). A failure within a pause is not counted, but may prolong it.
        """

    async def provider_succeeded(self, provider: str) -> None:
        """Reset the count of failures."""


def pause_s(failures: int, retry_after: float | None) -> float:
    """Seconds of pause after so many failures in a row: doubling from the fifth on up to `LONGEST_S`, and never less
    than the provider asks for. (A provider that asks for a second for ten minutes is not called six hundred times.)

    A call that fails within a pause had begun before it: it is not counted, because it only repeats what is known.
    """
    own = min(LONGEST_S, 2.0 ** (failures - TOLERATED)) if failures >= TOLERATED else 0.0
    return max(own, retry_after or 0.0)
