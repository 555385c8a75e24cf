"""Google's SDK for Gemini: its client, its errors as ours, and what its answers hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from schemas.calls.retry_after import seconds_of
from schemas.errors import NoAnswer, NotAccepted, ProviderError, RateLimited, Transient

if TYPE_CHECKING:
    import aiohttp
    from google.genai import Client
    from google.genai.errors import APIError
    from google.genai.types import Candidate, GenerateContentConfig, GenerateContentResponse


class GeminiClient:
    """Calls of one model, each made once and within `timeout_s`."""

    def __init__(self, api_key: str, model: str, base_url: str | None = None, *, timeout_s: float) -> None:
        """`base_url` replaces Google's. Nothing is imported or connected before the first call."""
        self._key = api_key
        self._model = model
        self._url = base_url
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._session: aiohttp.ClientSession | None = None

    async def generate(self, content: str, config: GenerateContentConfig) -> GenerateContentResponse:
        """The model's answer.

        Raises:
            RateLimited, Transient, ProviderError: As `agents.llm.protocols` has it.
        """
        client = await self.opened()
        with self._errors_translated():
            async with asyncio.timeout(self._timeout_s):
                return await client.aio.models.generate_content(model=self._model, contents=content, config=config)

    async def stream(
        self, content: str, config: GenerateContentConfig, said: Callable[[str], None]
    ) -> GenerateContentResponse:
        """The same, of which `said` gets the pieces of the text as they come. Raises as `generate` does."""
        client = await self.opened()
        with self._errors_translated():
            async with asyncio.timeout(self._timeout_s):
                answers = await client.aio.models.generate_content_stream(
                    model=self._model, contents=content, config=config
                )
                pieces: list[str] = []
                last = None
                async for last in answers:
                    if last.candidates and (piece := _joined_parts(last.candidates[0])):
                        pieces.append(piece)
                        said(piece)
                return _whole(last, "".join(pieces))

    async def check(self) -> None:
        """Request the model's description, which is not billed. Raises as `generate` does."""
        client = await self.opened()
        with self._errors_translated():
            async with asyncio.timeout(self._timeout_s):
                await client.aio.models.get(model=self._model)

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        client, self._client = self._client, None
        session, self._session = self._session, None
        if client is not None:
            await client.aio.aclose()
            client.close()
        if session is not None:
            await session.close()

    async def opened(self) -> Client:
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
            raise NoAnswer(f"Gemini does not answer within {self._timeout_s:g} s") from None
        except aiohttp.ClientConnectorError as exc:
            raise NotAccepted(f"Gemini cannot be reached ({self._safe(exc)})") from None
        except (aiohttp.ClientError, OSError) as exc:
            raise NoAnswer(f"Gemini cannot be reached ({self._safe(exc)})") from None
        except (ValueError, TypeError, AttributeError, KeyError) as exc:
            # The SDK reads a body's fields without validating its shape first.
            raise Transient(f"Gemini's answer cannot be read ({type(exc).__name__})") from None

    def _refusal(self, exc: APIError) -> Exception:
        message = f"Gemini answers {exc.code}: {self._safe(exc)}"
        if exc.code == 429:
            return RateLimited(message, retry_after=_pause_s(exc))
        if exc.code == 503:
            return NotAccepted(message, retry_after=_pause_s(exc))
        if exc.code == 408 or exc.code >= 500:
            return NoAnswer(message, retry_after=_pause_s(exc))
        return ProviderError(message)

    def _safe(self, exc: Exception) -> str:
        """The error in one short line, without the API key, which a proxy may have echoed."""
        text = getattr(exc, "message", None) or str(exc) or type(exc).__name__
        return " ".join(str(text).replace(self._key, "...").split())[:200]


def _whole(last: GenerateContentResponse | None, text: str) -> GenerateContentResponse:
    """The last part of a stream, which has the end and the counts, with the whole text."""
    from google.genai import types

    if last is None:
        return types.GenerateContentResponse()
    if last.candidates:
        last.candidates[0].content = types.Content(role="model", parts=[types.Part(text=text)] if text else [])
    return last


def text_of(answer: GenerateContentResponse) -> tuple[str | None, str | None]:
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


def usage_of(answer: GenerateContentResponse) -> dict[str, int]:
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


def _sdk() -> tuple[Any, Any]:
    from google import genai
    from google.genai import types

    return genai, types
