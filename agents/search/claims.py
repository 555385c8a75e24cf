"""The claims of an answer while it is still being written: each as soon as it is whole, and no half of one."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

#: Characters of the longest answer that is read.
LONGEST = 100_000


class AnswerClaim(BaseModel):
    """A sentence of the answer."""

    text: str = Field(description="the sentence")
    passages: list[int] = Field(description="numbers of the passages on which it rests")
    quote: str = Field(description="three to twenty consecutive words of one of them, exactly as they stand there")


class WrittenAnswer(BaseModel):
    """The answer to the question."""

    is_answered: bool = Field(description="whether the passages answer the question")
    claims: list[AnswerClaim]


@dataclass
class ClaimReader:
    """Reads an answer, piece by piece."""

    _text: str = ""
    _read: int = 0

    def read(self, piece: str) -> list[AnswerClaim]:
        """The claims that this piece completes. None before it is said whether the question is answered."""
        self._text += piece
        if "}" not in piece or len(self._text) > LONGEST:
            return []
        try:
            # Up to here, what is open but the last brackets is a text, and without that a claim lacks a field.
            begun = from_json(self._text[: self._text.rindex("}") + 1], allow_partial=True)
        except ValueError:
            return []
        if not isinstance(begun, dict) or begun.get("is_answered") is not True:
            return []
        claims = begun.get("claims")
        return self._added(claims) if isinstance(claims, list) else []

    def rest(self, answer: WrittenAnswer) -> list[AnswerClaim]:
        """The claims of the whole answer that were not read before."""
        return answer.claims[self._read :]

    def _added(self, claims: list[object]) -> list[AnswerClaim]:
        added = []
        for claim in claims[self._read :]:
            try:
                added.append(AnswerClaim.model_validate(claim))
            except ValidationError:
                break
        self._read += len(added)
        return added
