"""Gemini as an `Adjudicator`, through Google's SDK.

The model's text is not trusted: only the index of an offered reading is ever taken from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from agents.llm.protocols import AdjudicatorAnswer
from schemas.calls.retry_after import seconds_of
from schemas.errors import ProviderError, RateLimited, Transient
from schemas.words import Question

if TYPE_CHECKING:
    import aiohttp
    from google.genai import Client
    from google.genai.errors import APIError
    from google.genai.types import Candidate, GenerateContentResponse

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
        self._key = api_key
        self._model = model
        self._url = base_url
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._session: aiohttp.ClientSession | None = None
        self._prompt = files("agents.llm").joinpath(f"adjudicate.{PROMPT}.txt").read_text("utf-8")

    async def prepare(self) -> None:
        """Import the SDK, which takes over a second and would delay the first events of a worker."""
        await self._opened()

    async def adjudicate(self, questions: Sequence[Question], language: str | None) -> AdjudicatorAnswer:
        """See `Adjudicator`."""
        client = await self._opened()
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
        with self._errors_translated():
            async with asyncio.timeout(self._timeout_s):
                answer = await client.aio.models.generate_content(model=self._model, contents=content, config=config)
        choices, faults = parse(questions, *_text(answer))
        return AdjudicatorAnswer(choices, faults, _usage(answer), answer.response_id or _digest(content))

    async def check(self) -> None:
        """Request the model's description, which is not billed."""
        client = await self._opened()
        with self._errors_translated():
            async with asyncio.timeout(self._timeout_s):
                await client.aio.models.get(model=self._model)

    async def close(self) -> None:
        """See `Adjudicator`."""
        client, self._client = self._client, None
        session, self._session = self._session, None
        if client is not None:
            await client.aio.aclose()
            client.close()
        if session is not None:
            await session.close()

    async def _opened(self) -> Client:
        """The SDK's client, made at the first call."""
        # In a thread: the first import takes over a second and would block the event loop.
        genai, types = await asyncio.to_thread(_sdk)
        if self._client is None:
            import aiohttp

            # A session of our own: the SDK subclasses aiohttp.ClientSession, of which aiohttp warns.
            self._session = aiohttp.ClientSession(trust_env=True)
            options = types.HttpOptions(
                base_url=self._url,
                api_version="v1beta",
                timeout=int(self._timeout_s * 1000),
                # One attempt: otherwise the SDK silently repeats, and pays for, a request whose connection dropped.
                retry_options=types.HttpRetryOptions(attempts=1),
                aiohttp_client=self._session,
            )
            # Never Vertex, even if the environment selects it for other programs.
            self._client = genai.Client(api_key=self._key, vertexai=False, http_options=options)
        return self._client

    @contextlib.contextmanager
    def _errors_translated(self) -> Iterator[None]:
        """Raise our own errors for those of the SDK and its transport. None of them contains the API key."""
        import aiohttp
        from google.genai.errors import APIError

        try:
            yield
        except APIError as exc:
            raise self._refusal(exc) from None
        except TimeoutError:
            raise Transient(f"Gemini does not answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as exc:
            raise Transient(f"Gemini cannot be reached ({self._safe(exc)})") from None
        except (ValueError, TypeError, AttributeError, KeyError) as exc:
            # The SDK reads a body's fields without validating its shape first.
            raise Transient(f"Gemini's answer cannot be read ({type(exc).__name__})") from None

    def _refusal(self, exc: APIError) -> Exception:
        message = f"Gemini answers {exc.code}: {self._safe(exc)}"
        if exc.code == 429:
            return RateLimited(message, retry_after=_pause_s(exc))
        if exc.code == 408 or exc.code >= 500:
            return Transient(message, retry_after=_pause_s(exc))
        return ProviderError(message)

    def _safe(self, exc: Exception) -> str:
        """The error in one short line, without the API key, which a proxy may have echoed."""
        text = getattr(exc, "message", None) or str(exc) or type(exc).__name__
        return " ".join(str(text).replace(self._key, "...").split())[:200]


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


def _text(answer: GenerateContentResponse) -> tuple[str | None, str | None]:
    """The answer's text, or the fault of the whole answer."""
    blocked = answer.prompt_feedback.block_reason if answer.prompt_feedback else None
    if blocked:
        return None, f"blocked ({getattr(blocked, 'value', blocked)})"
    if not answer.candidates:
        return None, "the answer is empty"
    candidate = answer.candidates[0]
    ended = getattr(candidate.finish_reason, "value", candidate.finish_reason)
    if ended != "STOP":
        return None, f"the answer was cut off ({ended})"
    return _joined_parts(candidate) or None, None


def _joined_parts(candidate: Candidate) -> str:
    """The text of a candidate, without the model's thoughts."""
    parts = candidate.content.parts if candidate.content else None
    return "".join(part.text for part in parts or () if part.text and not part.thought)


def _usage(answer: GenerateContentResponse) -> dict[str, int]:
    """Tokens as the provider counts them; counts that it does not report are left out."""
    metadata = answer.usage_metadata
    counts = {
        "prompt_tokens": metadata.prompt_token_count if metadata else None,
        "candidates_tokens": metadata.candidates_token_count if metadata else None,
        "thoughts_tokens": metadata.thoughts_token_count if metadata else None,
        "total_tokens": metadata.total_token_count if metadata else None,
    }
    return {"requests": 1} | {unit: count for unit, count in counts.items() if count is not None and count >= 0}


def _pause_s(exc: APIError) -> float | None:
    """Seconds that Google asks us to wait: from a header, or from the error's RetryInfo."""
    headers = getattr(exc.response, "headers", None) or {}
    if (pause_s := seconds_of(headers)) is not None:
        return pause_s
    with contextlib.suppress(AttributeError, KeyError, TypeError, StopIteration):
        details: Any = exc.details
        return seconds_of(
            next(d["retryDelay"] for d in details["error"]["details"] if "retryDelay" in d).removesuffix("s")
        )
    return None


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _sdk() -> tuple[Any, Any]:
    from google import genai
    from google.genai import types

    return genai, types
