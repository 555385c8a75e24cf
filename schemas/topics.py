"""The topic table: which topics exist, what is on them and how Kafka is to keep them."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events.asr import AsrDeadline, AsrRequest, AsrResult
from schemas.events.audio import AudioFetch, AudioUploaded
from schemas.events.base import Data
from schemas.events.enrichment import DocumentGenerated, EnrichmentFailed
from schemas.events.job import JobFailed, JobReprocess, JobStatus, Persisted, Reconciled, RunSweep


@dataclass(frozen=True, slots=True)
class Topic:
    """One Kafka topic, named for the event on it."""

    name: str
    #: Data models by CloudEvents type; the first is what a record without a `ce_type` holds.
    models: dict[str, type[Data]]
    #: Strangers may write here; everything on it is checked and answered.
    ingress: bool = False
    #: Part of the published contract; the others may change without notice.
    public: bool = True
    compacted: bool = False

    @property
    def dead_letters(self) -> str:
        """The topic that keeps what could not be handled, byte for byte."""
        return f"{self.name}.dlq"


def _topic(name: str, model: type[Data], **more: bool) -> Topic:
    return Topic(name, {name: model}, **more)


UPLOADED = _topic("audio.uploaded", AudioUploaded, ingress=True)
RESULTS = _topic("asr.results", AsrResult)
RECONCILED = _topic("reconciled", Reconciled)
PERSISTED = _topic("persisted", Persisted)
FAILED = _topic("job.failed", JobFailed)
STATUS = _topic("job.status", JobStatus, compacted=True)
DOCUMENT = _topic("document.generated", DocumentGenerated)
ENRICHMENT_FAILED = _topic("enrichment.failed", EnrichmentFailed)

#: Names of the topics on which strangers write.
INGRESS = frozenset({UPLOADED.name})

REQUEST_TYPE = "asr.request"


def requests(recognizer: str) -> Topic:
    """The topic of one recognizer's requests; its lag is what that recognizer's workers scale on."""
    return Topic(f"asr.requests.{recognizer}", {REQUEST_TYPE: AsrRequest}, public=False)


def due(stage: str, *inputs: Topic, **internal: type[Data]) -> Topic:
    """What comes back to a stage later: its inputs again as retries, and internal events by CloudEvents type."""
    models = {kind: model for topic in inputs for kind, model in topic.models.items()}
    models |= {kind.replace("_", "."): model for kind, model in internal.items()}
    return Topic(f"{stage}.due", models, public=False)


INTAKE_DUE = due("intake", UPLOADED, audio_fetch=AudioFetch, job_reprocess=JobReprocess)
RECONCILE_DUE = due("reconcile", RESULTS, asr_deadline=AsrDeadline)
PERSIST_DUE = due("persist", RECONCILED, run_sweep=RunSweep)

#: Batch numbers of the relay are committed as offsets of this topic, a partition per shard; no record is ever
#: committed to it.
RELAY_POSITION = "relay.position"
