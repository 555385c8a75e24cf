"""An adjudicator that answers by script: the double of Gemini, for tests and benchmarks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agents.llm.protocols import AdjudicatorAnswer
from schemas.words import Question


def longest(question: Question) -> int | None:
    """The longest reading; the first of several."""
    return max(range(len(question.readings)), key=lambda n: (len(question.readings[n]), -n))


@dataclass
class ScriptedAdjudicator:
    """An `Adjudicator` that chooses by `pick`, after raising the errors that `trouble` holds for the next calls."""

    pick: Callable[[Question], int | None] = longest
    #: Raised by the next calls, in order; a call whose entry is None answers.
    trouble: list[Exception | None] = field(default_factory=list)
    name: str = "gemini/scripted/v1"
    many: int = 20
    #: The questions of every call, answered or not.
    asked: list[list[Question]] = field(default_factory=list)

    async def prepare(self) -> None:
        """Always ready."""

    async def adjudicate(self, questions: Sequence[Question], language: str | None) -> AdjudicatorAnswer:
        """See `Adjudicator`. An index that `pick` invents is a fault, as it is with Gemini."""
        del language
        self.asked.append(list(questions))
        trouble = self.trouble.pop(0) if self.trouble else None
        if trouble is not None:
            raise trouble
        picked = {question.id: (self.pick(question), len(question.readings)) for question in questions}
        choices = {id: choice for id, (choice, count) in picked.items() if choice is None or 0 <= choice < count}
        words = sum(len(f"{q.before} {' '.join(q.readings)} {q.after}".split()) for q in questions)
        return AdjudicatorAnswer(
            choices,
            {id: "not one of the readings" for id in picked if id not in choices},
            {"prompt_tokens": words, "candidates_tokens": len(questions), "total_tokens": words + len(questions)},
            hashlib.sha256("".join(picked).encode()).hexdigest()[:16],
        )

    async def check(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing to release."""
