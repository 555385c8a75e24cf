"""The interface of an embedding model, which turns texts into vectors whose nearness is that of their meanings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from schemas.errors import Transient


@dataclass(frozen=True, slots=True)
class Embedded:
    """The result of one call."""

    #: One of each text, in their order.
    vectors: Sequence[Sequence[float]]
    #: What the call used up, by unit.
    usage: Mapping[str, int] = field(default_factory=dict)
    #: The provider's id of the answer, or another value that distinguishes it from others.
    ref: str = ""


class Embedder(Protocol):
    """A model. A call may bill; an implementation never repeats one by itself."""

    #: The name under which vectors are kept: those of two models cannot be compared.
    model: str
    #: The name under which usage is kept.
    provider: str
    #: Whether it computes on this machine: then nothing is gained by several calls at once.
    is_local: bool

    async def passages(self, texts: Sequence[str]) -> Embedded:
        """Vectors of texts that are to be found.

        Raises:
            RateLimited: The provider asks for a pause.
            Transient: The provider cannot be reached, is too slow, or its answer cannot be read.
            ProviderError: The provider refuses, and would refuse other texts, too.
        """

    async def question(self, text: str) -> Embedded:
        """The vector of what is looked for. Raises as `passages` does."""

    async def close(self) -> None:
        """Release what it holds. Safe to call twice."""


def checked(vectors: Sequence[Sequence[float]], texts: int) -> Sequence[Sequence[float]]:
    """The vectors, if there is one for each text, all of one length and of numbers.

    Raises:
        Transient: They are of no use.
    """
    if len(vectors) != texts or len({len(vector) for vector in vectors}) != 1 or not len(vectors[0]):
        raise Transient("the embedding model's answer has not one vector for each text")
    if not all(math.isfinite(sum(vector)) and any(vector) for vector in vectors):
        raise Transient("the embedding model's answer has a vector without a direction")
    return vectors
