"""Recognizers that answer by script, without reading the audio: the double of the real ones, for tests and benchmarks.

Without a URL, they answer at once. With a URL, they use a small protocol of a test server that counts charges and can
be made to fail and to lose answers (`tests/servers/scripted.py`):

    POST /requests {marker, provider, tenant_id, job_id, run, language, duration_ms} -> 201 {id}
    GET  /requests?marker=...                                                       -> 200 [{id, marker}]
    GET  /requests?provider=...&since=(Unix time)                                   -> 200 [{id, marker}]
    GET  /requests/{id} -> 200 {status: "pending", seconds} | {status: "done", hypothesis} | {status: "error", message}

After 429 and 5xx (both with Retry-After) the client may try again; any other 4xx is final. The server accepts a request
within `ACCEPTS_S` or not at all, and lists it within `LISTS_S` after that.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from agents.asr.protocols import Audio, Listed, Pending, Request
from schemas.calls.retry_after import seconds_of
from schemas.errors import NotAccepted, ProviderError, RateLimited, Transient
from schemas.words import Hypothesis, Word, adapter

if TYPE_CHECKING:
    from datetime import datetime

    import aiohttp

#: Seconds for one call: below the 15 that a recognizer may take.
TIMEOUT_S = 8.0

#: Seconds within which a request whose answer was lost may still be accepted, and then until the list contains it.
ACCEPTS_S, LISTS_S = 35.0, 10.0

#: Seconds for which the list keeps a request, at least.
REMEMBERS_S = 30 * 86_400.0

#: The sentences of every recording; the job decides with which one it begins.
_SENTENCES = tuple(
    sentence.split()
    for sentence in (
        "Good morning, thank you for calling, how can I help you today?",
        "I would like to ask about the invoice that you sent me in March.",
        "Of course, could you please tell me the number of your account?",
        "It is four seven one nine, and my name is Dashwood.",
        "I can see two payments here, and the second one is still open.",
        "That cannot be right, because we paid all of it in April.",
        "Let me look into that and send you an answer this afternoon.",
        "Thank you very much for your help, and have a nice day.",
    )
)
#: Wrong words, which replace one word in twenty.
_WRONG_WORDS = ("the", "a", "and", "Dashboard", "fifteen", "they", "here", "not")
#: Milliseconds from word to word.
_PACE_MS = 350


class Scripted:
    """A scripted `RemoteRecognizer`. Two with different names disagree in about a tenth of their words."""

    def __init__(self, name: str, base_url: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        """Without `base_url`, every request is answered at once, without a server."""
        self.name = name
        self.settles_s, self.remembers_s = ACCEPTS_S + LISTS_S, REMEMBERS_S
        self._url = base_url.rstrip("/") if base_url else None
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def submit(self, request: Request, audio: Audio) -> str | Hypothesis:
        """See `RemoteRecognizer`; the audio is not read."""
        del audio
        if self._url is None:
            return hear(self.name, request.job_id, request.language, request.duration_ms)
        fields = asdict(request)
        names = ("marker", "tenant_id", "job_id", "run", "language", "duration_ms")
        body = {"provider": self.name} | {name: fields[name] for name in names}
        answer = await self._call("POST", "/requests", json=body)
        return str(_field(answer, "id"))

    async def find(self, request: Request, *, within_s: float = 0.0, proof: bool = True) -> str | None:
        """See `RemoteRecognizer`. Without a server there is nothing to find."""
        del within_s  # the server is asked each time
        if self._url is None:
            return None
        for _ in range(2 if proof else 1):
            answer = await self._call("GET", "/requests", params={"marker": request.marker})
            if not isinstance(answer, list):
                raise Transient(f"{self.name}: the list of requests is no list")
            if answer:
                return str(_field(answer[0], "id"))
        return None

    async def listed(self, since: datetime) -> list[Listed]:
        """See `RemoteRecognizer`."""
        if self._url is None:
            return []
        parameters = {"provider": self.name, "since": str(since.timestamp())}
        answer = await self._call("GET", "/requests", params=parameters)
        if not isinstance(answer, list):
            raise Transient(f"{self.name}: the list of requests is no list")
        return [Listed(str(_field(item, "id")), marker=str(_field(item, "marker"))) for item in answer]

    def recalls(self, listed: Listed, request: Request) -> bool | None:
        """See `RemoteRecognizer`."""
        return listed.marker == request.marker

    async def poll(self, provider_id: str) -> Pending | Hypothesis:
        """See `RemoteRecognizer`."""
        if self._url is None:
            raise ProviderError(f"{self.name}: there is no request {provider_id!r}")
        answer = await self._call("GET", f"/requests/{provider_id}")
        match _field(answer, "status"):
            case "done":
                return _hypothesis(_field(answer, "hypothesis"))
            case "error":
                raise ProviderError(f"{self.name} failed request {provider_id}: {_field(answer, 'message')}")
            case _:
                return Pending(float(_field(answer, "seconds")))

    async def close(self) -> None:
        """See `RemoteRecognizer`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _call(self, method: str, path: str, **arguments: Any) -> Any:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout_s))
        try:
            async with self._session.request(method, f"{self._url}{path}", **arguments) as response:
                text = await response.text()
        except aiohttp.ClientConnectorError as exc:
            raise NotAccepted(f"{self.name} cannot be reached for {method} {path} ({exc})") from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Transient(f"{self.name} does not answer {method} {path} ({type(exc).__name__}: {exc})") from exc
        self._check(response, text)
        try:
            return json.loads(text)
        except ValueError as exc:
            raise Transient(f"{self.name} answered {method} {path} with a body that is no JSON") from exc

    def _check(self, response: aiohttp.ClientResponse, text: str) -> None:
        message = f"{self.name} answered {response.status} to {response.method} {response.url.path}: {text[:200]}"
        if response.status == 429:
            raise RateLimited(message, retry_after=seconds_of(response.headers))
        if response.status >= 500 or response.status == 408:
            raise Transient(message, retry_after=seconds_of(response.headers))
        if response.status >= 400:
            raise ProviderError(message)


def _field(answer: Any, name: str) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise Transient(f"the scripted server's answer has no {name!r}")
    return answer[name]


def _hypothesis(value: Any) -> Hypothesis:
    try:
        hypothesis: Hypothesis = adapter(Hypothesis).validate_python(value)
    except ValueError as exc:
        raise Transient(f"the scripted server's answer is no transcript: {exc}") from exc
    return hypothesis


def hear(name: str, job_id: str, language: str = "auto", duration_ms: int | None = None) -> Hypothesis:
    """The hypothesis of the recognizer with that name for a job, always the same: about a hundred words."""
    words = _words(name, zlib.crc32(job_id.encode()) % len(_SENTENCES))
    return Hypothesis(
        provider=name,
        words=words,
        language="en" if language == "auto" else language,
        duration_ms=duration_ms or len(words) * _PACE_MS,
        confidence=0.9,
        model="script",
    )


@cache
def _words(name: str, first: int) -> tuple[Word, ...]:
    spoken = [word for sentence in (*_SENTENCES[first:], *_SENTENCES[:first]) for word in sentence]
    words = []
    for index, right in enumerate(spoken):
        chance = zlib.crc32(f"{name}/{first}/{index}".encode())
        wrong = chance % 20 == 0
        text = _WRONG_WORDS[chance // 20 % len(_WRONG_WORDS)] if wrong else right
        start = index * _PACE_MS
        words.append(Word(text, start, start + _PACE_MS - 50, 0.6 if wrong else 0.92))
    return tuple(words)
