"""Searches for requests whose answer was lost: found in the provider's list, made again, or parked for a person."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from agents.asr.protocols import Listed, RemoteRecognizer, Request
from agents.asr.rate_limit import ProviderLimiter
from agents.runtime.stage import backoff_s
from agents.stages.asr_requests.request_event import POLL_S, RequestEvent
from schemas.errors import InDoubt, ProviderError, RateLimited, Transient
from schemas.jobs.outcome import Outcome
from schemas.jobs.rows import ProviderRequest
from sinks.ports.clock import Clock
from sinks.ports.providers.strays import Stray, Strays

#: Seconds for which one event waits for the provider's list. Reading the list continues, and the next event uses it.
LIST_S = 12.0

#: Most seconds between two searches for a request whose answer was lost; and seconds between those for a parked one.
SEARCH_S, PARKED_S = 10.0, 300.0

#: Age, in seconds, of a list that suffices to find a request that may still arrive; and of one that is to be proof of
#: absence. Reading a long list may take three minutes, and the next search comes a minute later.
FRESH_S, PROOF_S = 1.0, 240.0


class Database(Clock, Strays, Protocol):
    """What a search asks of the database."""


@dataclass(frozen=True, slots=True)
class LostRequests:
    """Searches in the list of one provider."""

    recognizer: RemoteRecognizer
    database: Database
    limiter: ProviderLimiter

    async def search(self, event: RequestEvent, row: ProviderRequest) -> Outcome:
        """Search for a request that was sent, or was about to be sent, when its worker died or lost the connection.

        If it is found, it is polled. It is made again only if it can arrive no more and the provider's list does not
        contain it. If that cannot be decided, it is parked. Raises `Unavailable`.
        """
        if row.claimed_until is None:  # a worker of an earlier version returned its claim: the time counts from now
            return event.continues(POLL_S, change=event.change(row.token, claimed_until=await self.database.now()))
        settled_s = (await self.database.now() - row.claimed_until).total_seconds() - self.recognizer.settles_s
        try:
            provider_id = await self._find(event.request(row), settled_s)
        except RateLimited as exc:
            await self.limiter.failed(exc)
            return event.retries(exc, shown=False)
        except Transient as exc:
            await self.limiter.failed(exc)
            return self._undecided(event, row, str(exc), settled_s, backoff_s(event.attempt))
        except (ProviderError, InDoubt) as exc:
            return self._undecided(event, row, str(exc), settled_s, PARKED_S)
        await self.limiter.worked()
        if provider_id is not None:
            return event.submitted(row.token, provider_id)
        return await self._absent(event, row, settled_s)

    async def _find(self, request: Request, settled_s: float) -> str | None:
        """The provider's id of the request, or None if its list does not contain it. `settled_s` seconds ago the list
        had to contain it at the latest; if that is not negative, None is proof.
        """
        proof = settled_s >= 0
        within_s = min(settled_s, PROOF_S) if proof else FRESH_S
        try:
            async with asyncio.timeout(LIST_S):
                return await self.recognizer.find(request, within_s=within_s, proof=proof)
        except TimeoutError as exc:
            raise Transient(f"{self.recognizer.name}: reading its list of requests takes long") from exc

    def _undecided(
        self, event: RequestEvent, row: ProviderRequest, reason: str, settled_s: float, seconds: float
    ) -> Outcome:
        """The list does not allow an answer. The search is repeated; meanwhile the request is parked, unless it may
        still arrive.
        """
        if settled_s < 0:
            return _search_again(event, -settled_s)
        return event.parked(row, reason, seconds)

    async def _absent(self, event: RequestEvent, row: ProviderRequest, settled_s: float) -> Outcome:
        """The list does not contain the request, which is made again if the list had to contain it by now and keeps it
        long enough.
        """
        if settled_s < 0:
            return _search_again(event, -settled_s)
        if settled_s > self.recognizer.remembers_s:
            reason = f"{self.recognizer.name}'s list does not have it, and may have forgotten it"
            return event.parked(row, reason, PARKED_S)
        if outcome := await self.recall(event, row):
            return outcome
        waiting = event.change(row.token, state="waiting", claimed_until=None, error=None)
        return event.continues(0.0, attempt=event.attempt + 1, change=waiting)

    async def recall(self, event: RequestEvent, row: ProviderRequest) -> Outcome | None:
        """The outcome if this request is one that the provider has and no row knows (a stray), or may be one; None if
        it certainly is not. Raises `Unavailable`.
        """
        request, undecided = event.request(row), 0
        for stray in await self.database.strays(row.provider):
            match self.recognizer.recalls(_listed(stray), request):
                case True:
                    return event.submitted(row.token, stray.provider_id)
                case None:
                    undecided += 1
        if not undecided:
            return None
        reason = (
            f"{self.recognizer.name} has {undecided} requests of before the restore that nobody knows, and this may be "
            "one"
        )
        return event.parked(row, reason, PARKED_S)


def _search_again(event: RequestEvent, left_s: float) -> Outcome:
    """Search again soon, at the latest when the request must show, in `left_s` seconds."""
    seconds = min(backoff_s(event.attempt), SEARCH_S, left_s)
    return event.continues(seconds, attempt=event.attempt + 1)


def _listed(stray: Stray) -> Listed:
    urls = None if stray.urls is None else frozenset(stray.urls)
    return Listed(stray.provider_id, stray.created, urls, stray.marker)
