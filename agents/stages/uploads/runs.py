"""How runs begin: the first, with a recording that is stored, and later ones, with what earlier runs have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from agents.media.source.audio_source import Fetched
from agents.stages.spec import Resources
from agents.stages.uploads import jobs
from agents.stages.uploads.options import Abilities, check_options
from agents.upkeep.stuck_jobs import fetching, requested
from schemas import topics
from schemas.accounts.settings import AccountSettings
from schemas.conversations.names import conversation_of
from schemas.envelope import UNREADABLE_URI
from schemas.errors import Conflict, InvalidInput
from schemas.events.asr import AsrDeadline, AsrResult
from schemas.events.audio import AudioUploaded, Options
from schemas.events.conversation import AGENT
from schemas.events.job import JobReprocess, StepState
from schemas.jobs.outcome import Later, Outcome
from schemas.jobs.rows import Job, ProviderRequest, run_fields
from sinks.ports.blobs import file_of


@dataclass(frozen=True)
class Runs:
    """Begins runs with the recognizers of this installation."""

    recognizers: tuple[str, ...]
    #: Seconds after which a run goes on without the recognizers that have not answered; half the length of the
    #: recording is added.
    deadline_s: float
    #: Which options each recognizer supports.
    abilities: Abilities = field(default_factory=dict)
    #: Kinds of enrichment that are made of each transcript.
    enrichments: tuple[str, ...] = ()
    #: Whether there is a model that tells voices apart.
    has_voices: bool = False
    #: Whether every run begins queued, because the tenant may have only so many jobs open at once.
    is_limited: bool = False

    @classmethod
    def installed(cls, resources: Resources) -> Runs:
        """Those of an installation."""
        return cls(
            resources.recognizers,
            resources.deadline_s,
            resources.abilities,
            resources.enrichments,
            has_voices=resources.has_voices,
        )

    def of_tenant(self, settings: AccountSettings) -> Runs:
        """The same for a tenant with these settings. Recognizers that the installation has no more are left out; where
        none is left, all of the installation's hear the recording.
        """
        chosen = settings.recognizers or ()
        recognizers = tuple(name for name in self.recognizers if name in chosen) or self.recognizers
        return replace(
            self,
            recognizers=recognizers,
            deadline_s=settings.deadline_s or self.deadline_s,
            is_limited=settings.max_open_jobs is not None,
        )

    def of_job(self, job: Job) -> Runs:
        """The same with the recognizers that hear this job. Of a conversation, the agent itself has heard it; the
        others do where its recording is to be verified, and there is one.
        """
        if conversation_of(job) is None:
            return self
        others = self.recognizers if job.options.get("verify") and job.original_uri else ()
        return replace(self, recognizers=(AGENT, *others))

    def check_options(self, options: Options, language: str) -> None:
        """Raises UnsupportedOption if one of them would be ignored in a recording in this language."""
        check_options(options, self.recognizers, self.abilities, self.enrichments, language, has_voices=self.has_voices)

    def first(self, upload: AudioUploaded, job_id: str, fetched: Fetched, run: int = 1) -> Outcome:
        """Creates the job of a recording that is stored, and asks the recognizers. `run` is its first one."""
        job = jobs.new_job(upload, job_id, fetched, run)
        requests = jobs.provider_requests(job, self.recognizers)
        return Outcome(
            tenant_id=job.tenant_id,
            job_id=job.job_id,
            create=job,
            new_requests=requests,
            files=(file_of(job, "original", fetched.blob),),
            later=self.request_events(job, requests),
        )

    def request_events(self, job: Job, requests: Collection[ProviderRequest]) -> tuple[Later, ...]:
        """The events that start the open requests and bound the time for them; without one, the run is reconciled."""
        run = run_fields(job)
        started = tuple(requested(job, request.provider) for request in requests if not request.ended)
        if not started:
            result = AsrResult(**run, provider=next(iter(requests)).provider, status="ok", remaining=0)
            return (Later(topics.RESULTS.name, result),)
        # Recognizers take longer for a long recording: half its length is added to the deadline.
        wait_s = self.deadline_s + (job.duration_ms or 0) / 2000
        deadline = AsrDeadline(**run, seconds=wait_s)
        return (*started, Later(topics.RECONCILE_DUE.name, deadline, seconds=wait_s, kind="asr.deadline"))

    def next(self, job: Job, wanted: JobReprocess, earlier: Mapping[str, ProviderRequest]) -> Outcome:
        """Begins the next run of a job that has ended. `earlier` has, by recognizer, the newest request of its runs.

        Raises:
            InvalidInput: There is no recording, a recognizer is not configured, or an option is not supported.
            Conflict: Nothing has been heard yet that could be reconciled again.
        """
        if job.audio_uri == UNREADABLE_URI:
            raise InvalidInput("there is no recording to be run again: the upload could not be read; send it again")
        # The configured recognizers may have changed. Earlier versions stored `enrich` although no upload had set it.
        if conversation_of(job) is None:
            self.check_options(Options(**job.options | {"enrich": None}), job.language)
        begun = replace(
            job,
            run=wanted.run,
            steps={job.first_stage: StepState(state="done", notes=job.audio_notes or None)},
            reason=None,
            code=None,
            completed_at=None,
            not_before=None,
            queued_at=None,
            status="transcribing",
        )
        requests = self._requests(begun, wanted, earlier)
        if not _is_fetched(job, earlier):
            return begin_fetching(begun)
        if all(request.ended for request in requests):
            begun = replace(begun, status="reconciling")
        return Outcome(
            tenant_id=begun.tenant_id,
            job_id=begun.job_id,
            begin=begun,
            new_requests=requests,
            later=self.request_events(begun, requests),
            audit="started",
        )

    def _requests(
        self, begun: Job, wanted: JobReprocess, earlier: Mapping[str, ProviderRequest]
    ) -> tuple[ProviderRequest, ...]:
        """The requests of the new run: those that are made again, and those whose answer it takes over."""
        if wanted.source == "reconcile":
            heard = tuple(name for name, request in earlier.items() if jobs.is_heard(request))
            if not heard:
                raise Conflict("no recognizer has heard this recording yet; reprocess it from `missing`")
            return tuple(
                jobs.reused_request(new, earlier[new.provider]) for new in jobs.provider_requests(begun, heard)
            )
        recognizers = self.of_job(begun).recognizers
        hearing = [name for name in recognizers if name != AGENT]
        if unknown := [name for name in wanted.recognizers or () if name not in hearing]:
            there = ", ".join(hearing) or "none that hears this job"
            raise InvalidInput(f"recognizers: {', '.join(unknown)} is not here; there are {there}")
        again = wanted.recognizers or (hearing if wanted.source == "transcribe" else ())
        known = {name: request for name, request in earlier.items() if name not in again or not jobs.is_heard(request)}
        new = jobs.provider_requests(begun, recognizers)
        return tuple(jobs.reused_request(request, known.get(request.provider)) for request in new)


def _is_fetched(job: Job, earlier: Mapping[str, ProviderRequest]) -> bool:
    """Whether there is what a run of this job begins with: a recording, or a conversation."""
    if conversation_of(job) is None:
        return job.original_uri is not None
    agent = earlier.get(AGENT)
    return agent is not None and jobs.is_heard(agent)


def begin_fetching(begun: Job) -> Outcome:
    """Begins a run whose recording is still to be fetched."""
    begun = replace(begun, status="uploaded", steps={begun.first_stage: StepState(state="running")})
    later = (fetching(begun),)
    return Outcome(tenant_id=begun.tenant_id, job_id=begun.job_id, begin=begun, later=later, audit="started")
