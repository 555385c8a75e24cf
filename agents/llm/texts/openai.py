"""Any server with OpenAI's protocol as a `TextModel`, through the official SDK: OpenAI, Azure, vLLM, Ollama, LiteLLM.

Servers differ in the parameters that they take. A refusal that names one of them (400, not billed) is answered by
asking again without it, and remembered: newer models of OpenAI take no temperature, older servers no
`max_completion_tokens`, and some no schema. Where the schema cannot be sent it is part of the instructions; the answer
is validated in either case.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from agents.llm.protocols import TextAnswer, TextPrompt, ref_of
from schemas.calls.retry_after import seconds_of
from schemas.errors import NotAccepted, ProviderError, RateLimited, Transient

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

#: Seconds for one call, whose answer may have thousands of tokens.
TIMEOUT_S = 120.0

#: Seconds until a connection is there.
CONNECT_S = 10.0

#: Parameters that a server may refuse, and what is sent instead; None for nothing.
_INSTEAD: Final[dict[str, str | None]] = {
    "temperature": None,
    "max_completion_tokens": "max_tokens",
    "max_tokens": None,
    "response_format": None,
}


class _Refused(Exception):
    """The server does not take a parameter that can be left out."""

    def __init__(self, parameter: str) -> None:
        super().__init__(parameter)
        self.parameter = parameter


class OpenAITexts:
    """A `TextModel`."""

    def __init__(
        self, api_key: str | None, model: str, base_url: str | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        """`base_url` replaces OpenAI's and ends in its version, as in `https://host/v1`; servers of one's own may need
        no key. Nothing is imported or connected before the first call.
        """
        self.name = f"openai/{model}"
        self._key = api_key or "none"
        self._model = model
        self._url = base_url or "https://api.openai.com/v1"
        self._timeout_s = timeout_s
        self._client: AsyncOpenAI | None = None
        self._refused: set[str] = set()

    async def prepare(self) -> None:
        """Import the SDK, which takes over a second and would delay the first events of a worker."""
        await self._opened()

    async def answer(self, prompt: TextPrompt[BaseModel]) -> TextAnswer:
        """See `TextModel`."""
        client = await self._opened()
        while True:
            try:
                with self._errors_translated():
                    async with asyncio.timeout(self._timeout_s):
                        completion = await client.chat.completions.create(**self._request(prompt))
                    return _answer(completion, prompt)
            except _Refused as exc:
                self._refused.add(exc.parameter)

    async def check(self) -> None:
        """Request the list of models, which is not billed.

        Raises:
            ProviderError: The server does not know the model; or as `answer` does.
        """
        client = await self._opened()
        with self._errors_translated():
            async with asyncio.timeout(self._timeout_s):
                names = [model.id async for model in client.models.list()]
        # Azure's names are those of deployments, which it does not list.
        if self._model not in names and ".azure.com" not in self._url:
            raise ProviderError(f"the server has no model {self._model!r}; it has {', '.join(sorted(names)[:20])}")

    async def close(self) -> None:
        """See `TextModel`."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _opened(self) -> AsyncOpenAI:
        """The SDK's client, made at the first call."""
        # In a thread: the first import takes over a second and would block the event loop.
        openai = await asyncio.to_thread(_sdk)
        if self._client is None:
            timeout = openai.Timeout(self._timeout_s, connect=CONNECT_S)
            # No retries of the SDK's: it repeats a request whose answer is lost, and pays for both.
            self._client = openai.AsyncOpenAI(api_key=self._key, base_url=self._url, timeout=timeout, max_retries=0)
            # What the environment says to other programs.
            self._client.organization = self._client.project = None
        return self._client

    def _request(self, prompt: TextPrompt[BaseModel]) -> dict[str, Any]:
        schema = prompt.schema.model_json_schema()
        instructions = prompt.instructions
        parameters: dict[str, Any] = {
            "temperature": prompt.temperature,
            "max_completion_tokens": prompt.max_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": prompt.schema.__name__.strip("_"), "schema": schema, "strict": True},
            },
        }
        if "response_format" in self._refused:
            instructions += f"\n\nAnswer with JSON alone, valid against this schema:\n{json.dumps(schema)}"
        for refused in [name for name in _INSTEAD if name in self._refused]:
            value, instead = parameters.pop(refused, None), _INSTEAD[refused]
            if instead is not None:
                parameters[instead] = value
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": prompt.content}]
        return {"model": self._model, "messages": messages} | parameters

    @contextlib.contextmanager
    def _errors_translated(self) -> Iterator[None]:
        """Raise our own errors for those of the SDK and its transport. None of them contains the API key."""
        import openai

        try:
            yield
        except openai.APIStatusError as exc:
            raise self._refusal(exc) from None
        except (TimeoutError, openai.APITimeoutError):
            raise Transient(f"the model does not answer within {self._timeout_s:g} s") from None
        except openai.APIConnectionError as exc:
            is_connected = "Connect" not in type(exc.__cause__).__name__
            kind = Transient if is_connected else NotAccepted
            raise kind(f"the model's server cannot be reached ({self._safe(exc.__cause__ or exc)})") from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, KeyError, IndexError) as exc:
            # The SDK builds its models of a body without validating it.
            raise Transient(f"the model's answer cannot be read ({type(exc).__name__})") from None

    def _refusal(self, exc: APIStatusError) -> Exception:
        parameter = str(exc.param or "").partition(".")[0]
        if exc.status_code in (400, 422) and parameter in _INSTEAD and parameter not in self._refused:
            return _Refused(parameter)
        message = f"the model's server answers {exc.status_code}: {self._safe(exc)}"
        pause_s = seconds_of(exc.response.headers)
        if exc.status_code == 429:
            if exc.code == "insufficient_quota":
                return ProviderError(message)
            return RateLimited(message, retry_after=pause_s)
        if exc.status_code == 503:
            return NotAccepted(message, retry_after=pause_s)
        if exc.status_code in (408, 409) or exc.status_code >= 500:
            return Transient(message, retry_after=pause_s)
        return ProviderError(message)

    def _safe(self, exc: BaseException) -> str:
        """The error in one short line, without the API key, which a proxy may have echoed."""
        text = getattr(exc, "message", None) or str(exc) or type(exc).__name__
        return " ".join(str(text).replace(self._key, "...").split())[:200]


def _answer(completion: Any, prompt: TextPrompt[BaseModel]) -> TextAnswer:
    """Reads every field with care: the SDK passes on whatever the server has sent."""
    text, fault = _text(completion.choices[0] if completion.choices else None)
    return TextAnswer(text, fault, _usage(completion.usage), str(completion.id or ref_of(prompt.content)))


def _text(choice: Any) -> tuple[str | None, str | None]:
    """The answer's text, or why there is none."""
    if choice is None:
        return None, "the answer is empty"
    message = choice.message
    if refusal := getattr(message, "refusal", None):
        return None, f"the model declines ({str(refusal)[:100]})"
    if choice.finish_reason not in ("stop", None):
        return None, f"the answer was cut off ({choice.finish_reason})"
    if not isinstance(message.content, str) or not message.content.strip():
        return None, "the answer is empty"
    return message.content, None


def _usage(usage: Any) -> dict[str, int]:
    """Tokens as the server counts them; counts that it does not report are left out."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    counts = {name: getattr(usage, name, None) for name in names}
    return {"requests": 1} | {unit: count for unit, count in counts.items() if isinstance(count, int) and count >= 0}


def _sdk() -> Any:
    import openai

    # What the client would import at its first call, in the event loop.
    import openai.resources.chat.completions
    import openai.resources.models

    return openai
