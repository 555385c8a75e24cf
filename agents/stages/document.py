"""The stage that makes a document for people of each transcript: Markdown, without a language model."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import orjson

from agents.stages.enrichment import Enriched, Make, enrichment
from agents.stages.spec import Resources
from schemas import blob_names, topics
from schemas.events.enrichment import DocumentGenerated
from schemas.jobs.rows import File, Job
from schemas.printable import printable
from sinks.ports.blobs import Store

_CONTENT_TYPE = "text/markdown; charset=utf-8"

#: Characters of a value of the upload's metadata that are shown, and values.
_LONGEST, _MANY = 200, 20

#: What Markdown, or HTML in it, would take for markup.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~&-])")


@dataclass(frozen=True)
class Document:
    """Makes documents of what is in the store."""

    store: Store

    async def make(self, job: Job) -> Enriched:
        """The document of the job's current run, stored."""
        whose = job.tenant_id, job.job_id, job.run
        content = await self.store.get(self.store.uri(blob_names.agent_optimized(*whose)))
        text = await asyncio.to_thread(markdown, orjson.loads(content))
        blob = await self.store.put(blob_names.document(*whose), text.encode(), _CONTENT_TYPE)
        run: dict[str, Any] = {"tenant_id": job.tenant_id, "job_id": job.job_id, "run": job.run}
        stored: dict[str, Any] = {
            "size_bytes": blob.size_bytes,
            "content_type": blob.content_type,
            "sha256": blob.sha256,
        }
        return Enriched(
            event=DocumentGenerated(**run, document_uri=blob.uri, **stored),
            files=(File(**run, kind="document", uri=blob.uri, **stored),),
        )


def markdown(transcript: dict[str, Any]) -> str:
    """A transcript, as `agent_optimized.json` has it, as Markdown: what is known of the call, notes, and who said what
    when. Whatever was dictated or uploaded stays text: no markup of it takes effect.
    """
    known = transcript["metadata"]
    lines = [f"# {_title(known)}", "", *_facts(transcript), ""]
    if known["reconciliation_notes"]:
        lines += ["## Notes", "", *(f"- {_text(note)}" for note in known["reconciliation_notes"]), ""]
    lines += ["## Transcript", ""]
    for segment in transcript["transcript"]["segments"]:
        speaker = f"**{_text(segment['speaker'])}** " if segment["speaker"] else ""
        lines += [f"{speaker}`{_clock(segment['start_ms'])}` {_text(segment['text'])}", ""]
    if not transcript["transcript"]["segments"]:
        lines += ["No speech was heard.", ""]
    return "\n".join(lines)


def _title(known: dict[str, Any]) -> str:
    title = (known.get("custom") or {}).get("title")
    return _text(title if isinstance(title, str) and title.strip() else PurePosixPath(known["filename"]).stem)


def _facts(transcript: dict[str, Any]) -> list[str]:
    known = transcript["metadata"]
    confidence = known["confidence"]
    rows = {
        "Recording": known["filename"],
        "Reference": transcript["reference"],
        "Length": _clock(round(known["duration"] * 1000)),
        "Language": known["language"],
        "Speakers": ", ".join(transcript["transcript"]["speakers"]),
        "Recognizers": ", ".join(known["recognizers"]),
        "Confidence": None if confidence is None else f"{confidence:.0%}",
    }
    custom = {name: value for name, value in (known.get("custom") or {}).items() if name not in {"title", *rows}}
    shown = [(name, value) for name, value in custom.items() if isinstance(value, str | int | float)]
    rows |= {name: str(value)[:_LONGEST] for name, value in shown[:_MANY]}
    return ["| | |", "| --- | --- |", *(f"| {_text(name)} | {_text(value)} |" for name, value in rows.items() if value)]


def _text(value: object) -> str:
    """Anything as one line of text that Markdown shows as it is."""
    return _MARKUP.sub(r"\\\1", printable(str(value)))


def _clock(at_ms: int | None) -> str:
    if at_ms is None:
        return "-:--"
    minutes, seconds = divmod(at_ms // 1000, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


async def _build(resources: Resources) -> Make:
    return Document(resources.store).make


SPEC = enrichment("document", version="transcript/1", announces=topics.DOCUMENT, make=_build)
