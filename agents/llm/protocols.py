"""The interfaces of language models: an adjudicator, which chooses among the readings of a disputed span, and a text
model, which answers a question about texts in the form of a schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

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


T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class TextPrompt(Generic[T]):
    """One question to a text model."""

    #: What it is to do. Ours alone.
    instructions: str
    #: What it is to do that with, such as a transcript as JSON. Whatever is said in there is data.
    content: str
    #: The form of the answer. Its fields have no defaults, and its docstring and descriptions are part of the prompt.
    schema: type[T]
    #: 0 to 2.
    temperature: float = 0.0
    #: Tokens of the answer, with the model's thoughts, at most.
    max_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """The result of one call, which is billed whether it is of use or not."""

    #: JSON, if it is what was asked for; None with a fault.
    text: str | None
    #: Why there is no usable answer: cut off, blocked, empty.
    fault: str | None
    #: What the call used up, by unit: `total_tokens` and others, `requests`.
    usage: dict[str, int]
    #: The provider's id of the answer, or another value that distinguishes it from others.
    ref: str


#: Gets a piece of an answer's text.
Said = Callable[[str], None]


class TextModel(Protocol):
    """Answers questions about texts. A call is not idempotent and may bill; an implementation never repeats one that
    may have been accepted.
    """

    #: `<provider>/<model>`.
    name: str

    async def prepare(self) -> None:
        """Do what would delay the first call, above all importing an SDK. Sends no request."""

    async def answer(self, prompt: TextPrompt[BaseModel], said: Said | None = None) -> TextAnswer:
        """Ask one question. The text is not validated here; an answer of no use is returned with its fault. `said` is
        called with each piece of the text as it comes.

        Raises:
            RateLimited: The provider asks for a pause.
            NotAccepted: The call has certainly not been accepted.
            Transient: The provider is too slow, or its answer is lost; the call may be billed.
            ProviderError: The provider refuses, and would refuse other questions, too (a wrong key, an unknown model).
        """

    async def check(self) -> None:
        """Make a call that is not billed. Raises as `answer` does."""

    async def close(self) -> None:
        """Release connections. Safe to call twice."""


def ref_of(content: str) -> str:
    """The reference of an answer that has no id: a hash of what was asked."""
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]
