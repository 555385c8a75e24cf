"""One stage per recognizer: submit once, then look again whenever a poll is due; the answer is stored before it is
announced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol, cast

from agents.asr.paid_calls import PaidCalls, until_stored
from agents.asr.protocols import (
    Audio,
    ChunkedRecognizer,
    Listed,
    LocalRecognizer,
    Pending,
    Recognizer,
    RemoteRecognizer,
    Request,
    UploadingRecognizer,
    audio_used,
)
from agents.asr.rate_limit import ProviderLimiter
from agents.asr.response_cache import StoredResponses
from agents.media.stored_audio import FLAC, DecodedAudio, StoredAudio
from agents.media.transcode import Transcoder
from agents.runtime.failpoints import passing
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import Stage, backoff_s, belonging
from agents.stages.spec import Resources, StageSpec
from schemas import blob_names, topics
from schemas.envelope import Envelope
from schemas.errors import InDoubt, NotAccepted, Paused, ProviderError, RateLimited, Transient
from schemas.events.asr import AsrRequest
from schemas.events.job import StepState
from schemas.jobs.outcome import IGNORED, NOTHING, Failure, Later, Outcome, Progress, RequestChange
from schemas.jobs.rows import OfRun, ProviderRequest, used
from schemas.words import Hypothesis, adapter
from sinks.ports.blobs import Store
from sinks.ports.clock import Clock
from sinks.ports.providers.requests import Claim, Requests
from sinks.ports.providers.strays import Stray, Strays

#: Seconds for which a claim gives the right to submit. Every submission ends earlier or is not begun.
CLAIM_S = 15.0

#: Seconds for which one look waits for the provider's list. Reading it goes on for the next look.
LIST_S = 12.0

#: Seconds between two looks for a request whose answer was lost, at most; and for one that is parked.
SEARCH_S, PARKED_S = 10.0, 300.0

#: Age, in seconds, of a list that is good enough to look for a request that may still arrive; and of one that is to be
#: proof. Reading a long one may take three minutes, and the next look comes a minute later.
FRESH_S, PROOF_S = 1.0, 240.0

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


class Database(Clock, Requests, Strays, Protocol):
    """What transcribing asks of the database."""


@dataclass(frozen=True)
class Transcribe:
    """What one recognizer's stage needs from outside."""

    recognizer: Recognizer
    database: Database
    store: Store
    work: LeasedTasks
    limiter: ProviderLimiter
    paid: PaidCalls = field(default_factory=PaidCalls)
    #: For recordings that a remote recognizer would mishear as they came. Whoever builds this closes it.
    transcoder: Transcoder = field(default_factory=Transcoder)

    async def handle(self, envelope: Envelope) -> Outcome:
        """Submit, or look at what was submitted."""
        asked = cast("AsrRequest", envelope.data)
        if isinstance(self.recognizer, LocalRecognizer | ChunkedRecognizer):
            return await self._local(self.recognizer, envelope, asked)
        return await self._remote(self.recognizer, envelope, asked)

    async def _remote(self, recognizer: RemoteRecognizer, envelope: Envelope, asked: AsrRequest) -> Outcome:
        if isinstance(recognizer, UploadingRecognizer) or self.limiter.limited:
            row = await self._row(asked)
            if row is None or row.ended:
                return NOTHING if row else IGNORED
            if row.state == "waiting" and not await self.limiter.acquire_slot(asked.tenant_id, asked.job_id, asked.run):
                return self._later(envelope, asked, QUEUED_S)
            if isinstance(recognizer, UploadingRecognizer) and await self._lacks_audio(row):
                return await self._upload(recognizer, envelope, asked, row)
        wait_s = await self._wait_s(asked)
        if wait_s:
            moment = await self.database.now() + timedelta(seconds=wait_s)
            asked = asked.model_copy(update={"moment": moment})
            seconds = wait_s - EARLY_S if wait_s > SHORT_S else wait_s
            return self._later(envelope, asked, seconds, attempt=envelope.attempt)
        asked = asked.model_copy(update={"moment": None})
        began = time.monotonic()
        match await self.database.claim(asked.tenant_id, asked.job_id, asked.run, asked.provider, CLAIM_S):
            case Claim(row, strays):
                passing("transcribe.claimed")
                if strays and row.token == 1 and (outcome := await self._recalled(recognizer, envelope, asked, row)):
                    return outcome
                return await self._submit(recognizer, envelope, asked, row, began + CLAIM_S - 1)
            case ProviderRequest(state="submitted", provider_id=str(provider_id)) as row:
                return await self._poll(recognizer, envelope, asked, row, provider_id)
            case ProviderRequest(state="intended" | "parked") as row:
                return await self._search(recognizer, envelope, asked, row)
            case ProviderRequest(state="waiting"):  # another event has just put it back
                return self._later(envelope, asked, SHORT_S, attempt=envelope.attempt)
            case None:
                return IGNORED
            case _:
                return NOTHING

    async def _lacks_audio(self, row: ProviderRequest) -> bool:
        """Whether the audio must get a URL, or another one, before the request is submitted."""
        if row.state != "waiting" or row.audio_url is None:
            return row.state == "waiting"
        return row.audio_at is not None and await self.database.now() - row.audio_at > STALE

    async def _wait_s(self, asked: AsrRequest) -> float:
        """0 when the call may be made, after a short wait if need be; else seconds until a moment for it, which the
        event brings along when it comes back.
        """
        if asked.moment is not None:
            wait_s = max(0.0, (asked.moment - await self.database.now()).total_seconds())
        elif not (wait_s := await self.limiter.reserve_call(reserved=False)):
            return 0.0
        if wait_s > SHORT_S:
            return wait_s
        await asyncio.sleep(wait_s)
        return await self.limiter.reserve_call(reserved=True)

    async def _upload(
        self, recognizer: UploadingRecognizer, envelope: Envelope, asked: AsrRequest, row: ProviderRequest
    ) -> Outcome:
        """Keep the URL of the audio before anything is asked about it: by it a lost request is found.

        The row's token guards it: once a claim was made, it is that claim's URL and no other.
        """
        request, audio = self._request(asked, row), self._audio(asked)
        key = f"upload/{asked.tenant_id}/{asked.job_id}/{asked.run}/{asked.provider}"

        async def upload(_: Callable[[float], None]) -> str:
            await self.limiter.wait()  # for nothing where the provider follows a link to our storage: only it knows
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
        await self.limiter.worked()
        columns = {"audio_url": url, "audio_at": await self.database.now()}
        return replace(self._later(envelope, asked, 0.0), request=self._change(asked, row.token, **columns))

    async def _submit(
        self, recognizer: RemoteRecognizer, envelope: Envelope, asked: AsrRequest, row: ProviderRequest, until: float
    ) -> Outcome:
        audio = self._audio(asked)
        try:
            answer = await _before(until, lambda: recognizer.submit(self._request(asked, row), audio))
        except NotAccepted as exc:
            waiting = self._change(asked, row.token, state="waiting", claimed_until=None)
            return replace(await self._again(envelope, asked, exc), request=waiting)
        except Transient as exc:  # it may be accepted all the same, also later: the next event looks for it
            ended = self._change(asked, row.token, claimed_until=await self.database.now())
            return replace(await self._again(envelope, asked, exc), request=ended)
        passing("transcribe.submitted")
        await self.limiter.worked()
        if isinstance(answer, Hypothesis):
            return await self._done(asked, answer, row.token)
        return self._submitted(envelope, asked, row, answer)

    def _submitted(self, envelope: Envelope, asked: AsrRequest, row: ProviderRequest, id: str) -> Outcome:
        """From the answer to here nothing asks PostgreSQL: should it be away, the outcome waits for it, with the id."""
        changes = {"state": "submitted", "provider_id": id, "error": None}
        return Outcome(
            **belonging(envelope),
            request=self._change(asked, row.token, **changes),
            progress=self._progress(asked, StepState(state="running", attempts=envelope.attempt + 1)),
            later=self._later(envelope, asked, NEXT_LOOK_S).later,
            audit="started",
        )

    async def _search(
        self, recognizer: RemoteRecognizer, envelope: Envelope, asked: AsrRequest, row: ProviderRequest
    ) -> Outcome:
        """Look for a request that was sent, or about to be, when we lost sight of it.

        Found, it is polled. It is asked again only when it can arrive no more and the provider's list does not have it;
        where that cannot be known, it is parked.
        """
        if row.claimed_until is None:  # a worker of an earlier version gave its claim back: the time counts from now
            begun = self._change(asked, row.token, claimed_until=await self.database.now())
            return replace(self._later(envelope, asked, NEXT_LOOK_S), request=begun)
        settled_s = (await self.database.now() - row.claimed_until).total_seconds() - recognizer.settles_s
        try:
            found = await self._found(recognizer, self._request(asked, row), settled_s)
        except RateLimited as exc:
            return await self._again(envelope, asked, exc, told=False)
        except Transient as exc:
            await self.limiter.failed(exc)
            return self._unknown(envelope, asked, row, str(exc), settled_s, backoff_s(envelope.attempt))
        except (ProviderError, InDoubt) as exc:
            return self._unknown(envelope, asked, row, str(exc), settled_s, PARKED_S)
        await self.limiter.worked()
        if found is not None:
            return self._submitted(envelope, asked, row, found)
        return await self._absent(recognizer, envelope, asked, row, settled_s)

    def _unknown(
        self, envelope: Envelope, asked: AsrRequest, row: ProviderRequest, why: str, settled_s: float, seconds: float
    ) -> Outcome:
        """The list does not tell. It is looked at again; once it should have told, the request is parked meanwhile."""
        if settled_s < 0:
            return self._search_on(envelope, asked, -settled_s)
        return self._parked(envelope, asked, row, why, seconds)

    def _search_on(self, envelope: Envelope, asked: AsrRequest, left_s: float) -> Outcome:
        seconds = min(backoff_s(envelope.attempt), SEARCH_S, left_s)
        return self._later(envelope, asked, seconds, attempt=envelope.attempt + 1)

    async def _absent(
        self,
        recognizer: RemoteRecognizer,
        envelope: Envelope,
        asked: AsrRequest,
        row: ProviderRequest,
        settled_s: float,
    ) -> Outcome:
        """The list does not have it: nothing came of it, if the list must have it by now and still would."""
        if settled_s < 0:
            return self._search_on(envelope, asked, -settled_s)
        if settled_s > recognizer.remembers_s:
            why = f"{recognizer.name}'s list does not have it, and may have forgotten it"
            return self._parked(envelope, asked, row, why, PARKED_S)
        if outcome := await self._recalled(recognizer, envelope, asked, row):
            return outcome
        waiting = self._change(asked, row.token, state="waiting", claimed_until=None, error=None)
        return replace(self._later(envelope, asked, 0.0, attempt=envelope.attempt + 1), request=waiting)

    async def _recalled(
        self, recognizer: RemoteRecognizer, envelope: Envelope, asked: AsrRequest, row: ProviderRequest
    ) -> Outcome | None:
        """Whether the request is one of those that the provider has and no row knows, or may be one; None if not."""
        request = self._request(asked, row)
        told = [
            (stray, recognizer.recalls(_listed(stray), request)) for stray in await self.database.strays(row.provider)
        ]
        if found := next((stray for stray, is_this in told if is_this), None):
            return self._submitted(envelope, asked, row, found.provider_id)
        if unknown := sum(is_this is None for _, is_this in told):
            why = (
                f"{recognizer.name} has {unknown} requests of before the restore that nobody knows, and this may be one"
            )
            return self._parked(envelope, asked, row, why, PARKED_S)
        return None

    @staticmethod
    async def _found(recognizer: RemoteRecognizer, request: Request, settled_s: float) -> str | None:
        """The request's id, or None; that is proof from the moment on at which it must show, `settled_s` ago."""
        proof = settled_s >= 0
        try:
            async with asyncio.timeout(LIST_S):
                return await recognizer.find(
                    request, within_s=min(settled_s, PROOF_S) if proof else FRESH_S, proof=proof
                )
        except TimeoutError as exc:
            raise Transient(f"{recognizer.name}: reading its list of requests takes long") from exc

    def _parked(self, envelope: Envelope, asked: AsrRequest, row: ProviderRequest, why: str, seconds: float) -> Outcome:
        """Nobody asks again; the list is looked at now and then, in case it tells after all."""
        reason = f"may have been accepted, and is not asked again (see `concord requests`): {why}"
        later = self._later(envelope, asked, seconds, attempt=envelope.attempt + 1)
        return replace(
            later,
            request=self._change(asked, row.token, state="parked", error=reason),
            progress=self._progress(asked, StepState(state="waiting", error=reason)),
            audit="" if row.state == "parked" else "retried",
            error=reason,
        )

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
        await self.limiter.worked()
        if isinstance(answer, Pending):
            return self._later(envelope, asked, answer.seconds, progress=answer.progress)
        return await self._done(asked, answer, row.token)

    async def _again(self, envelope: Envelope, asked: AsrRequest, exc: Transient, *, told: bool = True) -> Outcome:
        """The provider is away, or wants a pause. Not counted: it is asked again until the run's deadline, however long
        that lasts. What it was asked for may be paid for already.
        """
        await self.limiter.failed(exc)
        attempt = envelope.attempt + 1
        later = self._later(envelope, asked, backoff_s(envelope.attempt, exc.retry_after), attempt=attempt)
        return self._retrying(later, asked, exc, attempt) if told else later

    def _put_off(self, envelope: Envelope, asked: AsrRequest, exc: NotAccepted) -> Outcome:
        """Work that ended for a pause or without a connection is not counted: what was refused, or not sent, cost
        nothing.
        """
        seconds = backoff_s(0, exc.retry_after)
        later = self._later(envelope, asked, seconds, attempt=envelope.attempt)
        return self._retrying(later, asked, exc, envelope.attempt + 1)

    def _retrying(self, later: Outcome, asked: AsrRequest, exc: Transient, attempts: int) -> Outcome:
        waiting = StepState(state="retrying", attempts=attempts, error=str(exc))
        return replace(later, progress=self._progress(asked, waiting), audit="retried", error=str(exc))

    async def _paused(self, envelope: Envelope, asked: AsrRequest, key: str) -> Outcome | None:
        """For work that is not begun here: put off until after the pause, if there is one."""
        if self.work.progress(key) is None and (pause_s := await self.limiter.pause_s()) > SHORT_S:
            return self._later(envelope, asked, pause_s, attempt=envelope.attempt)
        return None

    async def _local(
        self, recognizer: LocalRecognizer | ChunkedRecognizer, envelope: Envelope, asked: AsrRequest
    ) -> Outcome:
        row = await self._row(asked)
        if row is None or row.ended:
            return NOTHING if row else IGNORED
        key = f"transcribe/{asked.tenant_id}/{asked.job_id}/{asked.run}/{asked.provider}"
        if row.admitted_at is None and not await self.limiter.acquire_slot(asked.tenant_id, asked.job_id, asked.run):
            return self._later(envelope, asked, QUEUED_S)
        pieces = isinstance(recognizer, ChunkedRecognizer)
        if pieces and (pause := await self._paused(envelope, asked, key)) is not None:
            return pause
        try:
            found = await self.work.run(key, lambda tell: self._recognize(recognizer, asked, row, tell), LOOK_S)
        except NotAccepted as exc:
            return self._put_off(envelope, asked, exc)
        if found is None:
            share = self.work.progress(key) or 0.0
            return self._later(envelope, asked, NEXT_LOOK_S, attempt=envelope.attempt, progress=share)
        return await self._done(asked, cast("Hypothesis", found), row.token, stored=True)

    async def _recognize(
        self,
        recognizer: LocalRecognizer | ChunkedRecognizer,
        asked: AsrRequest,
        row: ProviderRequest,
        tell: Callable[[float], None],
    ) -> Hypothesis:
        name = blob_names.hypothesis(asked.tenant_id, asked.job_id, asked.run, asked.provider)
        if await self.store.stat(self.store.uri(name)) is not None:  # another worker finished it and lost the event
            return cast("Hypothesis", adapter(Hypothesis).validate_json(await self.store.get(self.store.uri(name))))
        async with self.store.local_path(asked.audio_uri) as path:
            request = self._request(asked, row)
            if isinstance(recognizer, ChunkedRecognizer):
                kept = StoredResponses(self.store, asked.tenant_id, asked.job_id, asked.provider, self.paid)
                heard = await recognizer.transcribe_chunks(path, request, tell, kept, self.limiter)
            else:
                heard = await recognizer.transcribe(path, request, tell)
        await until_stored(lambda: self._store(asked, heard))  # it may be hours of computing
        return heard

    async def _row(self, asked: AsrRequest) -> ProviderRequest | None:
        rows = await self.database.requests(asked.tenant_id, asked.job_id, asked.run)
        return next((row for row in rows if row.provider == asked.provider), None)

    async def _store(self, asked: AsrRequest, heard: Hypothesis) -> str:
        name = blob_names.hypothesis(asked.tenant_id, asked.job_id, asked.run, asked.provider)
        blob = await self.store.put(name, adapter(Hypothesis).dump_json(heard), "application/json")
        passing("transcribe.stored")
        return blob.uri

    async def _done(self, asked: AsrRequest, heard: Hypothesis, token: int, *, stored: bool = False) -> Outcome:
        """A request has ended well."""
        name = blob_names.hypothesis(asked.tenant_id, asked.job_id, asked.run, asked.provider)
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
        run = cast("OfRun", envelope.data).run  # of a request that cannot be read, no more than this is known
        columns = {"state": "failed", "error": failure.reason}
        change = RequestChange(run=run, provider=self.recognizer.name, token=None, columns=columns)
        return Outcome(**belonging(envelope), request=change)

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

    def _audio(self, asked: AsrRequest) -> Audio:
        if asked.transcode:
            return DecodedAudio(self.store, asked.audio_uri, self.transcoder)
        return StoredAudio(self.store, asked.audio_uri, URL_S)

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
            content_type=FLAC if asked.transcode else asked.content_type,
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


async def _build(spec: StageSpec, resources: Resources) -> Stage:
    recognizer = resources.recognizer(spec.name.removeprefix(f"{SPEC.name}."))
    tasks = resources.leased_tasks(16 if isinstance(recognizer, UploadingRecognizer) else 2)
    resources.on_close(recognizer.close)  # before its tasks: it finishes what it has paid for
    limiter = resources.limiter(recognizer, tasks)
    transcriber = Transcribe(recognizer, resources.database, resources.store, tasks, limiter, resources.paid)
    resources.on_close(transcriber.transcoder.close)
    return stage(transcriber)


SPEC = StageSpec(name="transcribe", publishes=(topics.RESULTS,), per_recognizer=topics.requests, build=_build)


def _listed(stray: Stray) -> Listed:
    urls = None if stray.urls is None else frozenset(stray.urls)
    return Listed(stray.provider_id, stray.created, urls, stray.marker)


async def _before(until: float, call: Callable[[], Awaitable[Any]]) -> Any:
    """The call's answer, if it comes while the claim is good. A call is not begun after that: another worker may hold
    the claim.

    (A process that was stopped for a while finds out here, before it sends anything.)
    """
    left = until - time.monotonic()
    if left <= 0:
        raise NotAccepted("the claim ran out before the request was sent")
    try:
        async with asyncio.timeout(left):
            return await call()
    except TimeoutError as exc:
        raise Transient("the provider did not answer in time") from exc
