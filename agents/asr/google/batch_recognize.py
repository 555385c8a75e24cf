"""Google Cloud Speech v2 by `BatchRecognize`: the whole recording lies in a bucket of ours, one call asks for it, and
the operation that this makes is looked at until it is done.

What it promises about money: one charge a recording and run. The object's URI is unique and kept before it is asked
about; an operation tells which URIs it is about, and all operations of a location can be listed. So a call whose answer
was lost is found again, if it is accepted and listed within `settles_s`: how soon it is, the vendor does not document.
Where the list cannot be had, or does not say what its operations are about, nothing is asked a second time.

The recording goes up as FLAC, 16 kHz, mono, whatever it was: Google detects few formats, bills every channel, and times
then mean the same as in the store. An object is deleted when its operation has ended. One stays behind when a worker
dies before it has kept the URI, when a run ends first, or when deleting fails: the bucket needs a lifecycle rule that
deletes what is two days old.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from agents.asr.google.speech import Speech, read
from agents.asr.google.storage import Bucket
from agents.asr.protocols import Audio, Listed, Pending, Request
from agents.asr.request_list import RequestList
from agents.media.transcode import Transcoder
from schemas.errors import ProviderError, Transient, Unavailable
from schemas.words import Hypothesis

if TYPE_CHECKING:
    from google.cloud.speech_v2 import SpeechAsyncClient
    from google.longrunning.operations_pb2 import Operation  # type: ignore[import-untyped]

log = logging.getLogger(__name__)

#: Seconds for one call that is no upload, and for all pages of a search together: below the 15 that a call may take.
TIMEOUT_S: Final = 10.0

#: Seconds for deleting an object, which nobody should wait for.
DELETE_S: Final = 3.0

#: Milliseconds of sound in one file; the vendor's limit.
LONGEST_MS: Final = 8 * 3_600_000

#: Recordings that are on their way up at once: each is on the disk meanwhile.
UPLOADS: Final = 4

#: Seconds until the next look: a tenth of the operation's age between these. The vendor counts looks against a quota.
SOONEST_S, LATEST_S = 3.0, 60.0

#: Operations on a page of the list.
PAGE: Final = 100

#: What is to be told of each, or it would bring its whole transcript with it: a header that Google's APIs share.
#: https://cloud.google.com/apis/docs/system-parameters
NO_TRANSCRIPTS: Final = (("x-goog-fieldmask", "operations.name,operations.metadata,next_page_token"),)

#: Seconds within which a request may still be accepted after we lost sight of it, and until the list has it after that;
#: neither is documented.
ACCEPTS_S, LISTS_S = 60.0, 15.0

#: Seconds for which an operation is listed at least. Not documented either: days, by what users report.
REMEMBERS_S: Final = 86_400.0

_NEVER: Final = datetime(2000, 1, 1, tzinfo=UTC)


class GoogleBatch:
    """An `UploadingRecognizer`."""

    def __init__(self, speech: Speech, bucket: Bucket, *, timeout_s: float = TIMEOUT_S) -> None:
        self.name = speech.name
        self.settles_s, self.remembers_s = ACCEPTS_S + LISTS_S, REMEMBERS_S
        self._list = RequestList(self.name, self._listed, lag=timedelta(seconds=LISTS_S))
        self._speech, self._bucket = speech, bucket
        self._timeout_s = timeout_s
        self._transcoder = Transcoder()
        self._room = asyncio.Semaphore(UPLOADS)

    async def upload(self, request: Request, audio: Audio) -> str:
        """See `UploadingRecognizer`: a copy in the bucket, by its gs:// URI."""
        if (request.duration_ms or 0) > LONGEST_MS:
            raise ProviderError(f"{self.name} takes 8 hours at most; without GOOGLE_CLOUD_BUCKET it goes in pieces")
        try:
            async with self._room:
                with TemporaryDirectory(prefix="concord-") as folder:
                    return await self._uploaded(request, audio, Path(folder))
        except OSError as exc:
            raise Unavailable(f"no room for a recording on its way to {self.name} ({exc.strerror})") from exc

    async def submit(self, request: Request, audio: Audio) -> str:
        """See `RemoteRecognizer`; the only call that bills. The audio is where `request.audio_url` says."""
        del audio
        if request.audio_url is None:
            raise ValueError("the audio must be uploaded, and its URI kept, before it is submitted")
        await self._speech.connected(self._timeout_s / 2)
        from google.cloud import speech_v2 as v2

        wish = v2.BatchRecognizeRequest(
            recognizer=self._speech.recognizer,
            config=self._speech.config(request.language, diarize=request.diarize),
            files=[v2.BatchRecognizeFileMetadata(uri=request.audio_url)],
            recognition_output_config=v2.RecognitionOutputConfig(inline_response_config=v2.InlineOutputConfig()),
        )

        async def ask(client: SpeechAsyncClient) -> str:
            try:
                answer = await client.batch_recognize(request=wish, retry=None, timeout=self._timeout_s)
                return str(answer.operation.name)
            except AttributeError:  # how the SDK takes it that gRPC could not read the answer
                return ""

        name = await self._speech.call(ask, self._timeout_s)
        if not name:
            # Perhaps it is accepted: whoever tries again looks for it first.
            raise Transient(f"{self.name} answered a submission without an operation's name")
        return name

    async def find(self, request: Request, *, within_s: float = 0.0, proof: bool = True) -> str | None:
        """See `RemoteRecognizer`: looks through all operations. The vendor documents no order of the list, so it is
        read to the end.
        """
        uri, since = request.audio_url, request.since or _NEVER
        if uri is None:
            return None
        return await self._list.find(lambda item: uri in (item.urls or ()), since, within_s=within_s, proof=proof)

    async def listed(self, since: datetime) -> list[Listed]:
        """See `RemoteRecognizer`."""
        return await self._list.all(since)

    def recalls(self, listed: Listed, request: Request) -> bool | None:
        """See `RemoteRecognizer`: the marker is in the URI."""
        if listed.urls is None:
            return None
        return any(f"/{quote(request.marker, safe='')}/" in uri for uri in listed.urls)

    async def _listed(self, _: datetime) -> list[Listed]:
        listed, token = [], ""
        while True:
            page = await self._page(token, PAGE)
            listed += [Listed(str(o.name), _created(o), _about(o)) for o in page.operations]
            if token and page.next_page_token == token:
                raise Transient(f"{self.name}: the list of operations does not go on")
            token = page.next_page_token
            if not token:
                return listed

    async def poll(self, provider_id: str) -> Pending | Hypothesis:
        """See `RemoteRecognizer`. When it has ended, the object goes."""
        operation = await self._operation(provider_id)
        if not operation.done:
            return _pending(operation)
        results = _results(operation)
        # Before the answer is stored: it is in the operation, however often that is asked for.
        await self._forget({*(_about(operation) or ()), *results})
        return await asyncio.to_thread(self._heard, operation, list(results.values()))

    async def check(self) -> None:
        """See `Checked`: Google Speech, its list of operations, and the bucket. Bills nothing."""
        await self._speech.check(self._timeout_s)
        await self._page("", 1)
        await self._bucket.check()

    async def close(self) -> None:
        """See `RemoteRecognizer`."""
        await self._list.close()
        await self._transcoder.close()
        await self._bucket.close()
        await self._speech.close()

    async def _uploaded(self, request: Request, audio: Audio, folder: Path) -> str:
        original, packed = folder / "original", folder / "whole.flac"
        await _written(audio, original)
        await self._transcoder.transcode(original, packed)
        original.unlink()
        name = f"{quote(request.marker, safe='')}/{secrets.token_hex(8)}.flac"
        return await self._bucket.put(name, packed, "audio/flac")

    async def _page(self, token: str, size: int, *, brief: bool = True) -> Any:
        await self._speech.opened()
        from google.api_core.exceptions import Forbidden, InvalidArgument, MethodNotImplemented
        from google.longrunning.operations_pb2 import ListOperationsRequest, ListOperationsResponse

        # Without this filter, to the letter, the vendor lists what was asked in version 1 only.
        # https://cloud.google.com/speech-to-text/v2/docs/operations
        wanted = ListOperationsRequest(name=self._speech.parent, filter="is_v2(name)", page_size=size, page_token=token)
        limits: dict[str, Any] = {
            "retry": None,
            "timeout": self._timeout_s,
            "metadata": NO_TRANSCRIPTS if brief else (),
        }
        try:
            page = await self._speech.call(lambda c: c.list_operations(wanted, **limits), self._timeout_s)
        except ProviderError as exc:
            if brief and isinstance(exc.__cause__, InvalidArgument):
                return await self._page(token, size, brief=False)
            if isinstance(exc.__cause__, Forbidden | MethodNotImplemented):
                raise ProviderError(
                    f"{self.name}: requests cannot be listed (permission speech.operations.list), so it is not known "
                    f"of one whose answer was lost whether it is paid for. {exc}"
                ) from exc
            raise
        if not isinstance(page, ListOperationsResponse):
            raise Transient(f"{self.name} answered the list of operations with what is no message of its protocol")
        return page

    async def _operation(self, name: str) -> Operation:
        await self._speech.opened()
        from google.api_core.exceptions import NotFound
        from google.longrunning.operations_pb2 import GetOperationRequest, Operation

        limits: dict[str, Any] = {"retry": None, "timeout": self._timeout_s}
        wanted = GetOperationRequest(name=name)
        try:
            operation = await self._speech.call(lambda c: c.get_operation(wanted, **limits), self._timeout_s)
        except ProviderError as exc:
            if isinstance(exc.__cause__, NotFound):
                said = "it was kept too short, or belongs to another project or location"
                raise ProviderError(f"{self.name} knows the operation {name} no more: {said}") from exc
            raise
        if not isinstance(operation, Operation):
            raise Transient(f"{self.name} answered a poll with what is no message of its protocol")
        return operation

    def _heard(self, operation: Operation, results: list[Any]) -> Hypothesis:
        """The words of an operation that has ended. An hour of them takes a while: in a thread."""
        if operation.error.code:
            raise ProviderError(f"{self.name} could not transcribe it: {_said(operation.error)}")
        if len(results) != 1:
            raise ProviderError(f"{self.name} answered with {len(results)} transcripts instead of one")
        [result] = results
        if result.error.code:
            raise ProviderError(f"{self.name} could not transcribe it: {_said(result.error)}")
        told = result.inline_result.transcript if result.HasField("inline_result") else result.transcript
        return self._speech.hypothesis([read(told, speakers=True)])

    async def _forget(self, uris: set[str]) -> None:
        """Delete what an operation was about. Nobody waits long for that, and it is no reason to fail."""
        for uri in uris:
            try:
                async with asyncio.timeout(DELETE_S):
                    await self._bucket.delete(uri)
            except (ProviderError, Transient, TimeoutError) as exc:
                log.warning("%s stays in the bucket: %s", uri, str(exc) or type(exc).__name__)


async def _written(audio: Audio, path: Path) -> None:
    """The recording in a file."""
    with path.open("wb") as file:
        async with aclosing(cast("AsyncGenerator[bytes, None]", audio.stream())) as portions:
            async for portion in portions:
                await asyncio.to_thread(file.write, portion)


def _metadata(operation: Operation) -> Any:
    """An operation's metadata as its protobuf message; empty where it has none, or none that is known."""
    from google.cloud.speech_v2 import OperationMetadata
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    message: Any = OperationMetadata.pb(OperationMetadata())
    with contextlib.suppress(DecodeError):
        operation.metadata.Unpack(message)
    return message


def _about(operation: Operation) -> frozenset[str] | None:
    """The URIs that an operation is about, none if it is no recognition; None where it does not say."""
    told = _metadata(operation)
    if told.WhichOneof("request") not in (None, "batch_recognize_request"):
        return frozenset()
    files = (file.uri for file in told.batch_recognize_request.files)
    return frozenset(filter(None, (*files, *told.batch_recognize_metadata.transcription_metadata))) or None


def _created(operation: Operation) -> datetime | None:
    created = _metadata(operation).create_time
    return created.ToDatetime(tzinfo=UTC) if created.seconds else None


def _pending(operation: Operation) -> Pending:
    told = _metadata(operation)
    age_s = time.time() - told.create_time.seconds if told.create_time.seconds else 0.0
    files = told.batch_recognize_metadata.transcription_metadata.values()
    percent = max([told.progress_percent, *(file.progress_percent for file in files)])
    return Pending(min(max(age_s / 10, SOONEST_S), LATEST_S), min(max(percent, 0), 100) / 100 if percent else None)


def _results(operation: Operation) -> dict[str, Any]:
    """The results of an operation that has ended, by URI; none where there are none that can be read."""
    from google.cloud.speech_v2 import BatchRecognizeResponse
    from google.protobuf.message import DecodeError

    message: Any = BatchRecognizeResponse.pb(BatchRecognizeResponse())
    with contextlib.suppress(DecodeError):
        operation.response.Unpack(message)
    return dict(message.results)


def _said(status: Any) -> str:
    """An error's message, shortened; its code where it has none."""
    return " ".join(status.message.split())[:300] or f"code {status.code}"
