"""Gemini as an `Adjudicator`, through Google's SDK.

The model's text is not trusted: only the index of an offered reading is ever taken from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from agents.llm.gemini_client import GeminiClient, text_of, usage_of
from agents.llm.protocols import AdjudicatorAnswer, ref_of
from schemas.words import Question

#: The version of the prompt `adjudicate.<version>.txt`. It is part of every decision and of every question's hash, so a
#: changed text needs a new version.
PROMPT = "v1"

#: Seconds for one call.
TIMEOUT_S = 25.0

#: Token limits: for thinking; for the answer to each question; for the rest (thoughts beyond their limit).
THINKING, PER_ANSWER, BESIDES = 512, 40, 2048

#: Characters of the longest answer that is parsed.
LONGEST = 20_000

_NEITHER = "neither"


# The docstrings, names and descriptions of `_Answer` and `_Answers` are part of the schema that the model gets. They
# belong to the prompt: changed ones need a new version.


class _Answer(BaseModel):
    """About one place."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: str = Field(description="the id of the place")
    choice: str = Field(description='the number of the chosen reading, or "neither"')


class _Answers(BaseModel):
    """What the model is told to answer with."""

    answers: list[_Answer]


class _RawAnswers(BaseModel):
    """The answer as it is parsed. Entries are validated one by one, so that an invalid one leaves the others usable."""

    answers: list[JsonValue]


class Gemini:
    """An `Adjudicator`."""

    many = 20

    def __init__(self, api_key: str, model: str, base_url: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        """`base_url` replaces Google's. Nothing is imported or connected before the first call."""
        self.name = f"gemini/{model}/{PROMPT}"
        self._client = GeminiClient(api_key, model, base_url, timeout_s=timeout_s)
        self._prompt = files("agents.llm").joinpath(f"adjudicate.{PROMPT}.txt").read_text("utf-8")

    async def prepare(self) -> None:
        """Import the SDK, which takes over a second and would delay the first events of a worker."""
        await self._client.opened()

    async def adjudicate(self, questions: Sequence[Question], language: str | None) -> AdjudicatorAnswer:
        """See `Adjudicator`."""
        await self._client.opened()
        from google.genai import types

        config = types.GenerateContentConfig(
            system_instruction=self._prompt,
            response_mime_type="application/json",
            response_schema=_Answers,
            temperature=0,
            seed=1,
            max_output_tokens=THINKING + BESIDES + PER_ANSWER * len(questions),
            # No functions are offered, so the SDK's loop that calls them is not needed.
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            # By the documentation every model generation accepts a small budget; some refuse a budget of zero.
            thinking_config=types.ThinkingConfig(thinking_budget=THINKING),
        )
        content = user_message(questions, language)
        answer = await self._client.generate(content, config)
        choices, faults = parse(questions, *text_of(answer))
        return AdjudicatorAnswer(choices, faults, usage_of(answer), answer.response_id or ref_of(content))

    async def check(self) -> None:
        """Request the model's description, which is not billed."""
        await self._client.check()

    async def close(self) -> None:
        """See `Adjudicator`."""
        await self._client.close()


def user_message(questions: Sequence[Question], language: str | None) -> str:
    """The questions as JSON, whose quoting keeps every word of a transcript inside its string."""
    spans = [
        {
            "id": f"p{n}",
            "before": question.before,
            "readings": {str(k): reading for k, reading in enumerate(question.readings, 1)},
            "after": question.after,
        }
        for n, question in enumerate(questions, 1)
    ]
    return json.dumps({"language": language or "unknown", "places": spans}, ensure_ascii=False)


def parse(
    questions: Sequence[Question], text: str | None, fault: str | None
) -> tuple[dict[str, int | None], dict[str, str]]:
    """Choices and faults by question id, from the model's text. A `fault` of the whole answer is one of each question.

    A choice is the index of a reading, or None for "neither"; everything else in the text is a fault.
    """
    choices: dict[str, int | None] = {}
    faults: dict[str, str] = {}
    try:
        answers = _answers(text, fault)
    except _Fault as exc:
        return {}, {question.id: str(exc) for question in questions}
    for n, question in enumerate(questions, 1):
        try:
            choices[question.id] = _choice(answers.get(f"p{n}", ()), len(question.readings))
        except _Fault as exc:
            faults[question.id] = str(exc)
    return choices, faults


class _Fault(Exception):
    """Why the model's text, or its answer to one question, is not usable."""


def _answers(text: str | None, fault: str | None) -> dict[str, list[str]]:
    """By id, all choices in the model's text. Raises _Fault if the whole answer is not usable."""
    if fault is not None:
        raise _Fault(fault)
    if text is None:
        raise _Fault("the answer is empty")
    if len(text) > LONGEST:
        raise _Fault("the answer does not end")
    try:
        entries = _RawAnswers.model_validate_json(text).answers
    except ValidationError as exc:
        raise _Fault("the answer is not what was asked for") from exc
    answers: dict[str, list[str]] = {}
    for answer in filter(None, map(_entry, entries)):
        answers.setdefault(answer.id, []).append(answer.choice)
    return answers


def _choice(answers: Sequence[str], readings: int) -> int | None:
    """The index of the chosen reading, or None for "neither", from all answers to one question. `readings` is the
    number of offered readings. Raises _Fault if there is not one valid answer.
    """
    if len(answers) != 1:
        raise _Fault("several answers to this span" if answers else "no answer to this span")
    if answers[0] == _NEITHER:
        return None
    if not (re.fullmatch("[0-9]{1,3}", answers[0]) and 1 <= int(answers[0]) <= readings):
        raise _Fault("not one of the readings")
    return int(answers[0]) - 1


def _entry(value: JsonValue) -> _Answer | None:
    try:
        return _Answer.model_validate(value)
    except ValidationError:
        return None
