"""AssemblyAI as an `UploadingRecognizer`: the audio gets a URL, one submission that bills refers to it, polls follow.

A submission whose answer was lost is found again in the vendor's list of transcripts by the audio's URL.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

import assemblyai as aai
from assemblyai.prerecorded.v2 import async_api
from assemblyai.types import TranscriptRequest
from pydantic import ValidationError

from agents.asr.assemblyai.answers import (
    Created,
    Page,
    Transcript,
    Upload,
    hypothesis,
    is_sent_url_without_query,
    is_upload,
    listed_requests,
    parse,
    path_of,
)
from agents.asr.assemblyai.client import TIMEOUT_S, Client, Rejected
from agents.asr.protocols import Audio, Listed, Pending, Request
from agents.asr.request_list import SKEW, RequestList, is_older
from schemas.errors import ProviderError, Transient
from schemas.words import Hypothesis

#: Seconds until the next poll of a request that is queued, and of one that is processed. The vendor allows 66 requests
#: a second and processes 200 recordings at once.
QUEUED_S, WORKING_S = 15.0, 5.0

#: Seconds until the next poll if the vendor calls a webhook on completion: that call can be lost.
CALLED_S = 60.0

#: Transcripts on a page of the list; the vendor's maximum.
PAGE: Final = 200

#: Seconds within which a submission whose answer was lost may still be accepted, and then until the list contains it.
#: The vendor documents neither; a minute is the longest that gateways in front of such APIs usually wait.
ACCEPTS_S, LISTS_S = 60.0, 15.0

#: Seconds for which the vendor lists a transcript (documented: 90 days).
REMEMBERS_S: Final = 89 * 86_400.0

#: The vendor's error for a recording without speech whose language was to be detected. Counts as an empty transcript.
SILENT: Final = "no spoken audio"

#: What the vendor shows as the audio of a transcript that is deleted.
DELETED_URL: Final = "http://deleted_by_user"

#: What is redacted: data that identify a person or give access to what is theirs. Dates, amounts, places and
#: organizations are kept, because a call is of no use without them.
POLICIES: Final = tuple(
    "account_number banking_information credit_card_cvv credit_card_expiration credit_card_number date_of_birth "
    "drivers_license email_address healthcare_number ip_address location_address location_address_street "
    "location_coordinate passport_number password person_name phone_number us_social_security_number username "
    "vehicle_id".split()
)

#: The vendor's codes for regions, by BCP 47; of every other language only its first subtag is sent.
_REGIONS: Final = {"en-us": "en_us", "en-gb": "en_uk", "en-au": "en_au", "de-ch": "de_ch"}

#: Before any request of ours.
_NEVER: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Callback:
    """A webhook that the vendor calls when a transcript is completed, with a token in a header."""

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
        """Nothing is sent yet.

        Raises:
            SettingsError: The key cannot be one.
        """
        self.name = name
        self.settles_s, self.remembers_s = ACCEPTS_S + LISTS_S, REMEMBERS_S
        self._client = Client(name, key, base_url, timeout_s)
        self._list = RequestList(name, self._listed, lag=timedelta(seconds=LISTS_S))
        self._callback = callback

    def __repr__(self) -> str:
        return f"AssemblyAI({self.name!r})"

    async def upload(self, request: Request, audio: Audio) -> str:
        """See `UploadingRecognizer`: the URL in our own storage if the vendor can fetch it, else that of an upload."""
        url = await audio.url()
        if url is not None and self._follows(url):
            return url
        content = cast("AsyncGenerator[bytes, None]", audio.stream())
        async with aclosing(content):
            headers = {"Content-Type": request.content_type}
            answer = await self._client.upload(partial(async_api.upload_file, audio_file=content, headers=headers))
        try:
            return Upload.model_validate(answer).upload_url
        except ValidationError as exc:
            raise Transient(f"{self.name} answered an upload without its URL") from exc

    async def submit(self, request: Request, audio: Audio) -> str:
        """See `RemoteRecognizer`; the only call that bills. The vendor fetches the audio from `request.audio_url`.

        Raises:
            ValueError: There is no `request.audio_url`: the audio was not uploaded first.
        """
        del audio
        if request.audio_url is None:
            raise ValueError("the audio must be uploaded, and its URL kept, before it is submitted")
        order = TranscriptRequest(audio_url=request.audio_url, **self._options(request))
        answer = await self._client.call("a submission", partial(async_api.create_transcript, request=order))
        try:
            return Created.model_validate(answer).id
        except ValidationError as exc:
            # The request may be accepted. Before it is submitted again, the caller looks for it in the list.
            raise Transient(f"{self.name} answered a submission without an id") from exc

    async def find(self, request: Request, *, within_s: float = 0.0, proof: bool = True) -> str | None:
        """See `RemoteRecognizer`: searches the list of transcripts, back to the time at which the URL was made."""
        url, since = request.audio_url, request.since or _NEVER
        if url is None:
            return None

        def matches(item: Listed) -> bool:
            recent = not is_older(item, since - SKEW)
            return any(
                listed == url or (recent and is_sent_url_without_query(listed, url)) for listed in item.urls or ()
            )

        return await self._list.find(matches, since, within_s=within_s, proof=proof)

    async def listed(self, since: datetime) -> list[Listed]:
        """See `RemoteRecognizer`."""
        return await self._list.all(since)

    def recalls(self, listed: Listed, request: Request) -> bool | None:
        """See `RemoteRecognizer`. A URL in our storage names the recording. The URL of an upload is made by the vendor:
        once its row is lost, nothing connects it with the recording.
        """
        url = request.audio_url
        if listed.urls is None or url is None:
            return None
        if any(path_of(other) == path_of(url) for other in listed.urls):
            return True
        return None if is_upload(url) and any(map(is_upload, listed.urls)) else False

    async def poll(self, provider_id: str) -> Pending | Hypothesis:
        """See `RemoteRecognizer`."""
        call = partial(async_api.get_transcript, transcript_id=quote(provider_id, safe=""))
        answer = await self._client.call("a poll", call)
        transcript = parse(Transcript, answer, self.name, "a poll")
        match transcript.status:
            case "completed":
                return hypothesis(transcript, self.name)
            case "error" if SILENT in (transcript.error or ""):
                return hypothesis(transcript.model_copy(update={"words": None}), self.name)
            case "error":
                reason = self._client.without_secrets(transcript.error or "no reason")
                raise ProviderError(f"{self.name} could not transcribe it: {reason}")
            case _ if self._callback is not None:
                return Pending(CALLED_S)
            case "processing":
                return Pending(WORKING_S)
            case _:  # "queued", or a status that is newer than this code: the transcript is not completed
                return Pending(QUEUED_S)

    async def erase(self, provider_id: str | None, audio_url: str | None) -> str | None:
        """See `ErasingRecognizer`. With a transcript, the vendor deletes what was uploaded for it.

        What the vendor refuses to delete is looked at: it has no such transcript any more, or is still working on it.
        """
        if provider_id is None:
            is_uploaded = audio_url is not None and is_upload(audio_url)
            return "an upload that no request has used; the vendor deletes it after a day" if is_uploaded else None
        transcript_id = quote(provider_id, safe="")
        try:
            await self._client.call("a deletion", partial(async_api.delete_transcript, transcript_id=transcript_id))
        except Rejected as refusal:
            if await self._has(transcript_id):
                raise Transient(str(refusal)) from refusal
        return None

    async def _has(self, transcript_id: str) -> bool:
        """Whether the vendor has this transcript, with its content."""
        try:
            call = partial(async_api.get_transcript, transcript_id=transcript_id)
            answer = await self._client.call("a look at what was deleted", call)
        except Rejected:
            return False
        return not (isinstance(answer, dict) and answer.get("audio_url") == DELETED_URL)

    async def check(self) -> None:
        """See `Checked`."""
        first = aai.ListTranscriptParameters(limit=1)
        await self._client.call("a look at its list", partial(async_api.list_transcripts, params=first))

    async def close(self) -> None:
        """See `RemoteRecognizer`."""
        await self._list.close()
        await self._client.close()

    async def _listed(self, since: datetime) -> list[Listed]:
        """All transcripts that were created since that time, and some older ones."""
        page = await self._page(None)
        listed = {item.id: item for item in page}
        while page and not all(is_older(item, since) for item in page):
            page = await self._page_after(page)
            if page and listed.keys() >= {item.id for item in page}:
                raise Transient(f"{self.name}: the list of transcripts does not go on")
            listed |= {item.id: item for item in page}
        return list(listed.values())

    async def _page_after(self, page: list[Listed]) -> list[Listed]:
        """The next page, read so that it overlaps with the last item of this one.

        Without the overlap the list has changed, or the vendor has lost the position, and an empty page would not
        prove that the list ends.
        """
        if len(page) > 1:
            following = await self._page(page[-2].id)
            if page[-1].id not in [item.id for item in following]:
                raise Transient(f"{self.name}: the list of transcripts does not go on where it was")
            if len(following) > 1:
                return following
        return await self._page(page[-1].id)

    async def _page(self, before: str | None) -> list[Listed]:
        """The page of transcripts that were created before the one with this id; the newest without an id."""
        parameters = aai.ListTranscriptParameters(limit=PAGE, before_id=before)
        operation = "the list of transcripts"
        answer = await self._client.call(operation, partial(async_api.list_transcripts, params=parameters))
        return listed_requests(parse(Page, answer, self.name, operation))

    def _options(self, request: Request) -> dict[str, Any]:
        options: dict[str, Any] = {"speaker_labels": True} if request.diarize else {}
        if request.diarize and request.speakers is not None:
            options["speakers_expected"] = request.speakers
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

    def _follows(self, url: str) -> bool:
        """Whether the vendor can fetch this URL: HTTPS at a public name or address. A local test server always can."""
        if self._client.base_url.startswith("http://"):
            return True
        parts = urlsplit(url)
        host = parts.hostname or ""
        try:
            return parts.scheme == "https" and ip_address(host).is_global
        except ValueError:
            return parts.scheme == "https" and "." in host and not host.endswith((".local", ".internal", ".localhost"))
