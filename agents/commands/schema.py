"""`concord schema`: prints the AsyncAPI document and JSON Schemas of the public topics, from the event models."""

from __future__ import annotations

import argparse
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from pydantic.json_schema import models_json_schema

from agents.asr.outside.over_kafka import PREFIX
from agents.fleet.settings import Settings
from agents.runtime.kafka.client import MAX_RECORD_BYTES
from agents.runtime.kafka.topic_layout import EVENT_LIMIT, EVENTS_MS, LETTERS_MS
from agents.stages import registry
from schemas import topics
from schemas.errors import InvalidInput

if TYPE_CHECKING:
    from schemas.events.base import Data
    from schemas.topics import Topic

#: Generators and viewers support 3.0.0, and not 3.1 yet.
ASYNCAPI = "3.0.0"

#: Version of the Kafka bindings.
BINDING = "0.5.0"

DESCRIPTION = """Prints the contract of the public topics: their events, keys and headers.

  concord schema asyncapi > asyncapi.json           an AsyncAPI 3 document, for viewers and code generators
  concord schema json                               the JSON Schema of every event, by name
  concord schema json --output schemas.d/           the same, one file each

It is generated from the models with which the fleet validates events, and deterministic."""

_ABOUT = """Upload a recording, get one reconciled transcript announced exactly once.

Publish `audio.uploaded` with any Kafka client; plain JSON is enough, CloudEvents headers are welcome. Subscribe to
`persisted` and `job.failed` with `isolation.level=read_committed`: there is exactly one of them for each (tenant_id,
job_id, run). Records of one job share its key and keep their order. What cannot be handled is kept on `<topic>.dlq`."""

_EXAMPLES = {
    topics.UPLOADED.name: {
        "tenant_id": "acme",
        "audio_uri": "https://calls.example.com/2026/11/21/17.flac",
        "filename": "17.flac",
    },
    topics.HYPOTHESES.name: {
        "tenant_id": "acme",
        "job_id": "4be0643f-1d98-573b-97cd-ca98a65347dd",
        "recognizer": "kafka-acme",
        "marker": "concord-acme~4be0643f-1d98-573b-97cd-ca98a65347dd~1~kafka-acme",
        "status": "ok",
        "words": [{"text": "Hello.", "start_ms": 0, "end_ms": 400, "confidence": 0.93}],
    },
}

#: The name of a channel's parameter, in place of the name of a recognizer that reads Kafka.
_PARAMETER, _PLACE = "recognizer", "RECOGNIZER"
_OUTSIDE = f"{PREFIX}{_PLACE}"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("schema", description=DESCRIPTION, formatter_class=raw)
    command.add_argument("what", choices=("asyncapi", "json"), help="the AsyncAPI document, or JSON Schemas")
    command.add_argument("--output", metavar="DIR", type=Path, help="write files into this folder instead of printing")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, _: Settings) -> int:
    """Print the documents, or write them to files."""
    schemas = json_schemas()
    documents = {f"{name}.schema.json": schema for name, schema in schemas.items()}
    if arguments.what == "asyncapi":
        documents = {"asyncapi.json": asyncapi()}
    if arguments.output is None:
        print(_json(documents["asyncapi.json"] if arguments.what == "asyncapi" else schemas))
        return 0
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        for name, document in documents.items():
            (arguments.output / name).write_text(_json(document) + "\n")
            print(arguments.output / name)
    except OSError as exc:
        raise InvalidInput(f"--output {arguments.output}: cannot be written to ({exc.strerror})") from exc
    return 0


def _json(document: Any) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def published() -> tuple[Topic, ...]:
    """The topics that are part of the contract."""
    return tuple(topic for topic in registry.all_topics((_OUTSIDE,)) if topic.public)


def _events() -> dict[str, type[Data]]:
    return {kind: model for topic in published() for kind, model in topic.models.items()}


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every published event's data, by CloudEvents type."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {
        kind: {"$schema": dialect, "$id": f"urn:concord:{kind}"} | model.model_json_schema()
        for kind, model in _events().items()
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI document, from Concord's point of view: it receives uploads and sends the rest."""
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "Concord",
            "version": importlib.metadata.version("concord"),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"kafka": _server()},
        "channels": {_id(topic): _channel(topic) for topic in published()} | {"dead-letters": _dead_letters()},
        "operations": {f"{_verb(topic)}.{_id(topic)}": _operation(topic) for topic in published()}
        | {"send.dead-letters": _dead_letter_operation()},
        "components": _components(),
    }


def _server() -> dict[str, Any]:
    where = {"default": "localhost:9092", "description": "KAFKA_BOOTSTRAP_SERVERS; any one of the brokers"}
    return {"host": "{bootstrapServer}", "protocol": "kafka", "variables": {"bootstrapServer": where}}


def _channel(topic: Topic) -> dict[str, Any]:
    deleted = {"cleanup.policy": ["delete"], "retention.ms": EVENTS_MS, "max.message.bytes": EVENT_LIMIT}
    configuration = {"cleanup.policy": ["compact"]} if topic.compacted else deleted
    channel: dict[str, Any] = {
        "address": topic.name.replace(_PLACE, f"{{{_PARAMETER}}}"),
        "summary": _summary(topic),
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in topic.models},
    }
    name: str | None = topic.name
    if _PLACE in topic.name:
        about = "the name behind `kafka:` in CONCORD_RECOGNIZERS"
        channel["parameters"], name = {_PARAMETER: {"description": about, "examples": ["acme"]}}, None
    return channel | {"bindings": {"kafka": _topic_binding(name, _partitions(), configuration)}}


def _id(topic: Topic) -> str:
    """The key of a topic in the document."""
    return topic.name.removesuffix(f".{_PLACE}")


def _partitions() -> int:
    partitions: int = Settings.model_fields["kafka_partitions"].default
    return partitions


def _topic_binding(name: str | None, partitions: int, configuration: dict[str, Any]) -> dict[str, Any]:
    topic = {"topic": name} if name else {}
    return topic | {"partitions": partitions, "topicConfiguration": configuration, "bindingVersion": BINDING}


def _summary(topic: Topic) -> str:
    return _sentence(next(iter(topic.models.values())))


def _sentence(model: type[Data]) -> str:
    return (model.__doc__ or "").strip()


def _verb(topic: Topic) -> str:
    return "receive" if topic.ingress else "send"


def _operation(topic: Topic) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "action": _verb(topic),
        "channel": {"$ref": f"#/channels/{_id(topic)}"},
        "summary": _summary(topic),
        "messages": [{"$ref": f"#/channels/{_id(topic)}/messages/{kind}"} for kind in topic.models],
    }
    if topic.ingress:
        operation["bindings"] = {
            "kafka": {
                "groupId": {"type": "string", "const": _group(topic)},
                "bindingVersion": BINDING,
            }
        }
    return operation


def _group(topic: Topic) -> str:
    """The consumer group of the stage that reads it."""
    return f"concord.{registry.read_by((_OUTSIDE,))[topic.name][0]}"


def _dead_letters() -> dict[str, Any]:
    description = "the topic on which the record could not be handled, e.g. audio.uploaded"
    examples = [topic.name for topic in published() if _PLACE not in topic.name]
    configuration = {
        "cleanup.policy": ["delete"],
        "retention.ms": LETTERS_MS,
        "max.message.bytes": MAX_RECORD_BYTES,
    }
    return {
        "address": "{topic}.dlq",
        "summary": "Records that could not be handled: key, value and headers byte for byte, and why.",
        "parameters": {"topic": {"description": description, "examples": examples}},
        "messages": {"dead.letter": {"$ref": "#/components/messages/dead.letter"}},
        "bindings": {"kafka": _topic_binding(None, 1, configuration)},
    }


def _dead_letter_operation() -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": "#/channels/dead-letters"},
        "summary": "Keep a record that could not be handled; `concord dlq replay` puts it back.",
        "messages": [{"$ref": "#/channels/dead-letters/messages/dead.letter"}],
    }


def _components() -> dict[str, Any]:
    models = list(_events().values())
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    messages = {kind: _message(kind, model, topic) for topic in published() for kind, model in topic.models.items()}
    return {
        "messages": messages | {"dead.letter": _dead_letter()},
        "schemas": dict(sorted(definitions["$defs"].items()))
        | {"CloudEvent": _cloud_event(), "DeadLetter": _dead_letter_headers()},
    }


def _message(kind: str, model: type[Data], topic: Topic) -> dict[str, Any]:
    key = "any; records of one job keep their order when it is the job's id" if topic.ingress else "the job's id"
    key = "tenant and job: `acme/4be0643f-1d98-573b-97cd-ca98a65347dd`" if topic == topics.STATUS else key
    document: dict[str, Any] = {
        "name": kind,
        "title": model.__name__,
        "summary": _sentence(model),
        "contentType": "application/json",
        "headers": _headers(kind, required=not topic.ingress),
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": BINDING}},
    }
    if kind in _EXAMPLES:
        document["examples"] = [{"name": "smallest", "summary": "The required fields.", "payload": _EXAMPLES[kind]}]
    return document


def _headers(kind: str, *, required: bool) -> dict[str, Any]:
    """The headers of CloudEvents in binary mode: Concord always writes them, producers may omit them."""
    names = (
        ["ce_id", "ce_source", "ce_specversion", "ce_time", "ce_type", "content-type", "traceparent"]
        if required
        else []
    )
    return {
        "type": "object",
        "allOf": [{"$ref": "#/components/schemas/CloudEvent"}],
        "properties": {"ce_type": {"type": "string", "const": kind}},
    } | ({"required": names} if names else {})


def _cloud_event() -> dict[str, Any]:
    return {
        "title": "CloudEvent",
        "description": "CloudEvents 1.0, Kafka protocol binding, binary mode; UTF-8. With W3C trace context.",
        "type": "object",
        "properties": {
            "ce_specversion": {"type": "string", "const": "1.0"},
            "ce_id": {
                "type": "string",
                "minLength": 1,
                "description": "with ce_source: the event's identity; a repeat changes nothing",
            },
            "ce_source": {
                "type": "string",
                "minLength": 1,
                "description": "a URI reference; Concord's own is /concord",
            },
            "ce_type": {"type": "string", "description": "the event's name"},
            "ce_time": {"type": "string", "format": "date-time"},
            "ce_subject": {"type": "string", "description": "the job's id"},
            "ce_replay": {
                "type": "string",
                "pattern": "^[0-9]+$",
                "description": "how often it was put back from the dead letters",
            },
            "content-type": {"type": "string", "const": "application/json"},
            "traceparent": {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
        },
    }


def _dead_letter() -> dict[str, Any]:
    return {
        "name": "dead.letter",
        "title": "DeadLetter",
        "summary": "A record as it was received, with the reason why and the stage that gave it up.",
        "contentType": "application/octet-stream",
        "headers": {"$ref": "#/components/schemas/DeadLetter"},
        "payload": {"description": "The original value, byte for byte; it need not be JSON."},
        "bindings": {
            "kafka": {"key": {"type": "string", "description": "the original key"}, "bindingVersion": BINDING}
        },
    }


def _dead_letter_headers() -> dict[str, Any]:
    number = {"type": "string", "pattern": "^[0-9]+$"}
    properties: dict[str, Any] = {
        "dlq-reason": {"type": "string", "maxLength": 2000},
        "dlq-stage": {"type": "string", "description": "the stage that gave it up"},
        "dlq-attempts": number,
        "dlq-topic": {"type": "string", "description": "its original topic"},
        "dlq-partition": number,
        "dlq-offset": number,
        "dlq-timestamp": {"type": "string", "pattern": "^-?[0-9]+$", "description": "of the original record, in ms"},
    }
    job = {
        f"dlq-{name}": {"type": "string", "description": "if it is known"} for name in ("tenant-id", "job-id", "run")
    }
    return {
        "title": "DeadLetter",
        "description": "The original headers, and these.",
        "type": "object",
        "properties": properties | job,
        "required": list(properties),
    }
