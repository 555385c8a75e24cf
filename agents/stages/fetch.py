"""The stage that fetches conversations of voice agents: it waits until each has ended, stores what was said and its
recording, and begins its run, in which what the agent has understood is one recognizer's transcript.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from agents.conversations.answers import Conversation
from agents.conversations.client import ElevenLabs
from agents.conversations.recording import NONE, Recording, Recordings
from agents.conversations.requesting import redaction_options, refused
from agents.conversations.storing import Said, Texts
from agents.runtime.failpoints import passing
from agents.runtime.leased_tasks import LeasedTasks
from agents.runtime.stage import Stage, belonging, failed_job
from agents.stages.redacting import forgets
from agents.stages.spec import Resources, StageSpec
from agents.stages.uploads.accepted import is_of_deleted
from agents.stages.uploads.conversations import ConversationRequests
from agents.stages.uploads.jobs import earlier_requests, first_run, is_heard, provider_requests, reused_request
from agents.stages.uploads.options import check_redaction
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
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Store, file_of
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


class Database(Clock, Jobs, Requests, Deletions, ConversationAgents, Protocol):
    """What fetching asks of the database."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A conversation that is stored."""

    said: Said
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

    @property
    def texts(self) -> Texts:
        """What was said, in the store."""
        return Texts(self.store)

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
        # What the account has set since, and what a run that is begun by hand has never been asked about.
        job = replace(job, options=job.options | redaction_options(await self.accounts.settings_of(job.tenant_id)))
        earlier = await earlier_requests(self.database, job)
        if await self._is_heard(job, data.conversation_id, earlier.get(AGENT)):
            return await self._begun(envelope, job, earlier)
        self.requests.check()
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
        # What was deleted may still be there for a moment.
        first = first_run(await self.database.deletion(job.tenant_id, job.job_id))
        earlier = said = await self.texts.earlier(job, conversation_id, first)
        if said is None:
            conversation = await self.client.conversation(conversation_id)
            await self._check_owner(job, conversation)
            if conversation.state == "open":
                return conversation
            if conversation.state == "failed":
                raise InvalidInput("ElevenLabs reports that the conversation has failed; there is nothing to process")
            if job.is_redacted:
                _check_language(conversation.language)
            said = await self.texts.put(job, conversation_id, conversation)
        progress(TEXT_STORED)
        recording = Recording(notes=(NONE,))
        if said.hypothesis.details.get("has_audio"):
            own = (await self.accounts.settings_of(job.tenant_id)).max_conversation_mb
            limit = self.max_bytes if own is None else own << 20
            name = _audio_name(job, conversation_id, first)
            recording = await self.recordings.stored(job, conversation_id, limit, name, again=earlier is not None)
        passing("fetch.stored")
        return Fetched(said, recording)

    async def _is_heard(self, job: Job, conversation_id: str, agent: ProviderRequest | None) -> bool:
        """Whether an earlier run has what was said. What it has stored for every reader, before the account had
        personal data hidden, is deleted, and fetched again.
        """
        if agent is None or agent.hypothesis_uri is None or not is_heard(agent):
            return False
        if not job.is_redacted or blob_names.is_restricted(self.store.name(agent.hypothesis_uri)):
            return True
        await self.texts.delete_open(job, conversation_id, agent.hypothesis_uri)
        return False

    async def _check_owner(self, job: Job, conversation: Conversation) -> None:
        """Raises UnknownConversation if its agent is in other accounts' settings only: one key serves all accounts, and
        whoever has come by an id must not get another's call by it.
        """
        if conversation.agent_id is None:
            return
        owners = [tenant for tenant, _ in await self.database.owners_of_agent(conversation.agent_id)]
        if owners and job.tenant_id not in owners:
            raise UnknownConversation("there is no such conversation of this account")

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
        else:
            columns["options"] = job.options
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
    notes = (*map(str, fetched.said.hypothesis.details.get("notes") or ()), *fetched.recording.notes)
    if job.options.get("verify") and fetched.recording.blob is None:
        notes += ("Nothing could be verified, since there is no recording.",)
    return notes


def _columns(job: Job, fetched: Fetched) -> dict[str, Any]:
    blob, recording = fetched.recording.blob, fetched.recording
    started_at = fetched.said.hypothesis.details.get(STARTED_AT)
    return {
        "options": job.options | {STARTED_AT: started_at} if started_at else job.options,
        "original_uri": blob.uri if blob else None,
        "content_type": blob.content_type if blob else None,
        "duration_ms": recording.duration_ms or fetched.said.hypothesis.duration_ms,
    }


def _files(job: Job, fetched: Fetched) -> tuple[File, ...]:
    """Of a job that forgets what is not redacted, its recording is no file that readers find."""
    kinds = {"conversation": fetched.said.text, "original": None if forgets(job) else fetched.recording.blob}
    return tuple(file_of(job, kind, blob) for kind, blob in kinds.items() if blob is not None)


def _audio_name(job: Job, conversation_id: str, first_run: int) -> str:
    """The name of the recording. One that is not for every reader is in the job's folder, where its runs share it."""
    if job.is_redacted:
        return blob_names.original(job.tenant_id, job.job_id, "mp3", first_run, restricted=True)
    return blob_names.conversation_audio(job.tenant_id, conversation_id)


def _check_language(language: str | None) -> None:
    """Raises UnsupportedOption if personal data would be found in part only; nothing is stored then."""
    try:
        check_redaction(language, redacted_by_recognizers=False)
    except UnsupportedOption:
        raise UnsupportedOption(
            f"the account has personal data hidden (redact_pii), which are not found in the language {language} of "
            "this conversation. Have ElevenLabs redact its transcripts, and take redact_pii out of the account's "
            "settings"
        ) from None


def _answered(request: ProviderRequest, fetched: Fetched, now: datetime) -> ProviderRequest:
    """The agent's request, which has its answer from the beginning."""
    return replace(
        request,
        **answer_columns(fetched.said.hypothesis, fetched.said.uri),
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
