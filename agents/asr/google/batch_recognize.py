"""Google Cloud Speech v2 by `BatchRecognize`: the recording is uploaded to a bucket of ours, one call starts an
operation for it, and the operation is polled.

Costs: one charge per recording and run. The object's URI is unique and stored before it is submitted; an operation
contains its URIs, and all operations of a location can be listed. So a call whose answer was lost is found again, if it
is accepted and listed within `settles_s`, about which the vendor documents nothing. If the list cannot be read, or does
not contain the URIs of its operations, the request is not made a second time.

Every recording is uploaded as FLAC, 16 kHz, mono: Google detects few formats, bills every channel, and so the times are
those of our own decoder. An object is deleted when its operation has ended. It remains if a worker dies before it has
stored the URI, if a run ends first, or if deleting fails. Therefore the bucket needs a lifecycle rule that deletes
objects after two days.
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

#: Seconds for deleting an object; short, because the poll waits for it.
DELETE_S: Final = 3.0

#: Milliseconds of audio in one file; the vendor's limit.
LONGEST_MS: Final = 8 * 3_600_000

#: Concurrent uploads: each has its recording on the disk.
UPLOADS: Final = 4

#: Seconds until the next poll: a tenth of the operation's age, between these. Polls count against the vendor's quota.
SOONEST_S, LATEST_S = 3.0, 60.0

#: Operations on a page of the list.
PAGE: Final = 100

#: A header that all of Google's APIs accept: the fields to return. Without it, the list contains whole transcripts.
#: https://cloud.google.com/apis/docs/system-parameters
NO_TRANSCRIPTS: Final = (("x-goog-fieldmask", "operations.name,operations.metadata,next_page_token"),)

#: Seconds within which a request whose answer was lost may still be accepted, and then until the list contains it.
#: Neither is documented.
ACCEPTS_S, LISTS_S = 60.0, 15.0

#: Seconds for which an operation is listed at least. Not documented either; users report days.
REMEMBERS_S: Final = 86_400.0

#: Before any request of ours.
_NEVER: Final = datetime(2000, 1, 1, tzinfo=UTC)


class GoogleBatch:
    """Google Cloud Speech as an `UploadingRecognizer`."""

    def __init__(self, speech: Speech, bucket: Bucket, *, timeout_s: float = TIMEOUT_S) -> None:
        self.name = speech.name
        self.settles_s, self.remembers_s = ACCEPTS_S + LISTS_S, REMEMBERS_S
        self._list = RequestList(self.name, self._listed, lag=timedelta(seconds=LISTS_S))
        self._speech, self._bucket = speech, bucket
        self._timeout_s = timeout_s
        self._transcoder = Transcoder()
        self._uploads = asyncio.Semaphore(UPLOADS)

    async def upload(self, request: Request, audio: Audio) -> str:
        """See `UploadingRecognizer`: the gs:// URI of a FLAC copy in the bucket.

        Raises:
            ProviderError: The recording is too long, or the bucket refuses it.
            RefusedMedia: The recording cannot be decoded.
            Transient: The bucket cannot be reached, or the encoding process died.
            Unavailable: The disk is full, or our own store is away.
        """
        if (request.duration_ms or 0) > LONGEST_MS:
            raise ProviderError(
                f"{self.name} takes 8 hours at most; without GOOGLE_CLOUD_BUCKET the recording is sent in chunks"
            )
        try:
            async with self._uploads:
                with TemporaryDirectory(prefix="concord-") as folder:
                    return await self._uploaded(request, audio, Path(folder))
        except OSError as exc:
            raise Unavailable(f"no room for a recording on its way to {self.name} ({exc.strerror})") from exc

    async def submit(self, request: Request, audio: Audio) -> str:
        """See `RemoteRecognizer`; the only call that bills. Google reads the audio from `request.audio_url`.

        Raises:
            ValueError: There is no `request.audio_url`: the audio was not uploaded first.
        """
        del audio
        if request.audio_url is None:
            raise ValueError("the audio must be uploaded, and its URI kept, before it is submitted")
        await self._speech.connected(self._timeout_s / 2)
        from google.cloud import speech_v2 as v2

        order = v2.BatchRecognizeRequest(
            recognizer=self._speech.recognizer,
            config=self._speech.config(request.language, diarize=request.diarize, speakers=request.speakers),
            files=[v2.BatchRecognizeFileMetadata(uri=request.audio_url)],
            recognition_output_config=v2.RecognitionOutputConfig(inline_response_config=v2.InlineOutputConfig()),
        )

        async def start(client: SpeechAsyncClient) -> str:
            try:
                answer = await client.batch_recognize(request=order, retry=None, timeout=self._timeout_s)
                return str(answer.operation.name)
            except AttributeError:  # raised by the SDK if gRPC cannot parse the answer
                return ""

        name = await self._speech.call(start, self._timeout_s)
        if not name:
            # The request may be accepted. Before it is submitted again, the caller looks for it in the list.
            raise Transient(f"{self.name} answered a submission without an operation's name")
        return name

    async def find(self, request: Request, *, within_s: float = 0.0, proof: bool = True) -> str | None:
        """See `RemoteRecognizer`. Reads the list of operations to its end, because its order is not documented."""
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
            listed += [Listed(str(o.name), _created(o), _uris(o)) for o in page.operations]
            if token and page.next_page_token == token:
                raise Transient(f"{self.name}: the list of operations does not go on")
            token = page.next_page_token
            if not token:
                return listed

    async def poll(self, provider_id: str) -> Pending | Hypothesis:
        """See `RemoteRecognizer`. Deletes the object of an operation that has ended."""
        operation = await self._operation(provider_id)
        if not operation.done:
            return _pending(operation)
        results = _results(operation)
        # Even before the answer is stored: it is part of the operation, which can be polled again.
        await self._delete({*(_uris(operation) or ()), *results})
        # In a thread: an hour of words takes a while.
        return await asyncio.to_thread(self._hypothesis, operation, list(results.values()))

    async def erase(self, provider_id: str | None, audio_url: str | None) -> str | None:
        """See `ErasingRecognizer`: deletes our copy in the bucket. The operation, with the transcript, cannot be."""
        if audio_url is not None:
            await self._bucket.delete(audio_url)
        return provider_id and "Google keeps the operation with its transcript for some days; it cannot be deleted"

    async def check(self) -> None:
        """See `Checked`: checks Google Speech, its list of operations, and the bucket."""
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
        original, encoded = folder / "original", folder / "whole.flac"
        await _write(audio, original)
        await self._transcoder.transcode(original, encoded)
        original.unlink()
        name = f"{quote(request.marker, safe='')}/{secrets.token_hex(8)}.flac"
        return await self._bucket.put(name, encoded, "audio/flac")

    async def _page(self, token: str, size: int, *, brief: bool = True) -> Any:
        """A page of the list of operations, without transcripts if `brief`, which some servers refuse."""
        await self._speech.opened()
        from google.api_core.exceptions import Forbidden, InvalidArgument, MethodNotImplemented
        from google.longrunning.operations_pb2 import ListOperationsRequest, ListOperationsResponse

        # Without exactly this filter, the vendor lists operations of API version 1 only.
        # https://cloud.google.com/speech-to-text/v2/docs/operations
        parent = self._speech.parent
        request = ListOperationsRequest(name=parent, filter="is_v2(name)", page_size=size, page_token=token)
        limits: dict[str, Any] = {
            "retry": None,
            "timeout": self._timeout_s,
            "metadata": NO_TRANSCRIPTS if brief else (),
        }
        try:
            page = await self._speech.call(lambda c: c.list_operations(request, **limits), self._timeout_s)
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
        request = GetOperationRequest(name=name)
        try:
            operation = await self._speech.call(lambda c: c.get_operation(request, **limits), self._timeout_s)
        except ProviderError as exc:
            if isinstance(exc.__cause__, NotFound):
                reason = "it was not kept long enough, or belongs to another project or location"
                raise ProviderError(f"{self.name} no longer has the operation {name}: {reason}") from exc
            raise
        if not isinstance(operation, Operation):
            raise Transient(f"{self.name} answered a poll with what is no message of its protocol")
        return operation

    def _hypothesis(self, operation: Operation, results: list[Any]) -> Hypothesis:
        """The transcript of an operation that has ended. Raises `ProviderError` if it has none."""
        if operation.error.code:
            raise ProviderError(f"{self.name} could not transcribe it: {_message(operation.error)}")
        if len(results) != 1:
            raise ProviderError(f"{self.name} answered with {len(results)} transcripts instead of one")
        [result] = results
        if result.error.code:
            raise ProviderError(f"{self.name} could not transcribe it: {_message(result.error)}")
        transcript = result.inline_result.transcript if result.HasField("inline_result") else result.transcript
        return self._speech.hypothesis([read(transcript, speakers=True)])

    async def _delete(self, uris: set[str]) -> None:
        """Delete the objects of an operation, if that succeeds quickly; failures are logged only."""
        for uri in uris:
            try:
                async with asyncio.timeout(DELETE_S):
                    await self._bucket.delete(uri)
            except (ProviderError, Transient, TimeoutError) as exc:
                log.warning("%s stays in the bucket: %s", uri, str(exc) or type(exc).__name__)


async def _write(audio: Audio, path: Path) -> None:
    """Write the recording to a file."""
    with path.open("wb") as file:
        async with aclosing(cast("AsyncGenerator[bytes, None]", audio.stream())) as portions:
            async for portion in portions:
                await asyncio.to_thread(file.write, portion)


def _metadata(operation: Operation) -> Any:
    """An operation's metadata as a protobuf message; an empty one if they are missing or of an unknown type."""
    from google.cloud.speech_v2 import OperationMetadata
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    message: Any = OperationMetadata.pb(OperationMetadata())
    with contextlib.suppress(DecodeError):
        operation.metadata.Unpack(message)
    return message


def _uris(operation: Operation) -> frozenset[str] | None:
    """The URIs of an operation's audio; empty if it is not a recognition, None if it does not contain them."""
    metadata = _metadata(operation)
    if metadata.WhichOneof("request") not in (None, "batch_recognize_request"):
        return frozenset()
    files = (file.uri for file in metadata.batch_recognize_request.files)
    return frozenset(filter(None, (*files, *metadata.batch_recognize_metadata.transcription_metadata))) or None


def _created(operation: Operation) -> datetime | None:
    created = _metadata(operation).create_time
    return created.ToDatetime(tzinfo=UTC) if created.seconds else None


def _pending(operation: Operation) -> Pending:
    metadata = _metadata(operation)
    age_s = time.time() - metadata.create_time.seconds if metadata.create_time.seconds else 0.0
    files = metadata.batch_recognize_metadata.transcription_metadata.values()
    percent = max([metadata.progress_percent, *(file.progress_percent for file in files)])
    return Pending(min(max(age_s / 10, SOONEST_S), LATEST_S), min(max(percent, 0), 100) / 100 if percent else None)


def _results(operation: Operation) -> dict[str, Any]:
    """The results of an operation that has ended, by URI; empty if it has none, or none that can be parsed."""
    from google.cloud.speech_v2 import BatchRecognizeResponse
    from google.protobuf.message import DecodeError

    message: Any = BatchRecognizeResponse.pb(BatchRecognizeResponse())
    with contextlib.suppress(DecodeError):
        operation.response.Unpack(message)
    return dict(message.results)


def _message(status: Any) -> str:
    """An error's message, shortened; its code if it has no message."""
    return " ".join(status.message.split())[:300] or f"code {status.code}"
