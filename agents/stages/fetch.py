"""The stage that fetches conversations of voice agents: it waits until each has ended, stores what was said and its
recording, and begins its run, in which what the agent has understood is one recognizer's transcript.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, cast

from agents.conversations import transcript
from agents.conversations.answers import Conversation
from agents.conversations.client import ElevenLabs
from agents.conversations.recording import NONE, Recording, Recordings
from agents.conversations.requesting import refused
from agents.runtime.failpoints import passing
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import Stage, belonging, failed_job
from agents.stages.spec import Resources, StageSpec
from agents.stages.uploads.accepted import is_of_deleted
from agents.stages.uploads.conversations import ConversationRequests
from agents.stages.uploads.jobs import earlier_requests, first_run, is_heard, provider_requests, reused_request
from agents.stages.uploads.runs import Runs
from agents.stages.uploads.waiting import still_queued
from schemas import blob_names, ids, topics
from schemas.conversations.names import FETCH, STARTED_AT
from schemas.conversations.processing import TEXT_STORED
from schemas.envelope import Envelope
from schemas.errors import InvalidInput, MalformedEvent, NotDelivered, UnknownConversation, UnsupportedOption
from schemas.events.conversation import AGENT, ConversationFetch, ConversationRequested
from schemas.events.job import JobReprocess, StepState
from schemas.jobs.outcome import IGNORED, NOTHING, Failure, Later, Outcome, Progress
from schemas.jobs.rows import File, Job, ProviderRequest, answer_columns, run_fields
from schemas.words import Hypothesis, adapter
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Blob, Store, file_of
from sinks.ports.clock import Clock
from sinks.ports.conversations.agents import ConversationAgents
from sinks.ports.jobs import Jobs
from sinks.ports.providers.requests import Requests
from sinks.ports.upkeep.deletions import Deletions

#: Seconds for which an event waits for its conversation; a longer fetch continues outside the event.
QUICK_S: Final = 8.0

#: Seconds between two events of a fetch that continues.
RETURN_S: Final = 2.0

#: Seconds between two looks at a conversation that has not ended, at first and at most; in between, a tenth of the time
#: for which it was waited for.
LOOK_S, SLOWEST_S = 2.0, 60.0

#: Conversations that one worker fetches at once.
AT_ONCE: Final = 16

#: How often is retried what ElevenLabs fails at: for five minutes. While it accepts nothing, it is asked for a day.
RETRIES, WAITS = 10, 200

_RUNNING: Final = StepState(state="running")

_TEXT: Final = "text/plain; charset=utf-8"


class Database(Clock, Jobs, Requests, Deletions, ConversationAgents, Protocol):
    """What fetching asks of the database."""


#: What was said as a hypothesis, where that is stored, and what was said as a text.
Stored = tuple[Hypothesis, str, Blob]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A conversation that is stored."""

    hypothesis: Hypothesis
    hypothesis_uri: str
    text: Blob
    recording: Recording


@dataclass(frozen=True)
class Fetch:
    """Handles requests for conversations, and the looks at them."""

    database: Database
    store: Store
    #: None where no key is configured: then every request is refused.
    client: ElevenLabs | None
    recordings: Recordings | None
    tasks: LeasedTasks
    runs: Runs
    requests: ConversationRequests
    accounts: EffectiveSettings
    #: Bytes of a recording, unless the account has a limit of its own.
    max_bytes: int
    #: Seconds for which a conversation that has not ended is waited for.
    wait_s: float

    async def handle(self, envelope: Envelope) -> Outcome:
        """Take in a request, or look at a conversation.

        Raises:
            InvalidInput: The request is refused, or the conversation cannot be had.
            ProviderError: ElevenLabs refuses the key.
            Transient: It does not answer now.
            Unavailable: The database or the store is away.
        """
        match envelope.data:
            case ConversationRequested() as data:
                return await self._take_in(envelope, data)
            case ConversationFetch() as data:
                return await self._look(envelope, data)
            case other:
                raise MalformedEvent(f"fetch does not handle {type(other).__name__}")

    async def _take_in(self, envelope: Envelope, request: ConversationRequested) -> Outcome:
        outcome, existing = await self.requests.outcome(self.database, request)
        if existing is None:
            deletion = await self.database.deletion(request.tenant_id, request.job_id)
            if is_of_deleted(envelope.record, deletion):
                return NOTHING
        return outcome

    async def _look(self, envelope: Envelope, data: ConversationFetch) -> Outcome:
        job = await self.database.job(data.tenant_id, data.job_id)
        if job is None or job.run < data.run:
            return IGNORED
        if job.run > data.run or job.status != "uploaded":
            return NOTHING
        if job.is_queued:
            return still_queued(job, JobReprocess(**run_fields(job)), envelope.attempt)
        earlier = await earlier_requests(self.database, job)
        agent = earlier.get(AGENT)
        if agent is not None and is_heard(agent):
            return await self._begun(envelope, job, earlier)
        # What the account has set since, and what a run that is begun by hand has never been asked about.
        self.requests.check(await self.accounts.settings_of(job.tenant_id))
        key = ids.task_key("fetch", job.tenant_id, job.job_id, job.run)
        reached: Fetched | Conversation | None = await self.tasks.run(
            key, lambda progress: self._reached(job, data.conversation_id, progress), QUICK_S
        )
        if reached is None:
            # Another worker may be at it, which tells it with its own events.
            step = _RUNNING.model_copy(update={"progress": self.tasks.progress(key) or None})
            return self._again(envelope, data, RETURN_S, step)
        if isinstance(reached, Conversation):
            return await self._wait(envelope, data, reached)
        return await self._begun(envelope, job, earlier, reached)

    async def _reached(
        self, job: Job, conversation_id: str, progress: Callable[[float], None]
    ) -> Fetched | Conversation:
        """The conversation, stored; or as it is while it has not ended. `progress` is told when its text is stored."""
        if self.client is None or self.recordings is None:
            raise UnsupportedOption(
                "conversations are not fetched by this worker: have an operator set ELEVENLABS_API_KEY"
            )
        earlier = heard = await self._heard_earlier(job, conversation_id)
        if heard is None:
            conversation = await self.client.conversation(conversation_id)
            await self._check_owner(job, conversation)
            if conversation.state == "open":
                return conversation
            if conversation.state == "failed":
                raise InvalidInput("ElevenLabs reports that the conversation has failed; there is nothing to process")
            heard = await self._store(job, conversation_id, conversation)
        progress(TEXT_STORED)
        hypothesis, uri, text = heard
        recording = Recording(notes=(NONE,))
        if hypothesis.details.get("has_audio"):
            own = (await self.accounts.settings_of(job.tenant_id)).max_conversation_mb
            limit = self.max_bytes if own is None else own << 20
            again = earlier is not None
            recording = await self.recordings.stored(job.tenant_id, conversation_id, limit, again=again)
        passing("fetch.stored")
        return Fetched(hypothesis, uri, text, recording)

    async def _check_owner(self, job: Job, conversation: Conversation) -> None:
        """Raises UnknownConversation if its agent is in other accounts' settings only: one key serves all accounts, and
        whoever has come by an id must not get another's call by it.
        """
        if conversation.agent_id is None:
            return
        owners = [tenant for tenant, _ in await self.database.owners_of_agent(conversation.agent_id)]
        if owners and job.tenant_id not in owners:
            raise UnknownConversation("there is no such conversation of this account")

    async def _heard_earlier(self, job: Job, conversation_id: str) -> Stored | None:
        """What an earlier attempt has stored, be it of an earlier run: that is not fetched again. What was deleted may
        still be there for a moment.
        """
        text = await self.store.stat(self.store.uri(blob_names.conversation_text(job.tenant_id, conversation_id)))
        if text is None:
            return None
        deletion = await self.database.deletion(job.tenant_id, job.job_id)
        for run in range(job.run, first_run(deletion) - 1, -1):
            uri = self.store.uri(blob_names.hypothesis(job.tenant_id, job.job_id, run, AGENT))
            if await self.store.stat(uri) is not None:
                return cast("Hypothesis", adapter(Hypothesis).validate_json(await self.store.get(uri))), uri, text
        return None

    async def _store(self, job: Job, conversation_id: str, conversation: Conversation) -> Stored:
        """Store what was said."""
        content = transcript.text(conversation).encode()
        text = await self.store.put(blob_names.conversation_text(job.tenant_id, conversation_id), content, _TEXT)
        hypothesis = transcript.hypothesis(conversation)
        name = blob_names.hypothesis(job.tenant_id, job.job_id, job.run, AGENT)
        blob = await self.store.put(name, adapter(Hypothesis).dump_json(hypothesis), "application/json")
        passing("fetch.text")
        return hypothesis, blob.uri, text

    async def _wait(self, envelope: Envelope, data: ConversationFetch, conversation: Conversation) -> Outcome:
        """Look again later.

        Raises:
            NotDelivered: It was waited for long enough.
        """
        now = await self.database.now()
        since = data.since or now
        waited_s = (now - since).total_seconds()
        if waited_s > self.wait_s:
            raise NotDelivered(
                f"the conversation is still {conversation.status!r} at ElevenLabs after {timedelta(seconds=waited_s)}"
            )
        seconds = min(max(LOOK_S, waited_s / 10), SLOWEST_S)
        again = data.model_copy(update={"since": since})
        note = (f"ElevenLabs: the conversation is {conversation.status!r}.",)
        return self._again(envelope, again, seconds, StepState(state="running", notes=note), attempt=0)

    def _again(
        self,
        envelope: Envelope,
        data: ConversationFetch,
        seconds: float,
        step: StepState = _RUNNING,
        *,
        attempt: int | None = None,
    ) -> Outcome:
        attempt = envelope.attempt if attempt is None else attempt
        later = Later(topics.FETCH_DUE.name, data, seconds=seconds, kind="conversation.fetch", attempt=attempt)
        progress = Progress(run=data.run, stage=FETCH, step=step)
        return Outcome(**belonging(envelope), progress=progress, later=(later,), audit="")

    async def _begun(
        self, envelope: Envelope, job: Job, earlier: dict[str, ProviderRequest], fetched: Fetched | None = None
    ) -> Outcome:
        """The run goes on with what is stored now, or was by an earlier run."""
        notes, columns, files = job.audio_notes, dict[str, Any](), tuple[File, ...]()
        if fetched is not None:
            notes, columns, files = _notes(job, fetched), _columns(job, fetched), _files(job, fetched)
        job = replace(job, **columns, steps={FETCH: StepState(state="done", notes=notes or None)})
        runs = (await self._runs(job)).of_job(job)
        new = provider_requests(job, runs.recognizers)
        requests = tuple(reused_request(request, earlier.get(request.provider)) for request in new)
        if fetched is not None:
            now = await self.database.now()
            requests = (_answered(requests[0], fetched, now), *requests[1:])
        step = StepState(state="done", attempts=envelope.attempt + 1, progress=1.0, notes=notes or None)
        return Outcome(
            **belonging(envelope),
            progress=Progress(
                run=job.run,
                status="reconciling" if all(request.ended for request in requests) else "transcribing",
                stage=FETCH,
                step=step,
                columns=columns,
            ),
            new_requests=requests,
            files=files,
            later=runs.request_events(job, requests),
        )

    async def _runs(self, job: Job) -> Runs:
        return self.runs.of_tenant(await self.accounts.settings_of(job.tenant_id))


def _notes(job: Job, fetched: Fetched) -> tuple[str, ...]:
    """What readers are told of the conversation."""
    notes = (*map(str, fetched.hypothesis.details.get("notes") or ()), *fetched.recording.notes)
    if job.options.get("verify") and fetched.recording.blob is None:
        notes += ("Nothing could be verified, since there is no recording.",)
    return notes


def _columns(job: Job, fetched: Fetched) -> dict[str, Any]:
    blob, recording = fetched.recording.blob, fetched.recording
    started_at = fetched.hypothesis.details.get(STARTED_AT)
    return {
        "options": job.options | {STARTED_AT: started_at} if started_at else job.options,
        "original_uri": blob.uri if blob else None,
        "content_type": blob.content_type if blob else None,
        "duration_ms": recording.duration_ms or fetched.hypothesis.duration_ms,
    }


def _files(job: Job, fetched: Fetched) -> tuple[File, ...]:
    text, blob = file_of(job, "conversation", fetched.text), fetched.recording.blob
    return (text, file_of(job, "original", blob)) if blob else (text,)


def _answered(request: ProviderRequest, fetched: Fetched, now: datetime) -> ProviderRequest:
    """The agent's request, which has its answer from the beginning."""
    return replace(
        request,
        **answer_columns(fetched.hypothesis, fetched.hypothesis_uri),
        submitted_at=now,
        finished_at=now,
    )


def give_up(envelope: Envelope, failure: Failure) -> Outcome:
    """The run fails. A job that does not exist yet is created as failed, so that its status can be queried. A record
    that cannot be read changes nothing: anybody may write one, with the names of any job.
    """
    match envelope.data:
        case ConversationRequested() as request:
            return refused(request, failure)
        case ConversationFetch():
            return failed_job(FETCH, envelope, failure)
        case _:
            return NOTHING


def stage(fetch: Fetch) -> Stage:
    """Fetch as a stage."""
    return Stage(
        FETCH,
        (topics.CONVERSATION,),
        topics.FETCH_DUE,
        fetch.handle,
        give_up,
        rank=2,
        begins=True,
        retries=RETRIES,
        provider_waits=WAITS,
    )


async def _build(_: StageSpec, resources: Resources) -> Stage:
    service = resources.conversations()
    source = resources.audio_source()
    client = service.client
    if client is not None:
        resources.on_close(client.close)
    return stage(
        Fetch(
            resources.database,
            resources.store,
            client,
            Recordings(client, resources.store, source.probe_pool) if client else None,
            resources.leased_tasks(AT_ONCE),
            Runs.installed(resources),
            ConversationRequests(resources.accounts, service.lacks),
            resources.accounts,
            service.max_bytes,
            service.wait_s,
        )
    )


def _refused(envelope: Envelope, failure: Failure) -> Outcome | None:
    """A request has no job yet: it is created as failed, so that its status can be queried."""
    return give_up(envelope, failure) if isinstance(envelope.data, ConversationRequested) else None


SPEC = StageSpec(name=FETCH, inputs=(topics.CONVERSATION,), due=topics.FETCH_DUE, build=_build, refused=_refused)
