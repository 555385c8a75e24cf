"""An embedding model that answers by script: the double of the others, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agents.embeddings.protocols import Embedded, checked


def bag_of_letters(text: str) -> list[float]:
    """A vector in which texts of the same letters are near."""
    return [1.0 + text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]


@dataclass
class ScriptedEmbedder:
    """An `Embedder` that answers with `vector`, after raising the errors that `trouble` holds for the next calls."""

    model: str = "letters"
    vector: Callable[[str], list[float]] = bag_of_letters
    #: Raised by the next calls, in order; a call whose entry is None answers.
    trouble: list[Exception | None] = field(default_factory=list)
    #: Every call that was charged.
    asked: list[list[str]] = field(default_factory=list)
    provider: str = "scripted"
    is_local: bool = False

    async def passages(self, texts: Sequence[str]) -> Embedded:
        """See `Embedder`."""
        trouble = self.trouble.pop(0) if self.trouble else None
        if trouble is not None:
            raise trouble
        self.asked.append([*texts])
        return Embedded(
            checked([self.vector(text) for text in texts], len(texts)), {"requests": 1}, f"{len(self.asked)}"
        )

    async def question(self, text: str) -> Embedded:
        """See `Embedder`."""
        return await self.passages([text])

    async def close(self) -> None:
        """Nothing to release."""
