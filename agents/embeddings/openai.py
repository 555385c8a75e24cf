"""Any server with OpenAI's protocol for embeddings, through the official SDK: OpenAI, vLLM, Ollama, TEI, LiteLLM."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from agents.embeddings.protocols import Embedded, checked
from agents.llm.openai_client import OpenAIClient

#: Seconds for a call with a batch of passages, for one with a question, for which somebody waits, and to connect.
TIMEOUT_S, QUESTION_S, CONNECT_S = 30.0, 3.0, 5.0


class OpenAIEmbedder:
    """An `Embedder`."""

    provider = "openai"
    is_local = False

    def __init__(self, api_key: str | None, model: str, base_url: str | None = None) -> None:
        """See `OpenAIClient`."""
        self.model = model
        self._client = OpenAIClient(
            api_key, base_url, what="the embedding model", timeout_s=TIMEOUT_S, connect_s=CONNECT_S
        )

    async def passages(self, texts: Sequence[str]) -> Embedded:
        """See `Embedder`."""
        return await self._embed(list(texts), TIMEOUT_S)

    async def question(self, text: str) -> Embedded:
        """See `Embedder`."""
        return await self._embed([text], QUESTION_S)

    async def close(self) -> None:
        """See `Embedder`."""
        await self._client.close()

    async def _embed(self, texts: list[str], timeout_s: float) -> Embedded:
        client = await self._client.opened()
        with self._client.errors_translated(timeout_s):
            async with asyncio.timeout(timeout_s):
                # As numbers: the SDK would ask for base64, which not every server has.
                answer = await client.embeddings.create(model=self.model, input=texts, encoding_format="float")
            ordered = sorted(answer.data, key=lambda one: one.index)
            vectors = checked([one.embedding for one in ordered], len(texts))
            used = getattr(answer.usage, "total_tokens", None)
        # A unit of its own: these tokens have another price, and are not those that budgets of language models count.
        usage = {"requests": 1} | ({"embedded_tokens": used} if isinstance(used, int) and used >= 0 else {})
        ref = hashlib.sha256("\x00".join([self.model, *texts]).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return Embedded(vectors, usage, ref)
