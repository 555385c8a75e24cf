"""One stage per recognizer: submit once, then look again whenever a poll is due; the answer is stored before it is
announced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

from agents import names
from agents.answers import Kept
from agents.failpoints import passing
from agents.pace import Pace
from agents.providers import (
    LocalRecognizer,
    Pending,
    PiecewiseRecognizer,
    Recognizer,
    RemoteRecognizer,
    Request,
    UploadingRecognizer,
    audio_used,
)
from agents.stage import Stage, backoff_s, belonging
from agents.work import LongWork
from schemas import topics
from schemas.errors import Paused, ProviderError, RateLimited, Transient
from schemas.events import AsrRequest, StepState
from schemas.jobs import NOTHING, Failure, Later, Outcome, Progress, ProviderRequest, RequestChange, used
from schemas.messages import Envelope
from schemas.words import Hypothesis, adapter
from sinks import Claim, Database, Store

#: Seconds for which a claim gives the right to submit. Every submission ends earlier or is not begun.
CLAIM_S = 15.0

#: Seconds for which a presigned URL of the audio lets the provider fetch it.
URL_S = 6 * 3600

#: Age at which the URL of audio that was not submitted yet is replaced: the provider needs time to read from it.
STALE = timedelta(seconds=URL_S / 2)

#: Seconds until a call for which its event still waits; later ones come back as an event.
SHORT_S = 1.0

#: Seconds by which such an event comes early, so that the way through our own servers does not bunch the calls.
EARLY_S = 0.5

#: Seconds after which a queued request looks for itself whether it was forgotten.
QUEUED_S = 3600.0

#: Seconds for which an event waits for local work or an upload, and until the next look.
LOOK_S, NEXT_LOOK_S = 2.0, 1.0


@dataclass(frozen=True)
class Transcribe:
    """What one recognizer's stage needs from outside."""

    recognizer: Recognizer
    database: Database
    store: Store
    work: LongWork
    pace: Pace

    async def handle(self, envelope: Envelope) -> Outcome:
        """Submit, or look at what was submitted."""
        asked = cast("AsrRequest", envelope.data)
        if isinstance(self.recognizer, LocalRecognizer | PiecewiseRecognizer):
            return await self._local(self.recognizer, envelope, asked)
        return await self._remote(self.recognizer, envelope, asked)

    async def _remote(self, recognizer: RemoteRecognizer, envelope: Envelope, asked: AsrRequest) -> Outcome:
        calls = 1
        if isinstance(recognizer, UploadingRecognizer) or self.pace.limited:
            row = await self._row(asked)
            if row is None or row.ended:
                return NOTHING
            if row.state == "waiting" and not await self.pace.place(asked.tenant_id, asked.job_id, asked.run):
                return self._later(envelope, asked, QUEUED_S)
            if isinstance(recognizer, UploadingRecognizer) and row.audio_url is None:
                return await self._upload(recognizer, envelope, asked, row)
            calls += row.state == "intended"  # it is looked for before it is submitted
        wait_s = await self._wait_s(asked, calls)
        if wait_s:
            moment = await self.database.now() + timedelta(seconds=wait_s)
            asked = asked.model_copy(update={"moment": moment})
            seconds = wait_s - EARLY_S if wait_s > SHORT_S else wait_s
            return self._later(envelope, asked, seconds, attempt=envelope.attempt)
        asked = asked.model_copy(update={"moment": None})
        began = time.monotonic()
        match await self.database.claim(asked.tenant_id, asked.job_id, asked.run, asked.provider, CLAIM_S):
            case Claim() as claim:
                passing("transcribe.claimed")
                return await self._submit(recognizer, envelope, asked, claim, began + CLAIM_S - 1)
            case ProviderRequest(state="submitted", provider_id=str(provider_id)) as row:
                return await self._poll(recognizer, envelope, asked, row, provider_id)
            case ProviderRequest(state="waiting" | "intended"):
                return self._later(envelope, asked, CLAIM_S / 3)
            case _:
                return NOTHING

    async def _wait_s(self, asked: AsrRequest, calls: int) -> float:
        """0 when the call may be made, after a short wait if need be; else seconds until a moment for it, which the
        event brings along when it comes back.
        """
        if asked.moment is not None:
            wait_s = max(0.0, (asked.moment - await self.database.now()).total_seconds())
        elif not (wait_s := await self.pace.turn(reserved=False, calls=calls)):
            return 0.0
        if wait_s > SHORT_S:
            return wait_s
        await asyncio.sleep(wait_s)
        return await self.pace.turn(reserved=True, calls=calls)

    async def _upload(
        self, recognizer: UploadingRecognizer, envelope: Envelope, asked: AsrRequest, row: ProviderRequest
    ) -> Outcome:
        """Keep the URL of the audio before anything is asked about it: by it a lost request is found.

        The row's token guards it: once a claim was made, it is that claim's URL and no other.
        """
        request, audio = self._request(asked, row), _Stored(self.store, asked.audio_uri)
        key = f"upload/{asked.tenant_id}/{asked.job_id}/{asked.run}/{asked.provider}"

        async def upload(_: Callable[[float], None]) -> str:
            await self.pace.wait()  # for nothing where the provider follows a link to our storage: only it knows
            return await recognizer.upload(request, audio)

        if (pause := await self._paused(envelope, asked, key)) is not None:
            return pause
        try:
            url = await self.work.run(key, upload, LOOK_S, eager=True)
        except Paused as exc:
            return self._put_off(envelope, asked, exc)
        except Transient as exc:
            return await self._again(envelope, asked, exc)
        if url is None:
            return self._later(envelope, asked, NEXT_LOOK_S, attempt=envelope.attempt)
        passing("transcribe.uploaded")
        await self.pace.worked()
        columns = {"audio_url": url, "audio_at": await self.database.now()}
        return replace(self._later(envelope, asked, 0.0), request=self._change(asked, row.token, **columns))

    async def _submit(
        self, recognizer: RemoteRecognizer, envelope: Envelope, asked: AsrRequest, claim: Claim, until: float
    ) -> Outcome:
        row = claim.request
        request = self._request(asked, row)
        try:
            answer: str | Hypothesis | None = None
            if claim.resumed:
                answer = await _before(until, lambda: recognizer.find(request))
                if answer is None:  # the submission has the moment after that
                    await asyncio.sleep(min(self.pace.interval_s, CLAIM_S / 3))
            if answer is None and row.audio_at and await self.database.now() - row.audio_at > STALE:
                return self._upload_anew(envelope, asked, row)
            if answer is None:
                answer = await _before(until, lambda: recognizer.submit(request, _Stored(self.store, asked.audio_uri)))
        except Transient as exc:
            # Our call has ended; should it have been accepted all the same, the next claim finds it before it submits.
            await self.database.unclaim(row)
            return await self._again(envelope, asked, exc)
        except ProviderError:
            await self.database.unclaim(row)
            raise
        passing("transcribe.submitted")
        await self.pace.worked()
        if isinstance(answer, Hypothesis):
            return await self._done(asked, answer, row.token)
        return Outcome(
            **belonging(envelope),
            request=self._change(
                asked, row.token, state="submitted", provider_id=answer, submitted_at=await self.database.now()
            ),
            progress=self._progress(asked, StepState(state="running", attempts=envelope.attempt + 1)),
            later=self._later(envelope, asked, NEXT_LOOK_S).later,
            audit="started",
        )

    def _upload_anew(self, envelope: Envelope, asked: AsrRequest, row: ProviderRequest) -> Outcome:
        """The provider knows of no request, and the URL will soon be of no use: the next event makes another."""
        forgotten = self._change(asked, row.token, audio_url=None, audio_at=None)
        return replace(self._later(envelope, asked, 0.0, attempt=envelope.attempt), request=forgotten)

    async def _poll(
        self,
        recognizer: RemoteRecognizer,
        envelope: Envelope,
        asked: AsrRequest,
        row: ProviderRequest,
        provider_id: str,
    ) -> Outcome:
        try:
            async with asyncio.timeout(CLAIM_S):
                answer = await recognizer.poll(provider_id)
        except TimeoutError:
            return await self._again(envelope, asked, Transient(f"no answer within {CLAIM_S:.0f} s"), told=False)
        except Transient as exc:
            return await self._again(envelope, asked, exc, told=False)
        await self.pace.worked()
        if isinstance(answer, Pending):
            return self._later(envelope, asked, answer.seconds, progress=answer.progress)
        return await self._done(asked, answer, row.token)

    async def _again(self, envelope: Envelope, asked: AsrRequest, exc: Transient, *, told: bool = True) -> Outcome:
        """The provider is away, or wants a pause. Not counted: it is asked again until the run's deadline, however long
        that lasts. What it was asked for may be paid for already.
        """
        await self.pace.failed(exc)
        attempt = envelope.attempt + 1
        later = self._later(envelope, asked, backoff_s(envelope.attempt, exc.retry_after), attempt=attempt)
        return self._retrying(later, asked, exc, attempt) if told else later

    def _put_off(self, envelope: Envelope, asked: AsrRequest, exc: RateLimited) -> Outcome:
        """Work that ended for a pause, which is not counted: what was refused, or not sent, cost nothing."""
        seconds = backoff_s(0, exc.retry_after)
        later = self._later(envelope, asked, seconds, attempt=envelope.attempt)
        return self._retrying(later, asked, exc, envelope.attempt + 1)

    def _retrying(self, later: Outcome, asked: AsrRequest, exc: Transient, attempts: int) -> Outcome:
        waiting = StepState(state="retrying", attempts=attempts, error=str(exc))
        return replace(later, progress=self._progress(asked, waiting), audit="retried", error=str(exc))

    async def _paused(self, envelope: Envelope, asked: AsrRequest, key: str) -> Outcome | None:
        """For work that is not begun here: put off until after the pause, if there is one."""
        if self.work.progress(key) is None and (pause_s := await self.pace.pause_s()) > SHORT_S:
            return self._later(envelope, asked, pause_s, attempt=envelope.attempt)
        return None

    async def _local(
        self, recognizer: LocalRecognizer | PiecewiseRecognizer, envelope: Envelope, asked: AsrRequest
    ) -> Outcome:
        row = await self._row(asked)
        if row is None or row.ended:
            return NOTHING
        key = f"transcribe/{asked.tenant_id}/{asked.job_id}/{asked.run}/{asked.provider}"
        if isinstance(recognizer, PiecewiseRecognizer):
            if row.admitted_at is None and not await self.pace.place(asked.tenant_id, asked.job_id, asked.run):
                return self._later(envelope, asked, QUEUED_S)
            if (pause := await self._paused(envelope, asked, key)) is not None:
                return pause
        try:
            found = await self.work.run(key, lambda tell: self._recognize(recognizer, asked, row, tell), LOOK_S)
        except RateLimited as exc:
            return self._put_off(envelope, asked, exc)
        if found is None:
            share = self.work.progress(key) or 0.0
            return self._later(envelope, asked, NEXT_LOOK_S, attempt=envelope.attempt, progress=share)
        return await self._done(asked, cast("Hypothesis", found), row.token, stored=True)

    async def _recognize(
        self,
        recognizer: LocalRecognizer | PiecewiseRecognizer,
        asked: AsrRequest,
        row: ProviderRequest,
        tell: Callable[[float], None],
    ) -> Hypothesis:
        name = names.hypothesis(asked.tenant_id, asked.job_id, asked.run, asked.provider)
        if await self.store.stat(self.store.uri(name)) is not None:  # another worker finished it and lost the event
            return cast("Hypothesis", adapter(Hypothesis).validate_json(await self.store.get(self.store.uri(name))))
        async with self.store.local_path(asked.audio_uri) as path:
            request = self._request(asked, row)
            if isinstance(recognizer, PiecewiseRecognizer):
                kept = Kept(self.store, asked.tenant_id, asked.job_id, asked.provider)
                heard = await recognizer.transcribe_pieces(path, request, tell, kept, self.pace)
            else:
                heard = await recognizer.transcribe(path, request, tell)
        await self._store(asked, heard)
        return heard

    async def _row(self, asked: AsrRequest) -> ProviderRequest | None:
        rows = await self.database.requests(asked.tenant_id, asked.job_id, asked.run)
        return next((row for row in rows if row.provider == asked.provider), None)

    async def _store(self, asked: AsrRequest, heard: Hypothesis) -> str:
        name = names.hypothesis(asked.tenant_id, asked.job_id, asked.run, asked.provider)
        blob = await self.store.put(name, adapter(Hypothesis).dump_json(heard), "application/json")
        passing("transcribe.stored")
        return blob.uri

    async def _done(self, asked: AsrRequest, heard: Hypothesis, token: int, *, stored: bool = False) -> Outcome:
        """A request has ended well."""
        name = names.hypothesis(asked.tenant_id, asked.job_id, asked.run, asked.provider)
        uri = self.store.uri(name) if stored else await self._store(asked, heard)
        length_ms = heard.duration_ms or asked.duration_ms or 0
        return Outcome(
            tenant_id=asked.tenant_id,
            job_id=asked.job_id,
            request=self._change(
                asked,
                token,
                state="done",
                hypothesis_uri=uri,
                confidence=heard.confidence,
                word_count=len(heard.words),
                language=heard.language,
            ),
            usage=used(asked, asked.provider, "whole", audio_used(heard, length_ms / 1000)),
        )

    def give_up(self, envelope: Envelope, failure: Failure) -> Outcome:
        """This recognizer has failed; the job goes on with the others."""
        asked = cast("AsrRequest", envelope.data)
        return Outcome(**belonging(envelope), request=self._change(asked, None, state="failed", error=failure.reason))

    def _later(
        self, envelope: Envelope, asked: AsrRequest, seconds: float, *, attempt: int = 0, progress: float | None = None
    ) -> Outcome:
        topic = topics.requests(asked.provider).name
        poll = Later(topic, asked, seconds=seconds, kind=topics.REQUEST_TYPE, index="poll", attempt=attempt)
        told = (
            self._progress(asked, StepState(state="running", progress=round(progress, 2)))
            if progress is not None
            else None
        )
        return Outcome(**belonging(envelope), progress=told, later=(poll,), audit="")

    def _progress(self, asked: AsrRequest, state: StepState) -> Progress:
        return Progress(run=asked.run, stage=f"transcribe.{asked.provider}", step=state)

    @staticmethod
    def _change(asked: AsrRequest, token: int | None, **columns: object) -> RequestChange:
        return RequestChange(run=asked.run, provider=asked.provider, token=token, columns=columns)

    @staticmethod
    def _request(asked: AsrRequest, row: ProviderRequest) -> Request:
        return Request(
            tenant_id=asked.tenant_id,
            job_id=asked.job_id,
            run=asked.run,
            marker=row.marker,
            language=asked.language,
            diarize=asked.options.diarize,
            redact_pii=asked.options.redact_pii,
            content_type=asked.content_type,
            duration_ms=asked.duration_ms,
            audio_url=row.audio_url,
            since=row.audio_at,
        )


def stage(transcribe: Transcribe) -> Stage:
    """One recognizer's stage."""
    name = transcribe.recognizer.name
    topic = topics.requests(name)
    # Its events mostly wait for somebody else's server.
    return Stage(f"transcribe.{name}", (topic,), topic, transcribe.handle, transcribe.give_up, concurrency=256)


@dataclass(frozen=True, slots=True)
class _Stored:
    """The stored original, as `agents.providers.Audio`."""

    store: Store
    uri: str

    def stream(self) -> AsyncIterator[bytes]:
        return self.store.stream(self.uri)

    async def url(self) -> str | None:
        return await self.store.presigned_url(self.uri, URL_S)


async def _before(until: float, call: Callable[[], Awaitable[Any]]) -> Any:
    """The call's answer, if it comes while the claim is good. A call is not begun after that: another worker may hold
    the claim.

    (A process that was stopped for a while finds out here, before it sends anything.)
    """
    left = until - time.monotonic()
    if left <= 0:
        raise Transient("the claim ran out before the request was sent")
    try:
        async with asyncio.timeout(left):
            return await call()
    except TimeoutError as exc:
        raise Transient("the provider did not answer in time") from exc
