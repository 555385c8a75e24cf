"""Any server with OpenAI's protocol for embeddings, through the official SDK: OpenAI, vLLM, Ollama, TEI, LiteLLM."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from agents.embeddings.protocols import Embedded, checked
from schemas.calls.retry_after import seconds_of
from schemas.errors import NotAccepted, ProviderError, RateLimited, Transient

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

#: Seconds for a call with a batch of passages, for one with a question, for which somebody waits, and to connect.
TIMEOUT_S, QUESTION_S, CONNECT_S = 30.0, 3.0, 5.0

URL: Final = "https://api.openai.com/v1"


class OpenAIEmbedder:
    """An `Embedder`."""

    provider = "openai"
    is_local = False

    def __init__(self, api_key: str | None, model: str, base_url: str | None = None) -> None:
        """`base_url` replaces OpenAI's and ends in its version, as in `https://host/v1`; servers of one's own may need
        no key. Nothing is imported or connected before the first call.
        """
        self.model = model
        self._key = api_key or "none"
        self._url = base_url or URL
        self._client: AsyncOpenAI | None = None

    async def passages(self, texts: Sequence[str]) -> Embedded:
        """See `Embedder`."""
        return await self._embed(list(texts), TIMEOUT_S)

    async def question(self, text: str) -> Embedded:
        """See `Embedder`."""
        return await self._embed([text], QUESTION_S)

    async def close(self) -> None:
        """See `Embedder`."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _embed(self, texts: list[str], timeout_s: float) -> Embedded:
        client = await self._opened()
        with self._errors_translated(timeout_s):
            async with asyncio.timeout(timeout_s):
                # As numbers: the SDK would ask for base64, which not every server has.
                answer = await client.embeddings.create(model=self.model, input=texts, encoding_format="float")
            ordered = sorted(answer.data, key=lambda one: one.index)
            vectors = checked([one.embedding for one in ordered], len(texts))
            used = getattr(answer.usage, "total_tokens", None)
        usage = {"requests": 1} | ({"total_tokens": used} if isinstance(used, int) and used >= 0 else {})
        ref = hashlib.sha256("\x00".join([self.model, *texts]).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return Embedded(vectors, usage, ref)

    async def _opened(self) -> AsyncOpenAI:
        """The SDK's client, made at the first call."""
        openai = await asyncio.to_thread(_sdk)  # in a thread: the first import takes over a second
        if self._client is None:
            timeout = openai.Timeout(TIMEOUT_S, connect=CONNECT_S)
            # No retries of the SDK's: it repeats a request whose answer is lost, and pays for both.
            self._client = openai.AsyncOpenAI(api_key=self._key, base_url=self._url, timeout=timeout, max_retries=0)
            # What the environment says to other programs.
            self._client.organization = self._client.project = None
        return self._client

    @contextlib.contextmanager
    def _errors_translated(self, timeout_s: float) -> Iterator[None]:
        """Raise our own errors for those of the SDK and its transport. None of them contains the API key."""
        import openai

        try:
            yield
        except openai.APIStatusError as exc:
            raise self._refusal(exc) from None
        except (TimeoutError, openai.APITimeoutError):
            raise Transient(f"the embedding model does not answer within {timeout_s:g} s") from None
        except openai.APIConnectionError as exc:
            kind = NotAccepted if "Connect" in type(exc.__cause__).__name__ else Transient
            raise kind(f"the embedding model cannot be reached ({self._safe(exc.__cause__ or exc)})") from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, KeyError, IndexError) as exc:
            # The SDK builds its models of a body without validating it.
            raise Transient(f"the embedding model's answer cannot be read ({type(exc).__name__})") from None

    def _refusal(self, exc: APIStatusError) -> Exception:
        message = f"the embedding model answers {exc.status_code}: {self._safe(exc)}"
        pause_s = seconds_of(exc.response.headers)
        if exc.status_code == 429:
            quota = exc.code == "insufficient_quota"
            return ProviderError(message) if quota else RateLimited(message, retry_after=pause_s)
        if exc.status_code in (408, 409) or exc.status_code >= 500:
            return Transient(message, retry_after=pause_s)
        return ProviderError(message)

    def _safe(self, exc: BaseException) -> str:
        """The error in one short line, without the API key, which a proxy may have echoed."""
        text = getattr(exc, "message", None) or str(exc) or type(exc).__name__
        return " ".join(str(text).replace(self._key, "...").split())[:200]


def _sdk() -> Any:
    import openai

    # What the client would import at its first call, in the event loop.
    import openai.resources.embeddings

    return openai
