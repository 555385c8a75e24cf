"""Titles and descriptions of calls by a text model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict

from agents.llm.protocols import TextPrompt
from agents.llm.texts.prompts import Template
from agents.llm.texts.questions import Asks
from agents.llm.texts.summaries import Text, all_of, contents_of
from schemas.jobs.rows import OfRun
from schemas.transcript_words import TranscriptWord

#: The version of the prompt; changed texts, and changed names below, need a new one.
VERSION: Final = "v1"


class CallTitle(BaseModel):
    """A call's title and description."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    title: Text
    description: Text


@dataclass(frozen=True, slots=True)
class Titled:
    """The title and the description of a call, and the tokens that they cost."""

    title: str
    description: str
    tokens: int


@dataclass(frozen=True)
class Titler:
    """Titles calls. A long one is read in parts, whose descriptions are then described."""

    questions: Asks
    #: Tokens of a part, about.
    part_tokens: int
    temperature: float
    answer_tokens: int = 4096

    async def titled(
        self, job: OfRun, words: Sequence[TranscriptWord], language: str | None, template: Template
    ) -> Titled:
        """The title of a transcript with words. Raises as `Asks.ask` does."""
        _, contents = await asyncio.to_thread(contents_of, words, language, self.part_tokens)
        read = await all_of(contents, lambda content: self._asked(job, template, content))
        if len(read) == 1:
            return read[0]
        described = json.dumps({"language": language, "parts": [one.description for one in read]}, ensure_ascii=False)
        whole = await self._asked(job, template, described)
        return Titled(whole.title, whole.description, whole.tokens + sum(one.tokens for one in read))

    async def _asked(self, job: OfRun, template: Template, content: str) -> Titled:
        question = TextPrompt(template.instructions, content, CallTitle, self.temperature, self.answer_tokens)
        asked = await self.questions.ask(job, question)
        title = " ".join(asked.value.title.split())
        return Titled(title, " ".join(asked.value.description.split()), asked.tokens)
