"""The interface of an adjudicator: a language model that chooses among the readings of a disputed span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.words import Question


@dataclass(frozen=True, slots=True)
class AdjudicatorAnswer:
    """The result of one call. Every question of the call is in `choices` or in `faults`."""

    #: By question id: the index of the chosen reading, or None if the model chose none of them.
    choices: dict[str, int | None]
    #: By question id: why there is no usable answer.
    faults: dict[str, str]
    #: What the call used up, by unit; unusable answers are billed, too.
    usage: dict[str, int]
    #: The provider's id of the answer, or another value that distinguishes it from others.
    ref: str


class Adjudicator(Protocol):
    """Chooses among the readings that recognizers offered for a span in which they disagree.

    A call is not idempotent and may bill; an implementation never repeats a call by itself.
    """

    #: `<provider>/<model>/<prompt version>`: recorded with every choice.
    name: str
    #: Questions in one call, at most.
    many: int

    async def prepare(self) -> None:
        """Do what would delay the first call, above all importing an SDK. Sends no request."""

    async def adjudicate(self, questions: Sequence[Question], language: str | None) -> AdjudicatorAnswer:
        """Ask some questions in one call of less than 30 s. An unusable answer is returned as faults.

        Raises:
            RateLimited: The provider asks for a pause.
            Transient: The provider cannot be reached or is too slow.
            ProviderError: The provider refuses, and would refuse other questions, too (a wrong key, an unknown model).
        """

    async def check(self) -> None:
        """Make a call that is not billed. Raises as `adjudicate` does."""

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
