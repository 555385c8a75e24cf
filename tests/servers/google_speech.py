"""A local Google Cloud Speech v2: `Recognize`, `BatchRecognize` and operations over real gRPC, with the vendor's own
messages and a ledger of charges.

`python -m tests.servers.google_speech --port 9001 --control 9002 --ledger ledger.jsonl`, or `serving(Server(ledger))`
in a test. Words come from the function `Server(hear=...)`, which may be a real recognizer. The default, `bursts`, makes
a word of every sound between silences and names it after its pitch ("f440"), so that a transcript shows which sounds
were sent, at which times, and whether one was sent twice.

Every call that is recognized is a line of the ledger, on the disk before the response is sent: {sha256, heard, seconds,
billed, charged_at, recognizer, ...}. Operations of batches are derived from it, so that a kill loses none. The server
does not deduplicate. Tests read the charges by `charges()`, or by GET /ledger and /arrivals at the control port.
Batches are read from the storage at `--storage`. GET, PUT /switches at the control port; a PUT replaces all switches,
so `{}` resets them:

    delay_s            seconds from the charge to the response, or to the end of the operation (0)
    refuse_429         RESOURCE_EXHAUSTED with RetryInfo: retry_after_s (1); uncharged
    unavailable        UNAVAILABLE, uncharged
    internal           INTERNAL, uncharged
    unauthenticated    UNAUTHENTICATED, as for a wrong key; uncharged
    forbidden          PERMISSION_DENIED, uncharged
    stall              accept the request and never respond, uncharged
    lose_answer        charge, then fail with UNAVAILABLE, as if the connection were lost before the response
    garbage            charge, then respond with bytes that are not a message
    speakers           results as of diarization: each begins with all words from the beginning
    without            list of omitted parts of responses: alternatives, words, offsets, confidences, language, billing
    file_error         submitted operations end with an error of their file
    operation_error    submitted operations end with an error
    no_result          submitted operations end without a result
    older              results are in the field of older versions: `transcript` instead of `inline_result`
    no_masks           INVALID_ARGUMENT for a list with a field mask
    forgotten          operations are neither listed nor found, as after their retention
    mute               operations have no metadata
    on                 calls to which refuse_429, unavailable ... stall, and garbage apply: recognize, batch, get, list
                       (all)

All but `delay_s`, `retry_after_s`, `without` and `on` are true (until switched off) or a number of calls, counted down.
`tests/servers/billing.py` has more: late (batches only), listed_s, page, gap, repeat. To cut the connection itself,
before or after a request, put `tests/servers/proxy.py` before this server.

Checked against the vendor: messages, services and status codes are the vendor's own protos, driven by the vendor's own
client. According to its protos and its documentation: content above 10 MB or a minute is INVALID_ARGUMENT, and so are
both or neither of content and URI; offsets and confidences come only if requested; 0.0 means no confidence; diarized
results repeat all words; a batch accepts URIs of Google's storage only, and one file if results are inline; operations
of version 2 are named `v2-...`, and listed with the filter `is_v2(name)` only. Not checked, for want of an account:
texts of errors, the order in which it checks permission and content, whether it charges for a call that its client has
cancelled, how it rounds (here: up to the second), whether every RESOURCE_EXHAUSTED has RetryInfo; and of batches:
whether it charges for one that fails (here it does), how soon an operation is listed (here at once), in what order
(here the oldest first), how long it is kept, whether its metadata always names the URIs, and whether it supports a
field mask, as the vendor states for all its APIs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import io
import math
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from aiohttp import web
from google.cloud.speech_v2.types import cloud_speech as speech
from google.longrunning import operations_pb2 as operations
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tests.servers.billing import Billing, Switched
from tests.servers.gcs import fetched

#: The vendor's limits of content inside a request.
LIMIT_BYTES, LIMIT_S = 10 << 20, 60.0
#: gRPC's own limit is 4 MB, below the vendor's.
_OPTIONS = [("grpc.max_receive_message_length", 2 * LIMIT_BYTES), ("grpc.so_reuseport", 0)]
#: Maximum operations on a page of the list: few, so that there are several pages.
PAGE = 5
#: Bytes with which no protobuf message begins.
GARBAGE = b"\xff\xff no message"

#: A word as (text, start_s, end_s, confidence).
HeardWord = tuple[str, float, float, float]
#: Recognizes samples (mono, -1 to 1) at a rate in hertz.
Hear = Callable[[np.ndarray, int], Sequence[HeardWord]]

_CODES = {
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "internal": grpc.StatusCode.INTERNAL,
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "forbidden": grpc.StatusCode.PERMISSION_DENIED,
}


def bursts(samples: np.ndarray, rate: int) -> list[HeardWord]:
    """A word for every sound of 50 ms or more, named after its pitch to 10 Hz."""
    step = rate // 50
    loud = np.abs(samples[: len(samples) // step * step]).reshape(-1, step).max(axis=1, initial=0.0) > 0.02
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(int)))
    words = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        sound = samples[first * step : last * step]
        if len(sound) >= rate // 20:
            pitch = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 4 * rate)).argmax() / 4
            words.append((f"f{round(pitch, -1):.0f}", first * step / rate, last * step / rate, 0.9))
    return words


@dataclass
class Switches(Switched):
    """How the server responds; see the module."""

    delay_s: float = 0.0
    refuse_429: bool | int = False
    unavailable: bool | int = False
    internal: bool | int = False
    unauthenticated: bool | int = False
    forbidden: bool | int = False
    stall: bool | int = False
    lose_answer: bool | int = False
    garbage: bool | int = False
    speakers: bool | int = False
    retry_after_s: float = 1.0
    without: list[str] = field(default_factory=list)
    file_error: bool | int = False
    operation_error: bool | int = False
    no_result: bool | int = False
    older: bool | int = False
    no_masks: bool | int = False
    page: int = PAGE
    forgotten: bool | int = False
    mute: bool | int = False
    on: list[str] = field(default_factory=lambda: ["recognize", "batch", "get", "list"])


class Server(Billing):
    """The service. `hear` recognizes samples; `calls` counts the requests of Recognize and BatchRecognize; `storage` is
    the endpoint of the storage from which batches are read.
    """

    def __init__(
        self, ledger: Path, hear: Hear = bursts, storage: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(ledger, Switches(), clock)
        self.storage = storage
        #: Lists of operations without their transcripts.
        self.brief_lists = 0
        #: How often each call was made.
        self.called: Counter[str] = Counter()
        self.calls = 0
        self.in_flight = self.most_in_flight = 0
        #: The newest request that was recognized, without its content.
        self.asked: speech.RecognizeRequest | None = None
        self.hear = hear

    def charges(self) -> Counter[str]:
        """How often each chunk was charged, by the hash of its content."""
        return Counter(charge["sha256"] for charge in self.ledger.charges)

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """The implemented methods of the services; others are UNIMPLEMENTED."""

        def handler(call: Callable[..., Any], read: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                call, read, lambda answer: answer if isinstance(answer, bytes) else write(answer)
            )

        recognition = {
            "Recognize": handler(
                self.recognize, speech.RecognizeRequest.deserialize, speech.RecognizeResponse.serialize
            ),
            "BatchRecognize": handler(
                self.batch, speech.BatchRecognizeRequest.deserialize, operations.Operation.SerializeToString
            ),
        }
        running = {
            "GetOperation": handler(
                self.get, operations.GetOperationRequest.FromString, operations.Operation.SerializeToString
            ),
            "ListOperations": handler(
                self.list_some,
                operations.ListOperationsRequest.FromString,
                operations.ListOperationsResponse.SerializeToString,
            ),
        }
        return (
            grpc.method_handlers_generic_handler("google.cloud.speech.v2.Speech", recognition),
            grpc.method_handlers_generic_handler("google.longrunning.Operations", running),
        )

    async def recognize(self, request: speech.RecognizeRequest, context: grpc.aio.ServicerContext) -> Any:
        self.arrived("recognize")
        self.calls += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._recognized(request, context)
        finally:
            self.in_flight -= 1

    async def _recognized(self, request: speech.RecognizeRequest, context: grpc.aio.ServicerContext) -> Any:
        await self._misbehave("recognize", context)
        if not request.content:
            await _refuse(context, "Request must contain exactly one of: [content, uri]")
        await self._checked(request.config, context)
        if len(request.content) > LIMIT_BYTES:
            await _refuse(context, f"Request audio can be a maximum of {LIMIT_BYTES} bytes")
        samples, rate = await self._decoded(request.content, context)
        seconds = len(samples) / rate
        if seconds > LIMIT_S:
            await _refuse(context, "Audio can be of a maximum of 60 seconds. Use the BatchRecognize method")
        heard = await asyncio.to_thread(self.hear, samples, rate)
        self.ledger.charge(
            {
                "id": f"call-{len(self.ledger.charges) + 1}",
                "sha256": hashlib.sha256(request.content).hexdigest(),
                "heard": " ".join(word[0] for word in heard),
                "seconds": seconds,
                "billed": math.ceil(seconds),
                "charged_at": self.clock(),
                "recognizer": request.recognizer,
            }
        )
        request.content = b""
        self.asked = request
        await asyncio.sleep(self.switches.delay_s)
        if self.switches.takes("lose_answer"):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        if self._garbles("recognize"):
            return GARBAGE
        return self._answer(request.config, heard, seconds)

    async def batch(self, request: speech.BatchRecognizeRequest, context: grpc.aio.ServicerContext) -> Any:
        self.arrived("batch")
        self.calls += 1
        await self._misbehave("batch", context)
        await self._checked(request.config, context)
        uris = [file.uri for file in request.files]
        if not 1 <= len(uris) <= 15 or not all(re.fullmatch(r"gs://[^/]+/.+", uri) for uri in uris):
            await _refuse(context, "BatchRecognizeRequest.files must be one to 15, each with a Cloud Storage URI")
        if len(uris) != 1 or "inline_response_config" not in request.recognition_output_config:
            await _refuse(context, "inline_response_config is for one file, and here nothing else is there")
        content = await fetched(self.storage, uris[0])
        words: Sequence[HeardWord] = []
        seconds, ends = 0.0, "NOT_FOUND"
        if content is not None:
            samples, rate = await self._decoded(content, context)
            seconds, ends = len(samples) / rate, self._end()
            words = await asyncio.to_thread(self.hear, samples, rate)
        entry = {
            "id": f"{request.recognizer.partition('/recognizers/')[0]}/operations/v2-{uuid.uuid4().hex}",
            "sha256": hashlib.sha256(content or b"").hexdigest(),
            "heard": " ".join(text for text, *_ in words),
            "seconds": seconds,
            "billed": math.ceil(seconds),
            "recognizer": request.recognizer,
            "uri": uris[0],
            "said": list(words),
            "ends": ends,
            "request": speech.BatchRecognizeRequest.to_json(request, indent=None),
        }

        def charge(now: float) -> None:
            entry.update(charged_at=now, ready_at=now + self.switches.delay_s)
            self.ledger.charge(entry)

        if self.switches.takes("late"):
            accepted, answer = self.take(charge), self.switches.lateness()
            if answer == "cut":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            if answer == "504":
                await context.abort(
                    grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline expired before operation could complete"
                )
            await accepted.wait()
            return self._operation(entry)
        charge(self.clock())
        if self.switches.takes("lose_answer"):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return GARBAGE if self._garbles("batch") else self._operation(entry)

    async def get(self, request: operations.GetOperationRequest, context: grpc.aio.ServicerContext) -> Any:
        await self._misbehave("get", context)
        if not re.fullmatch(r"projects/[^/]+/locations/[^/]+/operations/[^/]+", request.name):
            await _refuse(context, f"Invalid operation name: {request.name}")
        if request.name not in self.ledger.by_id or self.switches.takes("forgotten"):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Unable to find operation {request.name}")
        return GARBAGE if self._garbles("get") else self._operation(self.ledger.by_id[request.name])

    async def list_some(self, request: operations.ListOperationsRequest, context: grpc.aio.ServicerContext) -> Any:
        await self._misbehave("list", context)
        self.accept()
        entries = [e for e in self.ledger.charges if e["id"].startswith(f"{request.name}/operations/")]
        entries = self.listed(entries)
        if request.filter != "is_v2(name)" or self.switches.takes("forgotten"):
            entries = []
        begin = int(request.page_token or 0)
        end = begin + min(request.page_size or PAGE, self.switches.page)
        found = [self._operation(entry) for entry in self.switches.shown(entries[begin:end])]
        mask = dict(context.invocation_metadata() or ()).get("x-goog-fieldmask")
        if mask and self.switches.takes("no_masks"):
            await _refuse(context, f"Invalid field mask: {mask}")
        if mask == "operations.name,operations.metadata,next_page_token":
            self.brief_lists += 1
            for operation in found:
                operation.ClearField("response")
                operation.ClearField("done")
        more = str(end) if end < len(entries) else ""
        if self._garbles("list"):
            return GARBAGE
        return operations.ListOperationsResponse(operations=found, next_page_token=more)

    def _end(self) -> str:
        """How what is submitted now will end."""
        return next((name for name in ("file_error", "operation_error", "no_result") if self.switches.takes(name)), "")

    def _operation(self, entry: dict[str, Any]) -> operations.Operation:
        """What is told of an operation now."""
        request = speech.BatchRecognizeRequest.from_json(entry["request"])
        done = self.clock() >= entry["ready_at"]
        operation = operations.Operation(name=entry["id"], done=done)
        if not self.switches.takes("mute"):
            created = Timestamp()
            created.FromMilliseconds(round(entry["charged_at"] * 1000))
            told = speech.OperationMetadata(
                create_time=created, batch_recognize_request=request, progress_percent=100 if done else 50
            )
            operation.metadata.Pack(speech.OperationMetadata.pb(told))
        if not done:
            return operation
        if entry["ends"] == "operation_error":
            operation.error.CopyFrom(Status(code=13, message="the switch operation_error was on"))
            return operation
        response = speech.BatchRecognizeResponse()
        if entry["ends"] != "no_result":
            response.results[entry["uri"]] = self._file_result(request, entry)
        operation.response.Pack(speech.BatchRecognizeResponse.pb(response))
        return operation

    def _file_result(
        self, request: speech.BatchRecognizeRequest, entry: dict[str, Any]
    ) -> speech.BatchRecognizeFileResult:
        if entry["ends"]:
            code, message = (5, "Unable to open object") if entry["ends"] == "NOT_FOUND" else (3, "the switch was on")
            return speech.BatchRecognizeFileResult(error=Status(code=code, message=message))
        answer = self._answer(request.config, entry["said"], entry["seconds"])
        transcript = speech.BatchRecognizeResults(results=answer.results, metadata=answer.metadata)
        if self.switches.takes("older"):
            return speech.BatchRecognizeFileResult(transcript=transcript)
        return speech.BatchRecognizeFileResult(inline_result=speech.InlineResult(transcript=transcript))

    def _garbles(self, call: str) -> bool:
        return call in self.switches.on and self.switches.takes("garbage")

    async def _misbehave(self, call: str, context: grpc.aio.ServicerContext) -> None:
        self.called[call] += 1
        switches = self.switches
        if call not in switches.on:
            return
        if switches.takes("refuse_429"):
            detail = AnyMessage()
            detail.Pack(RetryInfo(retry_delay=_duration(switches.retry_after_s)))
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            status = Status(code=code.value[0], message="Quota exceeded for quota metric", details=[detail])
            await context.abort_with_status(rpc_status.to_status(status))
        for name, code in _CODES.items():
            if switches.takes(name):
                await context.abort(code, f"the switch {name} is on")
        if switches.takes("stall"):
            await asyncio.Event().wait()

    async def _checked(self, config: speech.RecognitionConfig, context: grpc.aio.ServicerContext) -> None:
        if not config.language_codes or not config.model:
            await _refuse(context, "RecognitionConfig.language_codes and .model must not be empty")
        for code in config.language_codes:
            if not re.fullmatch(r"[a-z]{2,3}(-\w+)*", code):
                await _refuse(context, f"{code} is no language code")

    async def _decoded(self, content: bytes, context: grpc.aio.ServicerContext) -> tuple[np.ndarray, int]:
        import av
        from av.error import FFmpegError

        try:
            with av.open(io.BytesIO(content)) as file:
                rate = file.streams.audio[0].rate
                parts = [frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]
        except (FFmpegError, IndexError):
            await _refuse(context, "Audio data does not appear to be in a supported encoding")
        samples = np.concatenate(parts).astype(np.float32) / 32768 if parts else np.zeros(0, np.float32)
        return samples, rate

    def _answer(
        self, config: speech.RecognitionConfig, heard: Sequence[HeardWord], seconds: float
    ) -> speech.RecognizeResponse:
        without = self.switches.without
        words = [self._word(config.features, *word) for word in heard]
        halves = [words] if len(words) < 2 else [words[: len(words) // 2], words[len(words) // 2 :]]
        if self.switches.takes("speakers") or "diarization_config" in config.features:
            for number, word in enumerate(words):
                word.speaker_label = str(number % 2 + 1)
            halves = [halves[0], words]
        results = [
            speech.SpeechRecognitionResult(
                alternatives=[
                    speech.SpeechRecognitionAlternative(
                        transcript=" ".join(word.word for word in part),
                        confidence=0.0 if "confidences" in without else 0.8,
                        words=[] if "words" in without else part,
                    )
                ]
                if "alternatives" not in without
                else [],
                language_code="" if "language" in without else config.language_codes[0].lower(),
                result_end_offset=_duration(heard[len(part) - 1 if part is halves[0] else -1][2]),
            )
            for part in halves
            if part
        ]
        metadata = {} if "billing" in without else {"total_billed_duration": Duration(seconds=math.ceil(seconds))}
        return speech.RecognizeResponse(results=results, metadata=metadata)

    def _word(
        self, features: speech.RecognitionFeatures, text: str, start_s: float, end_s: float, sure: float
    ) -> speech.WordInfo:
        word = speech.WordInfo(word=text)
        if features.enable_word_confidence and "confidences" not in self.switches.without:
            word.confidence = sure
        if features.enable_word_time_offsets and "offsets" not in self.switches.without:
            word.end_offset = _duration(end_s)
            if start_s:  # the beginning itself is left out, as default values are
                word.start_offset = _duration(start_s)
        return word


def _duration(seconds: float) -> Duration:
    found = Duration()
    found.FromMilliseconds(round(seconds * 1000))
    return found


async def _refuse(context: grpc.aio.ServicerContext, why: str) -> None:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)


@contextlib.asynccontextmanager
async def serving(server: Server, port: int = 0) -> AsyncIterator[str]:
    """The endpoint at which it serves, as GOOGLE_SPEECH_ENDPOINT wants it."""
    running = grpc.aio.server(options=_OPTIONS)
    running.add_generic_rpc_handlers(server.handlers())
    port = running.add_insecure_port(f"127.0.0.1:{port}")
    await running.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await running.stop(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.servers.google_speech", description="A local Google Cloud Speech v2.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control", type=int, required=True, help="port of /switches and /ledger")
    parser.add_argument("--ledger", type=Path, required=True, help="file of the charges; kept if it is there")
    parser.add_argument("--storage", default="", help="http://host:port of the storage that batches are read from")
    arguments = parser.parse_args()

    async def make() -> web.Application:
        server = Server(arguments.ledger, storage=arguments.storage)
        app = web.Application()
        app.add_routes(server.operated())

        async def serve(_: web.Application) -> AsyncIterator[None]:
            async with serving(server, arguments.port):
                yield

        app.cleanup_ctx.append(serve)
        return app

    web.run_app(make(), host="127.0.0.1", port=arguments.control, access_log=None, print=None)


if __name__ == "__main__":
    main()
