"""A text model that answers by script: the double of the others, for tests."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from agents.llm.protocols import Said, TextAnswer, TextPrompt

#: Characters of a piece.
PIECE = 7


async def _no_pause() -> None:
    await asyncio.sleep(0)


@dataclass
class ScriptedTexts:
    """A `TextModel` that answers with `reply`, after raising the errors that `trouble` holds for the next calls."""

    #: The answer to a question: JSON, or a text as it stands.
    reply: Callable[[TextPrompt[Any]], Any]
    #: Raised by the next calls, in order; a call whose entry is None answers.
    trouble: list[Exception | None] = field(default_factory=list)
    name: str = "openai/scripted"
    #: Every question, answered or not.
    asked: list[TextPrompt[Any]] = field(default_factory=list)

    #: Awaited before each piece of a text whose pieces are wanted.
    pause: Callable[[], Awaitable[None]] = _no_pause

    async def prepare(self) -> None:
        """Always ready."""

    async def answer(self, prompt: TextPrompt[BaseModel], said: Said | None = None) -> TextAnswer:
        """See `TextModel`."""
        self.asked.append(prompt)
        trouble = self.trouble.pop(0) if self.trouble else None
        if trouble is not None:
            raise trouble
        reply = self.reply(prompt)
        text = reply if isinstance(reply, str) else json.dumps(reply)
        if said is not None:
            for at in range(0, len(text), PIECE):
                await self.pause()
                said(text[at : at + PIECE])
        used, made = len(prompt.instructions + prompt.content) // 4, len(text) // 4
        ref = hashlib.sha256(f"{len(self.asked)} {prompt.content}".encode()).hexdigest()[:16]
        usage = {"requests": 1, "prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}
        return TextAnswer(text or None, None if text else "the answer is empty", usage, ref)

    async def check(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing to release."""
