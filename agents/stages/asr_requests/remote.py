"""Requests to a recognizer behind a network: submitted once, under a claim, and then polled until they are answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

from agents.asr.protocols import Audio, Pending, RemoteRecognizer, UploadingRecognizer
from agents.asr.rate_limit import ProviderLimiter
from agents.runtime.failpoints import passing
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages.asr_requests.hypotheses import Hypotheses
from agents.stages.asr_requests.lost import LostRequests
from agents.stages.asr_requests.request_event import POLL_S, QUEUED_S, WAIT_S, RequestEvent
from schemas.errors import NotAccepted, Paused, Transient
from schemas.jobs.outcome import IGNORED, NOTHING, Outcome
from schemas.jobs.rows import ProviderRequest
from schemas.words import Hypothesis
from sinks.ports.clock import Clock
from sinks.ports.providers.requests import Claim, Requests
from sinks.ports.providers.strays import Strays

#: Seconds for which a claim gives the right to submit. Every submission ends earlier or is not begun.
CLAIM_S = 15.0

#: Seconds for which a presigned URL of the audio lets the provider fetch it.
URL_S = 6 * 3600

#: Age at which the URL of audio that is not submitted yet is replaced, because the provider needs time to read from it.
STALE = timedelta(seconds=URL_S / 2)

#: Seconds until the reserved time of a call for which its event waits; for a longer wait, the event is delivered again.
SHORT_S = 1.0

#: Seconds by which such an event is due before the reserved time, so that the delay of its delivery does not bunch the
#: calls.
EARLY_S = 0.5


class Database(Clock, Requests, Strays, Protocol):
    """What remote requests ask of the database."""


@dataclass(frozen=True, slots=True)
class RemoteRequests:
    """The requests to one remote recognizer."""

    recognizer: RemoteRecognizer
    database: Database
    tasks: LeasedTasks
    limiter: ProviderLimiter
    hypotheses: Hypotheses
    #: The recording of a request, in the form that the recognizer takes.
    audio: Callable[[RequestEvent], Audio]

    async def handle(self, event: RequestEvent) -> Outcome:
        """Submit the request, or find or poll what was submitted.

        Raises:
            ProviderError: The provider refuses the request for good.
            Unavailable: The database or the store is away.
        """
        if outcome := await self._prepare(event):
            return outcome
        if wait_s := await self._call_in_s(event):
            reserved = event.at(await self.database.now() + timedelta(seconds=wait_s))
            return reserved.continues(wait_s - EARLY_S if wait_s > SHORT_S else wait_s, attempt=event.attempt)
        return await self._call(event.at(None))

    async def _prepare(self, event: RequestEvent) -> Outcome | None:
        """Acquire a slot, and a URL for the audio; None once the request has both, if it needs them."""
        recognizer = self.recognizer
        if not (isinstance(recognizer, UploadingRecognizer) or self.limiter.limited):
            return None
        row = await event.row(self.database)
        if row is None or row.ended:
            return NOTHING if row else IGNORED
        if row.state == "waiting" and not await self.limiter.acquire_slot(*event.run):
            return event.queued(QUEUED_S)
        if isinstance(recognizer, UploadingRecognizer) and await self._needs_url(row):
            return await self._upload(recognizer, event, row)
        return None

    async def _needs_url(self, row: ProviderRequest) -> bool:
        """Whether the audio must get a URL, or a new one, before the request is submitted."""
        if row.state != "waiting" or row.audio_url is None:
            return row.state == "waiting"
        return row.audio_at is not None and await self.database.now() - row.audio_at > STALE

    async def _call_in_s(self, event: RequestEvent) -> float:
        """0 if the call may be made now, after a short wait if need be; otherwise the seconds until the time that is
        reserved for it, which the event carries when it is delivered again.
        """
        if event.data.moment is not None:
            wait_s = max(0.0, (event.data.moment - await self.database.now()).total_seconds())
        elif not (wait_s := await self.limiter.reserve_call(reserved=False)):
            return 0.0
        if wait_s > SHORT_S:
            return wait_s
        await asyncio.sleep(wait_s)
        return await self.limiter.reserve_call(reserved=True)

    async def _upload(self, recognizer: UploadingRecognizer, event: RequestEvent, row: ProviderRequest) -> Outcome:
        """Store the URL of the audio before it is submitted, because a lost request can only be found by it.

        The row's token guards it: once a claim was made, the URL is that claim's and no other.
        """
        request, audio, key = event.request(row), self.audio(event), event.task_key("upload")

        async def upload(_: Callable[[float], None]) -> str:
            # In vain if the provider only follows a link to our storage, which the recognizer alone knows.
            await self.limiter.wait()
            return await recognizer.upload(request, audio)

        if outcome := await put_off_while_paused(event, key, self.tasks, self.limiter):
            return outcome
        try:
            url = await self.tasks.run(key, upload, WAIT_S, eager=True)
        except Paused as exc:
            return event.put_off(exc)
        except Transient as exc:
            await self.limiter.failed(exc)
            return event.retries(exc)
        if url is None:
            return event.continues(POLL_S, attempt=event.attempt)
        passing("transcribe.uploaded")
        await self.limiter.worked()
        stored = event.change(row.token, audio_url=url, audio_at=await self.database.now())
        return event.continues(0.0, change=stored)

    async def _call(self, event: RequestEvent) -> Outcome:
        began = time.monotonic()
        lost = LostRequests(self.recognizer, self.database, self.limiter)
        match await self.database.claim(*event.run, event.data.provider, CLAIM_S):
            case Claim(row, strays):
                passing("transcribe.claimed")
                if strays and row.token == 1 and (outcome := await lost.recall(event, row)):
                    return outcome
                return await self._submit(event, row, began + CLAIM_S - 1)
            case ProviderRequest(state="submitted", provider_id=str(provider_id)) as row:
                return await self._poll(event, row, provider_id)
            case ProviderRequest(state="intended" | "parked") as row:
                return await lost.search(event, row)
            case ProviderRequest(state="waiting"):  # another event has just returned its claim
                return event.continues(SHORT_S, attempt=event.attempt)
            case None:
                return IGNORED
            case _:
                return NOTHING

    async def _submit(self, event: RequestEvent, row: ProviderRequest, until: float) -> Outcome:
        audio = self.audio(event)
        try:
            answer = await _before(until, lambda: self.recognizer.submit(event.request(row), audio))
        except NotAccepted as exc:
            await self.limiter.failed(exc)
            return replace(event.retries(exc), request=event.change(row.token, state="waiting", claimed_until=None))
        except Transient as exc:  # the request may be accepted all the same, even later: the next event searches for it
            ended = event.change(row.token, claimed_until=await self.database.now())
            await self.limiter.failed(exc)
            return replace(event.retries(exc), request=ended)
        passing("transcribe.submitted")
        await self.limiter.worked()
        if isinstance(answer, Hypothesis):
            return await self._answered(event, row, answer)
        return event.submitted(row.token, answer)

    async def _poll(self, event: RequestEvent, row: ProviderRequest, provider_id: str) -> Outcome:
        try:
            async with asyncio.timeout(CLAIM_S):
                answer = await self.recognizer.poll(provider_id)
        except (TimeoutError, Transient) as exc:
            error = exc if isinstance(exc, Transient) else Transient(f"no answer within {CLAIM_S:.0f} s")
            await self.limiter.failed(error)
            return event.retries(error, shown=False)
        await self.limiter.worked()
        if isinstance(answer, Pending):
            return event.continues(answer.seconds, share=answer.progress)
        return await self._answered(event, row, answer)

    async def _answered(self, event: RequestEvent, row: ProviderRequest, hypothesis: Hypothesis) -> Outcome:
        return event.answered(row.token, hypothesis, await self.hypotheses.save(event, hypothesis))


async def put_off_while_paused(
    event: RequestEvent, key: str, tasks: LeasedTasks, limiter: ProviderLimiter
) -> Outcome | None:
    """Put off a task that does not run yet until the provider's pause is over; None if there is no longer pause.

    Raises:
        Unavailable: The database is away.
    """
    if tasks.progress(key) is None and (pause_s := await limiter.pause_s()) > SHORT_S:
        return event.continues(pause_s, attempt=event.attempt)
    return None


async def _before(until: float, call: Callable[[], Awaitable[Any]]) -> Any:
    """The call's answer, if it comes while the claim is valid. A call is not begun after that: another worker may hold
    the claim.

    (A process that was stopped for a while finds out here, before it sends anything.)

    Raises:
        NotAccepted: The claim expired before the call.
        Transient: The answer did not come in time.
    """
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise NotAccepted("the claim ran out before the request was sent")
    try:
        async with asyncio.timeout(left_s):
            return await call()
    except TimeoutError as exc:
        raise Transient("the provider did not answer in time") from exc
