"""The stage that renders each transcript as a Markdown document for people, without a language model."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import orjson

from agents.stages.enrichments.enrichment import Enriched, Make, enrichment
from agents.stages.spec import Resources
from schemas import blob_names, topics
from schemas.events.enrichment import DocumentGenerated
from schemas.jobs.rows import File, Job, file_kind, run_fields
from schemas.printable import printable
from sinks.ports.blobs import Store
from sinks.ports.jobs import Jobs

_CONTENT_TYPE = "text/markdown; charset=utf-8"

#: Of the upload's metadata, the characters of a name or value and the number of values that are shown, at most.
_VALUE_CHARS, _VALUES = 200, 20

#: Characters that are markup in Markdown, or in HTML within it.
_MARKUP = re.compile(r"([\\`*_\[\]<>|~&]|^[#+-])")


@dataclass(frozen=True)
class Document:
    """Makes documents of the transcripts in a store."""

    store: Store
    database: Jobs

    async def make(self, job: Job) -> Enriched:
        """Render and store the document of the current run's transcript. Raises `Unavailable`."""
        names = job.tenant_id, job.job_id, job.run
        uri = await self.database.transcript_uri(*names)
        content = await self.store.get(uri or self.store.uri(blob_names.agent_optimized(*names)))
        # In a thread with its parsing: the transcript of a long call has megabytes.
        text = await asyncio.to_thread(lambda: markdown(orjson.loads(content)).encode())
        version = job.transcript_version
        blob = await self.store.put(blob_names.document(*names, version), text, _CONTENT_TYPE)
        run = run_fields(job)
        stored: dict[str, Any] = {
            "size_bytes": blob.size_bytes,
            "content_type": blob.content_type,
            "sha256": blob.sha256,
        }
        return Enriched(
            event=DocumentGenerated(**run, document_uri=blob.uri, **stored),
            files=(File(**run, kind=file_kind("document", version), uri=blob.uri, **stored),),
        )


def markdown(transcript: dict[str, Any]) -> str:
    """A transcript (the content of `agent_optimized.json`) as Markdown: facts about the call, notes, and each segment
    with its speaker and time. Markup in spoken words or in the upload is escaped.
    """
    metadata = transcript["metadata"]
    lines = [f"# {_title(metadata)}", "", *_facts(transcript), ""]
    if metadata["reconciliation_notes"]:
        lines += ["## Notes", "", *(f"- {_text(note)}" for note in metadata["reconciliation_notes"]), ""]
    lines += ["## Transcript", ""]
    for segment in transcript["transcript"]["segments"]:
        speaker = f"**{_text(segment['speaker'])}** " if segment["speaker"] else ""
        lines += [f"{speaker}`{_clock(segment['start_ms'])}` {_text(segment['text'])}", ""]
    if not transcript["transcript"]["segments"]:
        lines += ["No speech was heard.", ""]
    return "\n".join(lines)


def _title(metadata: dict[str, Any]) -> str:
    title = (metadata.get("custom") or {}).get("title")
    return _text(title if isinstance(title, str) and title.strip() else PurePosixPath(metadata["filename"]).stem)


def _facts(transcript: dict[str, Any]) -> list[str]:
    metadata = transcript["metadata"]
    confidence = metadata["confidence"]
    rows = {
        "Recording": metadata["filename"],
        "Reference": transcript["reference"],
        "Length": _clock(round(metadata["duration"] * 1000)),
        "Language": metadata["language"],
        "Speakers": ", ".join(transcript["transcript"]["speakers"]),
        "Recognizers": ", ".join(metadata["recognizers"]),
        "Confidence": None if confidence is None else f"{confidence:.0%}",
    }
    custom = {name: value for name, value in (metadata.get("custom") or {}).items() if name not in {"title", *rows}}
    shown = [(name, value) for name, value in custom.items() if isinstance(value, str | int | float)]
    rows |= {name[:_VALUE_CHARS]: str(value)[:_VALUE_CHARS] for name, value in shown[:_VALUES]}
    return ["| | |", "| --- | --- |", *(f"| {_text(name)} | {_text(value)} |" for name, value in rows.items() if value)]


def _text(value: object) -> str:
    """The value as one line of text, escaped so that Markdown shows it unchanged."""
    return _MARKUP.sub(r"\\\1", printable(str(value)))


def _clock(at_ms: int | None) -> str:
    if at_ms is None:
        return "-:--"
    minutes, seconds = divmod(at_ms // 1000, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


async def _build(resources: Resources) -> Make:
    return Document(resources.store, resources.database).make


SPEC = enrichment("document", version="transcript/1", announces=topics.DOCUMENT, make=_build)
