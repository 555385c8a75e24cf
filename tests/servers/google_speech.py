"""Google Cloud Speech v2 on this machine: `Recognize` over real gRPC, with the vendor's own messages, and a bill.

`python -m tests.servers.google_speech --port 9001 --control 9002 --ledger ledger.jsonl`, or `serving(Server(ledger))`
in a test. What it hears is a script's doing, or a real recognizer's that is handed in (`Server(hear=...)`); the script
`bursts` hears a word in every sound between silences and calls it by its pitch ("f440"), so that a transcript tells
which sounds were sent, when they sounded, and whether one was sent twice.

Every call that is recognized is a line of the ledger, on the disk before the answer is sent: {sha256, heard, seconds,
billed, at, recognizer}. It does not deduplicate, and it cannot be asked what it charged, except by tests: `charges()`,
GET /ledger and /arrivals at the control port. GET, PUT /switches there; a PUT replaces all of them, so `{}` is normal:

    delay_s            seconds from the charge until the answer (0)
    refuse_429         RESOURCE_EXHAUSTED with RetryInfo: retry_after_s (1); uncharged
    unavailable        UNAVAILABLE, uncharged
    internal           INTERNAL, uncharged
    unauthenticated    UNAUTHENTICATED, as for a wrong key; uncharged
    forbidden          PERMISSION_DENIED, uncharged
    stall              take the request and never answer, uncharged
    lose_answer        charge, then fail with UNAVAILABLE, as a connection does that is lost before the answer
    garbage            charge, then answer with bytes that are no message
    speakers           results as of diarization: each begins with all words from the beginning
    without            list of what answers leave out: alternatives, words, offsets, confidences, language, billing

All but the first, `retry_after_s` and `without` are true (until switched off) or a number (of calls, counted down).
A connection that is really cut, before or after a request, is `tests/servers/proxy.py` in front of this server.

Checked against the vendor: messages, services and status codes are the vendor's own protos, driven by the vendor's own
client; that content above 10 MB or a minute is INVALID_ARGUMENT, that "both or neither" of content and URI are, that
offsets and confidences come only when asked for, that 0.0 means no confidence and that diarized results repeat
all words is what its protos and its documentation say. Not checked, because no account was at hand: the wording
of its errors, the order in which it looks at permission and content, whether it charges for a call that its client has
given up, how it rounds what it bills (here: up to the second), and whether RetryInfo comes with every
RESOURCE_EXHAUSTED.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import io
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from aiohttp import web
from google.cloud.speech_v2.types import cloud_speech as speech
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tests.servers.billing import Billing, Switched

#: The vendor's limits on content that comes with its request.
LIMIT_BYTES, LIMIT_S = 10 << 20, 60.0
#: gRPC's own limit is 4 MB, below the vendor's.
_OPTIONS = [("grpc.max_receive_message_length", 2 * LIMIT_BYTES), ("grpc.so_reuseport", 0)]

#: A word as (text, start_s, end_s, confidence).
Said = tuple[str, float, float, float]
#: What is heard in samples (mono, -1 to 1) at a rate in hertz.
Hear = Callable[[np.ndarray, int], Sequence[Said]]

_CODES = {
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "internal": grpc.StatusCode.INTERNAL,
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "forbidden": grpc.StatusCode.PERMISSION_DENIED,
}


def bursts(samples: np.ndarray, rate: int) -> list[Said]:
    """A word for every sound of 50 ms or more, named after its pitch to 10 Hz."""
    step = rate // 50
    loud = np.abs(samples[: len(samples) // step * step]).reshape(-1, step).max(axis=1, initial=0.0) > 0.02
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(int)))
    said = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        sound = samples[first * step : last * step]
        if len(sound) >= rate // 20:
            pitch = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 4 * rate)).argmax() / 4
            said.append((f"f{round(pitch, -1):.0f}", first * step / rate, last * step / rate, 0.9))
    return said


@dataclass
class Switches(Switched):
    """How the server answers; see the module."""

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


class Server(Billing):
    """The service: `hear` is what it hears with, `calls` counts every request that reached it."""

    def __init__(self, ledger: Path, hear: Hear = bursts) -> None:
        super().__init__(ledger, Switches())
        self.calls = 0
        self.in_flight = self.most_in_flight = 0
        #: The newest request that was recognized, without its content.
        self.asked: speech.RecognizeRequest | None = None
        self.hear = hear

    def charges(self) -> Counter[str]:
        """How often each piece was charged, by the hash of its content."""
        return Counter(charge["sha256"] for charge in self.ledger.charges)

    def handlers(self) -> grpc.GenericRpcHandler:
        """The part of the service that there is; anything else is UNIMPLEMENTED."""
        recognize = grpc.unary_unary_rpc_method_handler(
            self.recognize,
            request_deserializer=speech.RecognizeRequest.deserialize,
            response_serializer=lambda answer: (
                answer if isinstance(answer, bytes) else speech.RecognizeResponse.serialize(answer)
            ),
        )
        return grpc.method_handlers_generic_handler("google.cloud.speech.v2.Speech", {"Recognize": recognize})

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
        await self._misbehave(context)
        samples, rate = await self._decoded(request, context)
        seconds = len(samples) / rate
        heard = await asyncio.to_thread(self.hear, samples, rate)
        self.ledger.charge(
            {
                "id": f"call-{len(self.ledger.charges) + 1}",
                "sha256": hashlib.sha256(request.content).hexdigest(),
                "heard": " ".join(said[0] for said in heard),
                "seconds": seconds,
                "billed": math.ceil(seconds),
                "at": time.time(),
                "recognizer": request.recognizer,
            }
        )
        request.content = b""
        self.asked = request
        await asyncio.sleep(self.switches.delay_s)
        if self.switches.takes("lose_answer"):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        if self.switches.takes("garbage"):
            return b"\xff\xff no message"
        return self._answer(request.config, heard, seconds)

    async def _misbehave(self, context: grpc.aio.ServicerContext) -> None:
        switches = self.switches
        if switches.takes("refuse_429"):
            pause = Duration()
            pause.FromMilliseconds(round(switches.retry_after_s * 1000))
            detail = AnyMessage()
            detail.Pack(RetryInfo(retry_delay=pause))
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            status = Status(code=code.value[0], message="Quota exceeded for quota metric", details=[detail])
            await context.abort_with_status(rpc_status.to_status(status))
        for name, code in _CODES.items():
            if switches.takes(name):
                await context.abort(code, f"the switch {name} is on")
        if switches.takes("stall"):
            await asyncio.Event().wait()

    async def _decoded(
        self, request: speech.RecognizeRequest, context: grpc.aio.ServicerContext
    ) -> tuple[np.ndarray, int]:
        import av
        from av.error import FFmpegError

        async def refuse(why: str) -> None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)

        if not request.content:
            await refuse("Request must contain exactly one of: [content, uri]")
        if not request.config.language_codes or not request.config.model:
            await refuse("RecognitionConfig.language_codes and .model must not be empty")
        if len(request.content) > LIMIT_BYTES:
            await refuse(f"Request audio can be a maximum of {LIMIT_BYTES} bytes")
        try:
            with av.open(io.BytesIO(request.content)) as file:
                rate = file.streams.audio[0].rate
                parts = [frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]
        except (FFmpegError, IndexError):
            await refuse("Audio data does not appear to be in a supported encoding")
        samples = np.concatenate(parts).astype(np.float32) / 32768 if parts else np.zeros(0, np.float32)
        if len(samples) / rate > LIMIT_S:
            await refuse("Audio can be of a maximum of 60 seconds. Use the BatchRecognize method for longer audio")
        return samples, rate

    def _answer(
        self, config: speech.RecognitionConfig, heard: Sequence[Said], seconds: float
    ) -> speech.RecognizeResponse:
        without = self.switches.without
        words = [self._word(config.features, *said) for said in heard]
        halves = [words] if len(words) < 2 else [words[: len(words) // 2], words[len(words) // 2 :]]
        if self.switches.takes("speakers"):
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
            end = Duration()
            end.FromMilliseconds(round(end_s * 1000))
            word.end_offset = end
            if start_s:  # the beginning itself is left out, as default values are
                start = Duration()
                start.FromMilliseconds(round(start_s * 1000))
                word.start_offset = start
        return word


@contextlib.asynccontextmanager
async def serving(server: Server, port: int = 0) -> AsyncIterator[str]:
    """The endpoint at which it serves, as GOOGLE_SPEECH_ENDPOINT wants it."""
    running = grpc.aio.server(options=_OPTIONS)
    running.add_generic_rpc_handlers((server.handlers(),))
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
    arguments = parser.parse_args()

    async def make() -> web.Application:
        server = Server(arguments.ledger)
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
