"""AssemblyAI through its own async SDK: the audio gets a URL first, the one call that bills is made once under that
URL, and every poll is one look.

The SDK sends the requests and judges their status; answers are read from their JSON, not from the SDK's models. Those
refuse a whole transcript for one word that is newer than they are (a model, a policy, a status, a fraction of a
second), and it would be a transcript that is paid for. Importing this file imports the SDK, which takes most of a
second: it is done when a recognizer is opened, and nowhere else.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from typing import Annotated, Any, Final, TypeVar, cast
from urllib.parse import quote, unquote, urlsplit

import assemblyai as aai
import httpx
from assemblyai.prerecorded.v2 import async_api
from assemblyai.types import TranscriptRequest
from pydantic import BaseModel, Field, ValidationError

from agents.asr.protocols import Audio, Listed, Pending, Request
from agents.asr.request_list import SKEW, RequestList, is_older
from schemas.errors import NotAccepted, ProviderError, RateLimited, SettingsError, Transient
from schemas.retry_after import seconds_of
from schemas.words import Hypothesis, Word

#: Seconds for one call that is no upload, and for all pages of a search together: below the 15 that a call may take.
TIMEOUT_S: Final = 10.0

#: Seconds for which an upload may stand still, and that it may take in all (2.2 GB, the vendor's limit, at 10 Mbit/s).
STALL_S, UPLOAD_S = 60.0, 1800.0

#: Seconds until the next look at a request that waits for its turn, and at one that is being worked on. The vendor
#: allows 66 requests a second and works on 200 recordings at once.
QUEUED_S, WORKING_S = 15.0, 5.0

#: The same where the vendor calls back when it is done: a call can be lost.
CALLED_S = 60.0

#: Transcripts on a page of the list; the vendor's most.
PAGE: Final = 200

#: Seconds within which a submission may still be accepted after we lost sight of it, and until the list has it after
#: that. The vendor documents neither; a minute is the longest that gateways in front of such APIs usually wait.
ACCEPTS_S, LISTS_S = 60.0, 15.0

#: Seconds for which the vendor lists what was asked (documented: 90 days).
REMEMBERS_S: Final = 89 * 86_400.0

#: Milliseconds for which the system tries to deliver what was sent over a broken network, also after we have given up.
#: Without a limit it goes on for minutes: longer than a submission is thought to be able to arrive.
DELIVERY_MS: Final = 20_000

#: The vendor's error for a recording in which nobody speaks, if it was to detect the language. That is an answer.
SILENT: Final = "no spoken audio"

#: What identifies a person or gives access to what is theirs. Dates, amounts, places and organizations stay: a call is
#: of no use without them.
POLICIES: Final = tuple(
    "account_number banking_information credit_card_cvv credit_card_expiration credit_card_number date_of_birth "
    "drivers_license email_address healthcare_number ip_address location_address location_address_street "
    "location_coordinate passport_number password person_name phone_number us_social_security_number username "
    "vehicle_id".split()
)

#: The vendor's codes for regions, by BCP 47; of every other language only its first part is sent.
_REGIONS: Final = {"en-us": "en_us", "en-gb": "en_uk", "en-au": "en_au", "de-ch": "de_ch"}
_TAGS: Final = {"en_us": "en-US", "en_uk": "en-GB", "en_au": "en-AU", "de_ch": "de-CH"}

_NEVER: Final = datetime(2000, 1, 1, tzinfo=UTC)

#: The responses that the call running in this context got; the SDK's own `last_response` is shared by all calls.
_answers: ContextVar[list[httpx.Response] | None] = ContextVar("answers", default=None)

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Said(BaseModel):
    """A word of an answer, as far as it matters."""

    text: str
    start: Finite | None = None
    end: Finite | None = None
    confidence: Finite | None = None
    speaker: str | None = None
    channel: str | int | None = None


class _Transcript(BaseModel):
    """A transcript of an answer, done or not, as far as it matters."""

    status: str
    error: str | None = None
    words: list[_Said] | None = None
    confidence: Finite | None = None
    audio_duration: Finite | None = None
    language_code: str | None = None
    language_confidence: Finite | None = None
    speech_model_used: str | None = None
    speech_model: str | None = None


class _Named(BaseModel):
    id: Annotated[str, Field(min_length=1)]


class _Uploaded(BaseModel):
    upload_url: Annotated[str, Field(pattern="^https?://")]


class _Item(_Named):
    audio_url: str | None = None
    created: datetime | None = None


class _Page(BaseModel):
    transcripts: list[_Item]


_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Callback:
    """Where the vendor is to call when a transcript is done, and what it is to show there."""

    url: str
    header: str
    token: str = field(repr=False)


class AssemblyAI:
    """An `UploadingRecognizer`."""

    def __init__(
        self,
        name: str,
        key: str,
        base_url: str | None = None,
        *,
        callback: Callback | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Raises SettingsError for a key that cannot be one; the network is not touched."""
        if not key.isascii() or not key.isprintable() or " " in key or not key:
            raise SettingsError("ASSEMBLYAI_API_KEY must be printable ASCII without spaces")
        self.name = name
        self.settles_s, self.remembers_s = ACCEPTS_S + LISTS_S, REMEMBERS_S
        self._list = RequestList(name, self._listed, lag=timedelta(seconds=LISTS_S))
        self._key = key
        self._callback = callback
        self._timeout_s = timeout_s
        settings = aai.Settings(api_key=key, http_timeout=timeout_s)
        settings.base_url = (base_url or "https://api.assemblyai.com").rstrip("/")
        self._settings = settings
        self._calls = _client(settings)
        self._calls.http_client.event_hooks["request"].append(_bound)
        # Of their own: an upload may be silent for longer, and must not keep the others' connections.
        self._uploads = _client(settings.model_copy(update={"http_timeout": max(STALL_S, timeout_s)}))

    def __repr__(self) -> str:
        return f"AssemblyAI({self.name!r})"

    async def upload(self, request: Request, audio: Audio) -> str:
        """See `UploadingRecognizer`: a link to our own storage if the vendor can follow it, else a copy there."""
        link = await audio.url()
        if link is not None and self._follows(link):
            return link
        pieces = cast("AsyncGenerator[bytes, None]", audio.stream())
        async with aclosing(pieces):
            call = partial(async_api.upload_file, audio_file=pieces, headers={"Content-Type": request.content_type})
            answer = await self._call("an upload", call, self._uploads, UPLOAD_S)
        try:
            return _Uploaded.model_validate(answer).upload_url
        except ValidationError as exc:
            raise Transient(f"{self.name} answered an upload without its URL") from exc

    async def submit(self, request: Request, audio: Audio) -> str:
        """See `RemoteRecognizer`; the only call that bills. The audio is where `request.audio_url` says."""
        del audio
        if request.audio_url is None:
            raise ValueError("the audio must be uploaded, and its URL kept, before it is submitted")
        wish = TranscriptRequest(audio_url=request.audio_url, **self._options(request))
        answer = await self._call("a submission", partial(async_api.create_transcript, request=wish))
        try:
            return _Named.model_validate(answer).id
        except ValidationError as exc:
            # Perhaps it is accepted: whoever tries again looks for it first.
            raise Transient(f"{self.name} answered a submission without an id") from exc

    async def find(self, request: Request, *, within_s: float = 0.0, proof: bool = True) -> str | None:
        """See `RemoteRecognizer`: goes back in the list of all transcripts to where this one's URL was not yet made."""
        url, since = request.audio_url, request.since or _NEVER
        if url is None:
            return None

        def is_this(item: Listed) -> bool:
            bare = not is_older(item, since - SKEW)
            return any(echoed == url or (bare and _is_bare(echoed, url)) for echoed in item.urls or ())

        return await self._list.find(is_this, since, within_s=within_s, proof=proof)

    async def listed(self, since: datetime) -> list[Listed]:
        """See `RemoteRecognizer`."""
        return await self._list.all(since)

    def recalls(self, listed: Listed, request: Request) -> bool | None:
        """See `RemoteRecognizer`. A link to our storage names the recording; the URL of an upload is the vendor's, and
        tells nothing to whoever has lost it.
        """
        url = request.audio_url
        if listed.urls is None or url is None:
            return None
        if any(_path(echoed) == _path(url) for echoed in listed.urls):
            return True
        return None if _is_upload(url) and any(map(_is_upload, listed.urls)) else False

    async def _listed(self, since: datetime) -> list[Listed]:
        """All transcripts since then, and some older ones."""
        page = await self._page(None)
        listed = {item.id: item for item in page}
        while page and not all(is_older(item, since) for item in page):
            page = await self._following(page)
            if page and listed.keys() >= {item.id for item in page}:
                raise Transient(f"{self.name}: the list of transcripts does not go on")
            listed |= {item.id: item for item in page}
        return list(listed.values())

    async def _following(self, page: list[Listed]) -> list[Listed]:
        """The next page; it begins with the end of this one. If it did not, the list would have moved, or the vendor
        would have forgotten where we were, and what looks like the end would be none.
        """
        if len(page) > 1:
            following = await self._page(page[-2].id)
            if page[-1].id not in [item.id for item in following]:
                raise Transient(f"{self.name}: the list of transcripts does not go on where it was")
            if len(following) > 1:
                return following
        return await self._page(page[-1].id)

    async def _page(self, before: str | None) -> list[Listed]:
        wanted = aai.ListTranscriptParameters(limit=PAGE, before_id=before)
        answer = await self._call("the list of transcripts", partial(async_api.list_transcripts, params=wanted))
        items = self._read(_Page, answer, "the list of transcripts").transcripts
        return list({item.id: _listed(item) for item in items}.values())

    async def poll(self, provider_id: str) -> Pending | Hypothesis:
        """See `RemoteRecognizer`."""
        call = partial(async_api.get_transcript, transcript_id=quote(provider_id, safe=""))
        found = self._read(_Transcript, await self._call("a poll", call), "a poll")
        match found.status:
            case "completed":
                return self._hypothesis(found)
            case "error" if SILENT in (found.error or ""):
                return self._hypothesis(found.model_copy(update={"words": None}))
            case "error":
                raise ProviderError(f"{self.name} could not transcribe it: {self._clean(found.error or 'no reason')}")
            case _ if self._callback is not None:
                return Pending(CALLED_S)
            case "processing":
                return Pending(WORKING_S)
            case _:  # queued, or a word that we do not know: it has not ended
                return Pending(QUEUED_S)

    async def check(self) -> None:
        """See `Checked`."""
        wanted = aai.ListTranscriptParameters(limit=1)
        await self._call("a look at its list", partial(async_api.list_transcripts, params=wanted))

    async def close(self) -> None:
        """See `RemoteRecognizer`."""
        await self._list.close()
        await self._calls.aclose()
        await self._uploads.aclose()

    def _options(self, request: Request) -> dict[str, Any]:
        options: dict[str, Any] = {"speaker_labels": True} if request.diarize else {}
        if request.language == "auto":
            options["language_detection"] = True
        else:
            tag = request.language.lower()
            options["language_code"] = _REGIONS.get(tag) or tag.partition("-")[0]
        if request.vocabulary:
            options["keyterms_prompt"] = list(request.vocabulary)
        if request.redact_pii:
            options |= {"redact_pii": True, "redact_pii_policies": POLICIES, "redact_pii_sub": "entity_name"}
        if self._callback is not None:
            options |= {
                "webhook_url": self._callback.url,
                "webhook_auth_header_name": self._callback.header,
                "webhook_auth_header_value": self._callback.token,
            }
        return options

    def _hypothesis(self, found: _Transcript) -> Hypothesis:
        words = sorted((_word(said) for said in found.words or () if said.text.strip()), key=_when)
        heard_ms = round(
            (found.audio_duration or 0) * 1000
        )  # whole seconds, rounded somehow: the last word may be later
        details = {} if found.language_confidence is None else {"language_confidence": found.language_confidence}
        return Hypothesis(
            provider=self.name,
            words=tuple(words),
            language=_tag(found.language_code),
            duration_ms=max(heard_ms, *(word.end_ms or 0 for word in words), 0) or None,
            confidence=_share(found.confidence),
            model=found.speech_model_used or found.speech_model,
            details=details,
        )

    async def _call(
        self,
        what: str,
        call: Callable[[httpx.AsyncClient], Awaitable[object]],
        client: aai.AsyncClient | None = None,
        seconds: float | None = None,
    ) -> object:
        """One request; the JSON that came back with a 200. All else is Transient, RateLimited or ProviderError."""
        answers: list[httpx.Response] = []
        before = _answers.set(answers)
        try:
            async with asyncio.timeout(seconds or self._timeout_s):
                await call((client or self._calls).http_client)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            where = urlsplit(self._settings.base_url).netloc.rpartition("@")[2]
            said = self._clean(str(exc) or type(exc).__name__)
            raise NotAccepted(f"{self.name} cannot be reached at {where} ({said})") from exc
        except (httpx.TimeoutException, TimeoutError) as exc:
            raise Transient(f"{self.name} does not answer {what} in time") from exc
        except (httpx.HTTPError, httpx.StreamError) as exc:
            raise Transient(f"{self.name} broke off {what} ({type(exc).__name__})") from exc
        except aai.types.AssemblyAIError:
            # Its message may hold the audio's URL, which opens the recording to whoever reads it.
            raise self._refusal(what, answers[-1]) from None
        except (ValueError, TypeError, KeyError, AttributeError):
            if not answers:
                raise
            # The SDK's models did not like the answer: see the module.
        finally:
            _answers.reset(before)
        try:
            return answers[-1].json()
        except ValueError:
            raise Transient(f"{self.name} answered {what} with what is no JSON") from None

    def _read(self, model: type[_Model], answer: object, what: str) -> _Model:
        try:
            return model.model_validate(answer)
        except ValidationError as exc:
            wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors(include_input=False)[:3]]
            said = f"{self.name} answered {what} with what we cannot read ({'; '.join(wrong)})"
            # Not an object at all: some gateway spoke, not the vendor.
            raise (ProviderError(said) if isinstance(answer, Mapping) else Transient(said)) from None

    def _refusal(self, what: str, response: httpx.Response) -> Exception:
        status, pause = (
            response.status_code,
            seconds_of(response.headers),
        )
        said = f"{self.name} answered {status} to {what}: {self._clean(_message(response))}"
        if status == 429:
            return RateLimited(said, retry_after=pause)
        if status >= 500 or status == 408 or status < 400:  # the SDK takes a 200 only; with others, much may be meant
            return Transient(said, retry_after=pause)
        if status in (401, 403):
            return ProviderError(f"{said} (the key in ASSEMBLYAI_API_KEY is refused)")
        return ProviderError(said)

    def _clean(self, text: str) -> str:
        """A vendor's message without what must not be read by many: signatures in URLs, our key."""
        return re.sub(r"\?[^\s\"'<>]*", "?...", text.replace(self._key, "..."))[:300]

    def _follows(self, link: str) -> bool:
        """Whether the vendor can fetch from there: a name or address of the wide world, or we speak with a stand-in."""
        if self._settings.base_url.startswith("http://"):
            return True
        parts = urlsplit(link)
        host = parts.hostname or ""
        try:
            return parts.scheme == "https" and ip_address(host).is_global
        except ValueError:
            return parts.scheme == "https" and "." in host and not host.endswith((".local", ".internal", ".localhost"))


def _client(settings: aai.Settings) -> aai.AsyncClient:
    client = aai.AsyncClient(settings=settings)
    client.http_client.event_hooks["response"].append(_keep)
    return client


async def _keep(response: httpx.Response) -> None:
    """Hand the response to the call that it answers; hooks run in that call's context."""
    answers = _answers.get()
    if answers is not None:
        answers.append(response)


def _is_upload(url: str) -> bool:
    """Whether it is a URL that the vendor has made."""
    parts = urlsplit(url)
    return parts.path.startswith("/upload/") and not parts.query


async def _bound(request: httpx.Request) -> None:
    """Limit how long the system tries to deliver the request; see `DELIVERY_MS`."""
    request.extensions["trace"] = _connecting


async def _connecting(event: str, info: Mapping[str, Any]) -> None:
    if event == "connection.connect_tcp.complete" and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux has it
        connection = info["return_value"].get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DELIVERY_MS)


def _message(response: httpx.Response) -> str:
    try:
        said = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return response.text[:1000]
    return str(said)


def _listed(item: _Item) -> Listed:
    created = None if item.created is None else _utc(item.created)
    return Listed(item.id, created, None if item.audio_url is None else frozenset([item.audio_url]))


def _is_bare(echoed: str, sent: str) -> bool:
    """Whether this is the URL that we sent, told without its query (the signature, which is a secret of a kind).

    All runs of a job share such a URL: it takes the time, too, to know one's own.
    """
    return "?" not in echoed and _path(echoed) == _path(sent)


def _path(url: str) -> str:
    """The URL without its query, in which a signature is."""
    return unquote(url.partition("?")[0])


def _utc(time: datetime) -> datetime:
    """The vendor's times have no zone; they are UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _word(said: _Said) -> Word:
    start = None if said.start is None else max(0, round(said.start))
    end = None if said.end is None else max(start or 0, round(said.end))
    channel = str(said.channel)
    return Word(
        text=said.text.strip(),
        start_ms=start,
        end_ms=end if end is not None or start is None else start,
        confidence=_share(said.confidence),
        speaker=said.speaker,
        channel=int(channel) if channel.isdecimal() and len(channel) < 4 else None,
    )


def _when(word: Word) -> int:
    return word.start_ms or 0


def _share(value: float | None) -> float | None:
    return None if value is None else min(max(value, 0.0), 1.0)


def _tag(code: str | None) -> str | None:
    """The vendor's language code as BCP 47."""
    if not code:
        return None
    first, _, region = code.replace("-", "_").partition("_")
    return _TAGS.get(code.lower()) or (f"{first.lower()}-{region.upper()}" if region else first.lower())
