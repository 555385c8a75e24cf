"""The double of call rates and pauses of a provider."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sinks.memory.state import MemoryState
from sinks.ports.providers.limits import Limits, pause_s


@dataclass(frozen=True, slots=True)
class _Breaker:
    """A provider's failures in a row, the end of its pause, and the first moment that is not reserved."""

    failures: int = 0
    paused_until: datetime | None = None
    next_at: datetime | None = None


@dataclass
class MemoryLimits(MemoryState, Limits):
    """`Limits` in this process."""

    _breakers: dict[str, _Breaker] = field(default_factory=dict)
    #: By provider: the first free moment in the short queue of calls that are about to be made.
    _lines: dict[str, datetime] = field(default_factory=dict)

    async def reserve_calls(self, provider: str, calls: int, interval_s: float) -> float:
        """Reserve moments for calls; seconds until the first."""
        breaker = self._breaker(provider)
        first = max(filter(None, (breaker.paused_until, breaker.next_at, self.clock())))
        self._breakers[provider] = replace(breaker, next_at=first + timedelta(seconds=calls * interval_s))
        return (first - self.clock()).total_seconds()

    async def space_calls(self, provider: str, calls: int, interval_s: float, within_s: float) -> float | None:
        """Space calls that are about to be made; seconds until the first, None if that is too long."""
        now = self.clock()
        first = max(self._lines.get(provider, now), now)
        if (first - now).total_seconds() > within_s:
            return None
        self._lines[provider] = first + timedelta(seconds=calls * interval_s)
        return (first - now).total_seconds()

    async def provider_failed(self, provider: str, retry_after: float | None) -> None:
        """Count a failed call, and pause if it is time to."""
        breaker = self._breaker(provider)
        counted = 0 if self._paused_until(provider) else breaker.failures + 1
        until = self.clock() + timedelta(seconds=pause_s(counted, retry_after))
        self._breakers[provider] = replace(
            breaker,
            failures=counted or breaker.failures,
            paused_until=max(filter(None, (breaker.paused_until, until))),
        )

    async def provider_succeeded(self, provider: str) -> None:
        """Reset the count of failures."""
        self._breakers[provider] = replace(self._breaker(provider), failures=0)

    def _breaker(self, provider: str) -> _Breaker:
        return self._breakers.get(provider, _Breaker())

    def _paused_until(self, provider: str) -> datetime | None:
        """The end of the pause, if there is one now."""
        until = self._breaker(provider).paused_until
        return until if until and until > self.clock() else None
