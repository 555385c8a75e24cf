"""Gemini as a judge of disputed words, through Google's own SDK.

What comes back is a stranger's text: only an index of an offered reading is ever taken from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from agents.asr.protocols import AdjudicatorAnswer
from schemas.errors import ProviderError, RateLimited, Transient
from schemas.retry_after import seconds_of
from schemas.words import Question

if TYPE_CHECKING:
    import aiohttp
    from google.genai import Client
    from google.genai.errors import APIError
    from google.genai.types import GenerateContentResponse

#: Names the prompt in `adjudicate.<version>.txt`, in every decision and in every question's hash: another text is
#: another version.
PROMPT = "v1"

#: Seconds for one call.
TIMEOUT_S = 25.0

#: Tokens that the model may think, and tokens of an answer: for each question, and besides (thoughts that run over).
THINKING, PER_ANSWER, BESIDES = 512, 40, 2048

#: Characters of the longest answer that is read at all.
LONGEST = 20_000

_NEITHER = "neither"


class _Answer(BaseModel):
    """About one place."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: str = Field(description="the id of the place")
    choice: str = Field(description='the number of the chosen reading, or "neither"')


class _Answers(BaseModel):
    """What the model is told to answer with."""

    answers: list[_Answer]


class _Said(BaseModel):
    """What it is held to: an entry that makes no sense must not cost the others their answers."""

    answers: list[JsonValue]


class Gemini:
    """An `Adjudicator`."""

    many = 20

    def __init__(self, api_key: str, model: str, base_url: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        """Nothing is imported or connected before the first call."""
        self.name = f"gemini/{model}/{PROMPT}"
        self._key = api_key
        self._model = model
        self._url = base_url
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._session: aiohttp.ClientSession | None = None
        self._prompt = files("agents.llm").joinpath(f"adjudicate.{PROMPT}.txt").read_text("utf-8")

    async def prepare(self) -> None:
        """Import the SDK: over a second, which the events of a worker that has just started should not share."""
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
            # The SDK's own loop of function calls, of which there are none here.
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            # A small budget, which by the documentation every generation takes; none at all is refused by some.
            thinking_config=types.ThinkingConfig(thinking_budget=THINKING),
        )
        content = asked(questions, language)
        with self._explained():
            async with asyncio.timeout(self._timeout_s):
                answer = await client.aio.models.generate_content(model=self._model, contents=content, config=config)
        choices, faults = read(questions, *_text(answer))
        return AdjudicatorAnswer(choices, faults, _usage(answer), answer.response_id or _digest(content))

    async def check(self) -> None:
        """Ask for the model's description, which costs nothing."""
        client = await self._opened()
        with self._explained():
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
        # The first import takes over a second, in which the event loop must go on.
        genai, types = await asyncio.to_thread(_sdk)
        if self._client is None:
            import aiohttp

            # Ours, because the SDK's own is of a class that aiohttp warns of.
            self._session = aiohttp.ClientSession(trust_env=True)
            options = types.HttpOptions(
                base_url=self._url,
                api_version="v1beta",
                timeout=int(self._timeout_s * 1000),
                # Without this a dropped connection is silently sent, and billed, a second time.
                retry_options=types.HttpRetryOptions(attempts=1),
                aiohttp_client=self._session,
            )
            # Not Vertex, whatever the environment says for other programs.
            self._client = genai.Client(api_key=self._key, vertexai=False, http_options=options)
        return self._client

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the SDK and its transport raise into our errors; the key is in none of them."""
        import aiohttp
        from google.genai.errors import APIError

        try:
            yield
        except APIError as exc:
            raise self._refused(exc) from None
        except TimeoutError:
            raise Transient(f"Gemini does not answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as exc:
            raise Transient(f"Gemini cannot be reached ({self._safe(exc)})") from None
        except (ValueError, TypeError, AttributeError, KeyError) as exc:
            # The SDK takes a body apart without looking at its shape first.
            raise Transient(f"Gemini's answer cannot be read ({type(exc).__name__})") from None

    def _refused(self, exc: APIError) -> Exception:
        said = f"Gemini answers {exc.code}: {self._safe(exc)}"
        if exc.code == 429:
            return RateLimited(said, retry_after=_pause_s(exc))
        if exc.code == 408 or exc.code >= 500:
            return Transient(said, retry_after=_pause_s(exc))
        return ProviderError(said)

    def _safe(self, exc: Exception) -> str:
        """The error in one short line, without the key, should somebody between us and Google have echoed it."""
        text = getattr(exc, "message", None) or str(exc) or type(exc).__name__
        return " ".join(str(text).replace(self._key, "...").split())[:200]


def asked(questions: Sequence[Question], language: str | None) -> str:
    """The message: JSON, so that no word of a transcript can end the place it stands in."""
    places = [
        {
            "id": f"p{n}",
            "before": question.before,
            "readings": {str(k): reading for k, reading in enumerate(question.readings, 1)},
            "after": question.after,
        }
        for n, question in enumerate(questions, 1)
    ]
    return json.dumps({"language": language or "unknown", "places": places}, ensure_ascii=False)


def read(
    questions: Sequence[Question], text: str | None, fault: str | None
) -> tuple[dict[str, int | None], dict[str, str]]:
    """Choices and faults, by question, out of the model's text; a `fault` of the whole answer is one of each."""
    if fault is None and (text is None or len(text) > LONGEST):
        fault = "the answer is empty" if text is None else "the answer does not end"
    entries: list[JsonValue] = []
    if fault is None:
        try:
            entries = _Said.model_validate_json(text or "").answers
        except ValidationError:
            fault = "the answer is not what was asked for"
    if fault is not None:
        return {}, {question.id: fault for question in questions}
    valid = [answer for entry in entries if (answer := _entry(entry)) is not None]
    times = Counter(answer.id for answer in valid)
    said = {answer.id: answer.choice for answer in valid}
    choices: dict[str, int | None] = {}
    faults: dict[str, str] = {}
    for n, question in enumerate(questions, 1):
        choice = said.get(f"p{n}")
        if choice is None or times[f"p{n}"] > 1:
            faults[question.id] = "no answer to this place" if choice is None else "several answers to this place"
        elif choice == _NEITHER:
            choices[question.id] = None
        elif re.fullmatch("[0-9]{1,3}", choice) and 1 <= int(choice) <= len(question.readings):
            choices[question.id] = int(choice) - 1
        else:
            faults[question.id] = "not one of the readings"
    return choices, faults


def _entry(value: JsonValue) -> _Answer | None:
    try:
        return _Answer.model_validate(value)
    except ValidationError:
        return None


def _text(answer: GenerateContentResponse) -> tuple[str | None, str | None]:
    """The answer's text, or what is wrong with it as a whole."""
    blocked = answer.prompt_feedback.block_reason if answer.prompt_feedback else None
    if blocked:
        return None, f"blocked ({getattr(blocked, 'value', blocked)})"
    candidate = answer.candidates[0] if answer.candidates else None
    if candidate is None:
        return None, "the answer is empty"
    ended = getattr(candidate.finish_reason, "value", candidate.finish_reason)
    if ended != "STOP":
        return None, f"the answer was cut off ({ended})"
    parts = candidate.content.parts if candidate.content else None
    return "".join(part.text for part in parts or () if part.text and not part.thought) or None, None


def _usage(answer: GenerateContentResponse) -> dict[str, int]:
    """Tokens as the provider counts them; what it does not say is left out."""
    said = answer.usage_metadata
    counts = {
        "prompt_tokens": said.prompt_token_count if said else None,
        "candidates_tokens": said.candidates_token_count if said else None,
        "thoughts_tokens": said.thoughts_token_count if said else None,
        "total_tokens": said.total_token_count if said else None,
    }
    return {"requests": 1} | {unit: count for unit, count in counts.items() if count is not None and count >= 0}


def _pause_s(exc: APIError) -> float | None:
    """Seconds that it asks us to wait: in a header, or in RetryInfo."""
    headers = getattr(exc.response, "headers", None) or {}
    if (told := seconds_of(headers)) is not None:
        return told
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
