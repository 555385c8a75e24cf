"""The table of Kafka topics: their names, event types, and whether they are public, external or compacted."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events.asr import AsrDeadline, AsrRequest, AsrResult, RecognitionAnswered, RecognitionRequested
from schemas.events.audio import AudioFetch, AudioUploaded
from schemas.events.base import Data
from schemas.events.conversation import ConversationFetch, ConversationRequested
from schemas.events.enrichment import (
    DocumentGenerated,
    EmbeddingsGenerated,
    EnrichmentFailed,
    ReportDelivered,
    ReportGenerated,
    SummaryGenerated,
    TranscriptIndexed,
)
from schemas.events.job import JobFailed, JobReprocess, JobStatus, Persisted, Reconciled, RunSweep
from schemas.events.transcript import TranscriptEdited


@dataclass(frozen=True, slots=True)
class Topic:
    """One Kafka topic, named after the event that it carries."""

    name: str
    #: Data models by CloudEvents type; the first applies to a record without a `ce_type`.
    models: dict[str, type[Data]]
    #: External producers may write to it; each of its records is validated and answered.
    ingress: bool = False
    #: Part of the published contract; other topics may change without notice.
    public: bool = True
    compacted: bool = False

    @property
    def dead_letters(self) -> str:
        """The name of the topic for records that could not be handled, byte for byte."""
        return f"{self.name}.dlq"


def _topic(name: str, model: type[Data], **more: bool) -> Topic:
    return Topic(name, {name: model}, **more)


UPLOADED = _topic("audio.uploaded", AudioUploaded, ingress=True)
HYPOTHESES = _topic("asr.hypotheses", RecognitionAnswered, ingress=True)
CONVERSATION = _topic("conversation.requested", ConversationRequested, ingress=True)
RESULTS = _topic("asr.results", AsrResult)
RECONCILED = _topic("reconciled", Reconciled)
PERSISTED = _topic("persisted", Persisted)
FAILED = _topic("job.failed", JobFailed)
STATUS = _topic("job.status", JobStatus, compacted=True)
EDITED = _topic("transcript.edited", TranscriptEdited)
DOCUMENT = _topic("document.generated", DocumentGenerated)
SUMMARY = _topic("summary.generated", SummaryGenerated)
INDEXED = _topic("transcript.indexed", TranscriptIndexed)
EMBEDDINGS = _topic("embeddings.generated", EmbeddingsGenerated)
REPORT = _topic("report.generated", ReportGenerated)
DELIVERED = _topic("report.delivered", ReportDelivered)
ENRICHMENT_FAILED = _topic("enrichment.failed", EnrichmentFailed)

#: Names of the topics to which external producers write.
INGRESS = frozenset({UPLOADED.name, HYPOTHESES.name, CONVERSATION.name})

REQUEST_TYPE, REQUESTED_TYPE = "asr.request", "asr.requested"


def requests(recognizer: str) -> Topic:
    """The topic of one recognizer's requests; its lag is the metric by which that recognizer's workers scale."""
    return Topic(f"asr.requests.{recognizer}", {REQUEST_TYPE: AsrRequest}, public=False)


def outside_requests(name: str) -> Topic:
    """The topic from which a recognizer outside of Concord reads its requests."""
    return Topic(f"asr.requests.{name}", {REQUESTED_TYPE: RecognitionRequested})


def due_name(stage: str) -> str:
    """The name of the topic on which events return to a stage later."""
    return f"{stage}.due"


def due(stage: str, *inputs: Topic, **internal: type[Data]) -> Topic:
    """The topic of a stage's scheduled events: retries of its inputs, and internal events by CloudEvents type."""
    models = {kind: model for topic in inputs for kind, model in topic.models.items()}
    models |= {kind.replace("_", "."): model for kind, model in internal.items()}
    return Topic(due_name(stage), models, public=False)


INTAKE_DUE = due("intake", UPLOADED, audio_fetch=AudioFetch, job_reprocess=JobReprocess)
FETCH_DUE = due("fetch", CONVERSATION, conversation_fetch=ConversationFetch)
HYPOTHESES_DUE = due("hypotheses", HYPOTHESES)
RECONCILE_DUE = due("reconcile", RESULTS, asr_deadline=AsrDeadline)
PERSIST_DUE = due("persist", RECONCILED, run_sweep=RunSweep)

#: The relay commits its batch numbers as consumer offsets of this topic, one partition per shard. The topic has no
#: committed records.
RELAY_POSITION = "relay.position"
