"""OpenAI's SDK, for any server with its protocol: its client, and its errors as ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from schemas.calls.retry_after import seconds_of
from schemas.errors import NoAnswer, NotAccepted, ProviderError, RateLimited, Transient

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

URL: Final = "https://api.openai.com/v1"


class OpenAIClient:
    """A server's client; `what` names its model in errors."""

    def __init__(
        self, api_key: str | None, base_url: str | None = None, *, what: str, timeout_s: float, connect_s: float
    ) -> None:
        """`base_url` replaces OpenAI's and ends in its version, as in `https://host/v1`; servers of one's own may need
        no key. Nothing is imported or connected before the first call.
        """
        self.url = base_url or URL
        self._key = api_key or "none"
        self._what = what
        self._timeouts_s = timeout_s, connect_s
        self._client: AsyncOpenAI | None = None

    async def opened(self) -> AsyncOpenAI:
        """The SDK's client, made at the first call."""
        # In a thread: the first import takes over a second and would block the event loop.
        openai = await asyncio.to_thread(_sdk)
        if self._client is None:
            timeout_s, connect_s = self._timeouts_s
            timeout = openai.Timeout(timeout_s, connect=connect_s)
            # No retries of the SDK's: it repeats a request whose answer is lost, and pays for both.
            self._client = openai.AsyncOpenAI(api_key=self._key, base_url=self.url, timeout=timeout, max_retries=0)
            # What the environment says to other programs.
            self._client.organization = self._client.project = None
        return self._client

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @contextlib.contextmanager
    def errors_translated(self, timeout_s: float) -> Iterator[None]:
        """Raise our own errors for those of the SDK and its transport. None of them contains the API key."""
        import httpx
        import openai

        try:
            yield
        except openai.APIStatusError as exc:
            raise self._refusal(exc) from None
        except (TimeoutError, openai.APITimeoutError):
            raise NoAnswer(f"{self._what} does not answer within {timeout_s:g} s") from None
        except openai.APIConnectionError as exc:
            is_connected = "Connect" not in type(exc.__cause__).__name__
            kind = NoAnswer if is_connected else NotAccepted
            raise kind(f"{self._what}'s server cannot be reached ({self._safe(exc.__cause__ or exc)})") from None
        except httpx.HTTPError as exc:  # in the middle of a stream
            raise NoAnswer(f"{self._what}'s answer broke off ({type(exc).__name__})") from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, KeyError, IndexError) as exc:
            # The SDK builds its models of a body without validating it.
            raise Transient(f"{self._what}'s answer cannot be read ({type(exc).__name__})") from None

    def _refusal(self, exc: APIStatusError) -> Exception:
        message = f"{self._what}'s server answers {exc.status_code}: {self._safe(exc)}"
        pause_s = seconds_of(exc.response.headers)
        if exc.status_code == 429:
            if exc.code == "insufficient_quota":
                return ProviderError(message)
            return RateLimited(message, retry_after=pause_s)
        if exc.status_code == 503:
            return NotAccepted(message, retry_after=pause_s)
        if exc.status_code in (408, 409) or exc.status_code >= 500:
            return NoAnswer(message, retry_after=pause_s)
        return ProviderError(message)

    def _safe(self, exc: BaseException) -> str:
        """The error in one short line, without the API key, which a proxy may have echoed."""
        text = getattr(exc, "message", None) or str(exc) or type(exc).__name__
        return " ".join(str(text).replace(self._key, "...").split())[:200]


def _sdk() -> Any:
    import openai

    # What the client would import at its first call, in the event loop.
    import openai.resources.chat.completions
    import openai.resources.embeddings
    import openai.resources.models

    return openai
