"""The stage of answers from recognizers outside of Concord: each ends the request that it names, once.

Anybody who may write `asr.hypotheses` may be wrong, or hostile. So an answer counts only with the marker of an open
request; what cannot be read, is about no request, or has another marker, becomes a dead letter and changes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from pydantic import ValidationError

from agents.asr.outside.over_kafka import is_over_kafka
from agents.media.source.audio_source import AudioSource
from agents.runtime.stage import RETRIES, Stage, backoff_s, belonging
from agents.stages.spec import Resources, StageSpec
from schemas import blob_names, topics
from schemas.envelope import Envelope
from schemas.errors import InvalidInput, MalformedEvent, RefusedMedia, Transient, Unavailable
from schemas.events.asr import RecognitionAnswered
from schemas.events.audio import AudioFetch
from schemas.events.job import StepState
from schemas.events.received import MAX_BYTES, ReceivedWords
from schemas.jobs.outcome import NOTHING, Failure, Later, Outcome, Progress
from schemas.jobs.received import answered, failed
from schemas.jobs.rows import Job, ProviderRequest
from schemas.words import Hypothesis, adapter
from sinks.ports.blobs import Store
from sinks.ports.jobs import Jobs
from sinks.ports.providers.requests import Requests

#: Answers that one worker reads at once: with 16 MB each, and what pydantic makes of them.
AT_ONCE: Final = 4


class Database(Jobs, Requests, Protocol):
    """What answers ask of the database."""


class NoSuchJob(MalformedEvent):
    """An answer is about a job that there is not, or not any more."""

    code = "no_such_job"


@dataclass(frozen=True)
class OutsideAnswers:
    """Handles the answers."""

    database: Database
    store: Store
    #: Fetches transcripts that an answer only refers to.
    source: AudioSource

    async def handle(self, envelope: Envelope) -> Outcome:
        """End the request with its answer. What comes twice or too late changes nothing.

        Raises:
            MalformedEvent: There is no such job (`NoSuchJob`) or request, or it has another marker.
            Unavailable: The database or the store is away.
        """
        answer = cast("RecognitionAnswered", envelope.data)
        job = await self.database.job(answer.tenant_id, answer.job_id)
        if job is None:
            raise NoSuchJob("job_id: the tenant has no such job")
        row = await self._row(job, answer)
        if row.ended or job.ended:
            return NOTHING
        if row.marker != answer.marker:
            if answer.run < job.run:
                return NOTHING
            raise MalformedEvent("marker: it is not that of the request")
        if answer.status == "failed":
            return failed(job.key, job.run, row.provider, answer.error or "")
        try:
            words = await self._words(answer)
        except InvalidInput as exc:
            return failed(job.key, job.run, row.provider, f"its transcript cannot be read: {exc}")
        except Transient as exc:
            return self._later(envelope, answer, job, exc)
        return await self._answered(job, row, words)

    async def _row(self, job: Job, answer: RecognitionAnswered) -> ProviderRequest:
        """The request to this recognizer in the job's run. Raises MalformedEvent if there is none for it to answer."""
        if not is_over_kafka(answer.recognizer):
            raise MalformedEvent("recognizer: its answers do not come by Kafka")
        if job.run < answer.run:
            raise MalformedEvent(f"run: the job has {job.run} so far")
        rows = await self.database.requests(*job.key, job.run)
        row = next((row for row in rows if row.provider == answer.recognizer), None)
        if row is None:
            raise MalformedEvent("recognizer: it was not asked about this recording")
        return row

    async def _words(self, answer: RecognitionAnswered) -> ReceivedWords:
        """The transcript, wherever it is.

        Raises:
            InvalidInput: It may not be read, or is none.
            Transient: Its host does not deliver now.
            Unavailable: Our own disk or store does not work now.
        """
        if answer.transcript_uri is None:
            return answer
        fetch = AudioFetch(
            tenant_id=answer.tenant_id,
            job_id=answer.job_id,
            run=answer.run,
            audio_uri=answer.transcript_uri,
            filename="transcript.json",
        )
        try:
            async with self.source.as_file(fetch) as path:
                return await asyncio.to_thread(_read, path)
        except OSError as exc:
            raise Unavailable(f"no transcript can be kept now: {exc}") from exc
        except InvalidInput as exc:  # of a fetch that is mostly of recordings
            raise type(exc)(str(exc).replace("audio_uri", "transcript_uri")) from exc

    async def _answered(self, job: Job, row: ProviderRequest, words: ReceivedWords) -> Outcome:
        hypothesis = words.hypothesis(row.provider)
        name = blob_names.hypothesis(*job.key, job.run, row.provider, restricted=job.is_redacted)
        content = await asyncio.to_thread(adapter(Hypothesis).dump_json, hypothesis)
        # What was stored first counts, so that of two answers the one is not committed with the other's words.
        blob = await self.store.put(name, content, "application/json", once=True)
        stored = adapter(Hypothesis).validate_json(await self.store.get(blob.uri))
        return answered(job, row.provider, cast("Hypothesis", stored), blob.uri)

    @staticmethod
    def _later(envelope: Envelope, answer: RecognitionAnswered, job: Job, exc: Transient) -> Outcome:
        """The transcript is fetched again later; after some tries the request fails."""
        attempt, error = envelope.attempt + 1, f"its transcript cannot be fetched: {exc}"
        if attempt > RETRIES:
            return failed(job.key, job.run, answer.recognizer, error)
        again = Later(
            topics.HYPOTHESES_DUE.name,
            answer,
            seconds=backoff_s(envelope.attempt, exc.retry_after),
            kind=topics.HYPOTHESES.name,
            index="again",
            attempt=attempt,
        )
        step = StepState(state="retrying", attempts=attempt, error=error)
        progress = Progress(run=job.run, stage=f"transcribe.{answer.recognizer}", step=step)
        return Outcome(**belonging(envelope), progress=progress, later=(again,), audit="retried", error=error)

    def give_up(self, envelope: Envelope, failure: Failure) -> Outcome:
        """Nothing changes: the request waits for an answer that can be read, or for its deadline.

        What is about no job belongs to it all the same, so that it becomes no dead letter if the job was deleted.
        """
        return Outcome(**belonging(envelope)) if failure.code == NoSuchJob.code else Outcome()


def _read(path: Path) -> ReceivedWords:
    """The transcript in a file. Raises InvalidInput."""
    if path.stat().st_size > MAX_BYTES:
        raise RefusedMedia(f"the transcript has more than {MAX_BYTES} bytes")
    try:
        words = ReceivedWords.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        problem = exc.errors(include_input=False, include_url=False)[0]
        raise InvalidInput(f"transcript_uri: {'.'.join(map(str, problem['loc']))[:200]}: {problem['msg']}") from None
    return words


def stage(answers: OutsideAnswers) -> Stage:
    """Answers as a stage."""
    inputs = (topics.HYPOTHESES,)
    return Stage("hypotheses", inputs, topics.HYPOTHESES_DUE, answers.handle, answers.give_up, concurrency=AT_ONCE)


async def _build(_: StageSpec, resources: Resources) -> Stage:
    source = resources.audio_source(MAX_BYTES)
    return stage(OutsideAnswers(resources.database, resources.store, source))


SPEC = StageSpec(
    name="hypotheses",
    inputs=(topics.HYPOTHESES,),
    due=topics.HYPOTHESES_DUE,
    publishes=(topics.RESULTS,),
    used_with=is_over_kafka,
    build=_build,
)
