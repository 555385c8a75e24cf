"""Gemini as a `TextModel`, through Google's SDK."""

from __future__ import annotations

from pydantic import BaseModel

from agents.llm.gemini_client import GeminiClient, text_of, usage_of
from agents.llm.protocols import Said, TextAnswer, TextPrompt, ref_of

#: Seconds for one call, whose answer may have thousands of tokens.
TIMEOUT_S = 120.0


class GeminiTexts:
    """A `TextModel`."""

    def __init__(self, api_key: str, model: str, base_url: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        """`base_url` replaces Google's. Nothing is imported or connected before the first call."""
        self.name = f"gemini/{model}"
        self._client = GeminiClient(api_key, model, base_url, timeout_s=timeout_s)

    async def prepare(self) -> None:
        """Import the SDK, which takes over a second and would delay the first events of a worker."""
        await self._client.opened()

    async def answer(self, prompt: TextPrompt[BaseModel], said: Said | None = None) -> TextAnswer:
        """See `TextModel`."""
        await self._client.opened()
        from google.genai import types

        config = types.GenerateContentConfig(
            system_instruction=prompt.instructions,
            response_mime_type="application/json",
            # Not `response_schema`, which knows neither `additionalProperties` nor references.
            response_json_schema=prompt.schema.model_json_schema(),
            temperature=prompt.temperature,
            max_output_tokens=prompt.max_tokens,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )
        if said is not None:
            answer = await self._client.stream(prompt.content, config, said)
        else:
            answer = await self._client.generate(prompt.content, config)
        text, fault = text_of(answer)
        if text is None and fault is None:
            fault = "the answer is empty"
        return TextAnswer(text, fault, usage_of(answer), answer.response_id or ref_of(prompt.content))

    async def check(self) -> None:
        """Request the model's description, which is not billed."""
        await self._client.check()

    async def close(self) -> None:
        """See `TextModel`."""
        await self._client.close()
