"""Any server with OpenAI's protocol as a `TextModel`, through the official SDK: OpenAI, Azure, vLLM, Ollama, LiteLLM.

Servers differ in the parameters that they take. A refusal that names one of them (400, not billed) is answered by
asking again without it, and remembered: newer models of OpenAI take no temperature, older servers no
`max_completion_tokens`, some no schema, and some no streams, or no counts in them. Where the schema cannot be sent it
is part of the instructions; the answer is validated in either case.
"""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from agents.llm.openai_client import OpenAIClient
from agents.llm.protocols import Said, TextAnswer, TextPrompt, ref_of
from schemas.errors import ProviderError

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
    "stream": None,
    "stream_options": None,
}


class OpenAITexts:
    """A `TextModel`."""

    def __init__(
        self, api_key: str | None, model: str, base_url: str | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        """See `OpenAIClient`."""
        self.name = f"openai/{model}"
        self._model = model
        self._timeout_s = timeout_s
        self._client = OpenAIClient(api_key, base_url, what="the model", timeout_s=timeout_s, connect_s=CONNECT_S)
        self._refused: set[str] = set()

    async def prepare(self) -> None:
        """Import the SDK, which takes over a second and would delay the first events of a worker."""
        await self._client.opened()

    async def answer(self, prompt: TextPrompt[BaseModel], said: Said | None = None) -> TextAnswer:
        """See `TextModel`."""
        client = await self._client.opened()
        from openai import APIStatusError

        with self._client.errors_translated(self._timeout_s):
            while True:
                try:
                    async with asyncio.timeout(self._timeout_s):
                        request = self._request(prompt)
                        if said is not None and "stream" not in self._refused:
                            completion = await self._streamed(client, request, said)
                        else:
                            completion = await client.chat.completions.create(**request)
                except APIStatusError as exc:
                    self._leave_out(exc)
                else:
                    return _answer(completion, prompt)

    async def check(self) -> None:
        """Request the list of models, which is not billed.

        Raises:
            ProviderError: The server does not know the model; or as `answer` does.
        """
        client = await self._client.opened()
        with self._client.errors_translated(self._timeout_s):
            async with asyncio.timeout(self._timeout_s):
                names = [model.id async for model in client.models.list()]
        # Azure's names are those of deployments, which it does not list.
        if self._model not in names and ".azure.com" not in self._client.url:
            raise ProviderError(f"the server has no model {self._model!r}; it has {', '.join(sorted(names)[:20])}")

    async def close(self) -> None:
        """See `TextModel`."""
        await self._client.close()

    async def _streamed(self, client: AsyncOpenAI, request: dict[str, Any], said: Said) -> SimpleNamespace:
        """The completion, of which pieces are told as they come; it has the fields of one that comes at once."""
        options: dict[str, Any] = {"stream": True}
        if "stream_options" not in self._refused:
            options["stream_options"] = {"include_usage": True}
        pieces: list[str] = []
        choice = SimpleNamespace(message=SimpleNamespace(content=None, refusal=None), finish_reason="no end")
        whole = SimpleNamespace(id=None, usage=None, choices=[])
        async with await client.chat.completions.create(**request, **options) as stream:
            async for chunk in stream:
                whole.id = chunk.id or whole.id
                whole.usage = chunk.usage or whole.usage
                if not chunk.choices:
                    continue
                whole.choices = [choice]
                [delta, finish] = chunk.choices[0].delta, chunk.choices[0].finish_reason
                choice.finish_reason = finish or choice.finish_reason
                if refusal := getattr(delta, "refusal", None):
                    choice.message.refusal = (choice.message.refusal or "") + str(refusal)
                if delta is not None and delta.content:
                    pieces.append(delta.content)
                    said(delta.content)
        choice.message.content = "".join(pieces)
        return whole

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

    def _leave_out(self, exc: APIStatusError) -> None:
        """Remember the parameter that the server does not take; raises the error again if it is about another thing."""
        parameter = str(exc.param or "").partition(".")[0]
        if exc.status_code not in (400, 422) or parameter not in _INSTEAD or parameter in self._refused:
            raise exc
        self._refused.add(parameter)


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
