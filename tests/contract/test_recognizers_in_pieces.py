"""What a recognizer must do whose vendor bills for pieces and keeps no list: one suite for all `ChunkedRecognizer`s.

A new one joins by a line in `VENDORS`: its server, and what opens the recognizer at the server's address.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import unused_port

from agents.asr.google.recognize import Google
from agents.asr.google.speech import Speech
from agents.asr.pieces.deepgram import Listen
from agents.asr.pieces.elevenlabs import ElevenLabs, Scribe
from agents.asr.pieces.openai import Transcriptions
from agents.asr.pieces.recognizer import PARALLEL, WHOLE_SENDS, InPieces
from agents.asr.protocols import ChunkedRecognizer, LocalRecognizer, RemoteRecognizer
from agents.asr.rate_limit import ProviderLimiter
from schemas.errors import NotAccepted, ProviderError, RateLimited, RefusedMedia, Transient
from sinks.memory.database import MemoryDatabase
from tests.contract.test_google_speech import RATE, StoredResponses, asked, tones, write
from tests.servers import at_once, deepgram, elevenlabs_scribe, google_speech, openai_audio
from tests.servers.hosts import listening
from tests.transcripts import is_a_transcript

#: Seconds of the recording: three pieces or four.
SECONDS = 120


def heard_all(found, seconds=SECONDS, *, times=True):
    """Every tone once, in order, in its place; a vendor may write them with punctuation and case."""
    assert [word.text.strip(",.").lower() for word in found.words] == [f"f{300 + 10 * n}" for n in range(seconds)]
    for n, word in enumerate(found.words):
        assert (word.start_ms is None) != times
        if times:
            assert word.start_ms == pytest.approx(n * 1000 + 300, abs=25)
            assert word.end_ms == pytest.approx(n * 1000 + 700, abs=25)


@dataclass
class Bench:
    """A vendor's server, and as many recognizers at it as there were processes."""

    server: Any
    url: str
    call: Path
    open: Callable[..., Any]
    switches: type[Any] = at_once.Switches
    kept: StoredResponses = field(default_factory=StoredResponses)
    told: list[float] = field(default_factory=list)
    limiter: ProviderLimiter = field(default_factory=lambda: ProviderLimiter(MemoryDatabase(), "a-vendor"))

    opened: list[Any] = field(default_factory=list)

    def recognizer(self, **options):
        self.opened.append(self.open(self.url, options.pop("piece_s", 10.0), **options))
        return self.opened[-1]

    def switch(self, **switches):
        self.server.switches = self.switches(**switches)
        getattr(self.server, "changed", lambda: None)()

    async def transcribed(self, recognizer=None, path=None, **fields):
        one = recognizer or self.recognizer()
        try:
            return await one.transcribe_chunks(
                path or self.call, asked(**fields), self.told.append, self.kept, self.limiter
            )
        finally:
            if recognizer is None:
                await one.close()

    @property
    def charges(self):
        return sorted(self.server.charges().values())


@contextlib.asynccontextmanager
async def _serving(server):
    async with listening(server.app(), shutdown_s=1) as url:
        try:
            yield url
        finally:
            server.changed()


def _google(url, piece_s, **options):
    return Google(Speech("google", project="our-project", endpoint=url), timeout_s=piece_s, **options)


def _openai(url, piece_s, *, key=openai_audio.KEY, model="whisper-1", **options):
    return InPieces(Transcriptions("openai", key, model, f"{url}/v1", piece_s=piece_s), **options)


def _gpt(url, piece_s, **options):
    return _openai(url, piece_s, **{"model": "gpt-4o-transcribe"} | options)


def _deepgram(url, piece_s, *, key=deepgram.KEY, model="nova-3", **options):
    return InPieces(Listen("deepgram", key, model, url, piece_s=piece_s, whole_s=piece_s), **options)


def _elevenlabs(url, piece_s, *, key=elevenlabs_scribe.KEY, model="scribe_v2", **options):
    return ElevenLabs(Scribe("elevenlabs", key, model, url, piece_s=piece_s, whole_s=piece_s), **options)


VENDORS = {
    "google": (google_speech.Server, google_speech.serving, _google, google_speech.Switches),
    "openai": (openai_audio.Server, _serving, _openai, at_once.Switches),
    "deepgram": (deepgram.Server, _serving, _deepgram, at_once.Switches),
    "elevenlabs": (elevenlabs_scribe.Server, _serving, _elevenlabs, at_once.Switches),
    "openai, gpt": (openai_audio.Server, _serving, _gpt, at_once.Switches),
}
#: Those whose protocol is HTTP, those that give times, and those that tell speakers apart.
HTTP = [name for name in VENDORS if name != "google"]
TIMED = [name for name in VENDORS if name != "openai, gpt"]
SPEAKERS = ["deepgram", "elevenlabs"]


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    return write(tmp_path_factory.mktemp("call") / "call.wav", tones(SECONDS))


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return write(tmp_path_factory.mktemp("short") / "call.wav", tones(4))


@pytest.fixture(params=TIMED)
async def bench(request, tmp_path, call):
    make, serve, opened, switches = VENDORS[request.param]
    server = make(tmp_path / "ledger.jsonl")
    async with serve(server) as url:
        bench = Bench(server, url, call, opened, switches)
        yield bench
        for recognizer in bench.opened:
            await recognizer.close()
    server.ledger.close()


def of(names):
    return pytest.mark.parametrize("bench", names, indirect=True)


async def test_it_is_neither_remote_nor_local(bench):
    recognizer = bench.recognizer()

    assert isinstance(recognizer, ChunkedRecognizer)
    assert not isinstance(recognizer, RemoteRecognizer | LocalRecognizer)
    await recognizer.close()
    await recognizer.close()


async def test_every_word_of_a_long_recording_has_its_time_and_every_piece_is_charged_once(bench):
    found = await bench.transcribed(duration_ms=SECONDS * 1000)

    is_a_transcript(found, bench.recognizer())
    heard_all(found)
    assert (found.duration_ms, found.language[:2], found.confidence) == (SECONDS * 1000, "en", 0.9)
    assert bench.charges == [1] * bench.server.calls
    assert max(charge["seconds"] for charge in bench.server.ledger.charges) <= 55
    billed = sum(charge["billed"] for charge in bench.server.ledger.charges)
    assert found.details == {"requests": bench.server.calls, "billed_seconds": billed}
    assert bench.told == sorted(bench.told)
    assert bench.told[-1] == 1


async def test_only_so_many_pieces_are_in_flight_at_once(bench):
    bench.switch(delay_s=1)

    await bench.transcribed(bench.recognizer(parallel=2))

    assert bench.server.most_in_flight == 2


async def test_silence_is_heard_as_nothing_and_costs_nothing(bench, tmp_path):
    path = write(tmp_path / "silence.wav", np.zeros(120 * RATE, np.float32))

    found = await bench.transcribed(path=path)

    assert (found.words, found.duration_ms, found.confidence) == ((), 120_000, None)
    assert bench.server.calls == 0


async def test_what_is_no_recording_is_refused(bench, tmp_path):
    (tmp_path / "call.wav").write_bytes(b"<html>")

    with pytest.raises(RefusedMedia, match="HTML"):
        await bench.transcribed(path=tmp_path / "call.wav")


async def test_a_language_that_is_asked_for_is_sent_and_is_the_transcripts(bench, short):
    found = await bench.transcribed(path=short, language="en-GB")

    assert found.language == "en-GB"
    if isinstance(bench.server, at_once.Server):
        wish = bench.server.asked
        assert (wish.get("language") or wish["language_code"])[0].startswith("en")
        assert "detect_language" not in wish


# -- refusals, pauses, and what is tried again --


@pytest.mark.parametrize("name", ["unavailable", "internal"])
async def test_what_fails_for_a_while_is_tried_again_and_charged_once(bench, name):
    bench.switch(**{name: 2})

    heard_all(await bench.transcribed())

    assert set(bench.charges) == {1}


async def test_a_pause_that_is_asked_for_is_kept_by_all(bench, short):
    bench.switch(refuse_429=1, retry_after_s=1.5)
    began = time.time()

    await bench.transcribed(bench.recognizer(parallel=1), short)

    assert min(charge["charged_at"] for charge in bench.server.ledger.charges) >= began + 1.5
    assert set(bench.charges) == {1}


async def test_every_piece_waits_for_its_call_in_the_rate(bench):
    bench.limiter.interval_s = 0.4

    heard_all(await bench.transcribed())

    times = [at for at, _ in bench.server.arrivals]
    assert len(times) >= 3
    assert all(later - earlier >= 0.3 for earlier, later in pairwise(times))


async def test_a_lost_answer_counts_although_a_pause_follows(bench, short):
    """Whoever charges for it would be asked for ever, were it taken for a pause."""
    bench.switch(lose_answer=True)
    bench.limiter.patience_s = 1.0
    for _ in range(4):
        await bench.limiter.failed(Transient("before this"))

    with pytest.raises(Transient) as caught:
        async with asyncio.timeout(60):
            await bench.transcribed(bench.recognizer(parallel=1), short)

    assert not isinstance(caught.value, NotAccepted)
    assert len(bench.charges) == 1


async def test_a_long_pause_is_passed_on(bench):
    bench.switch(refuse_429=True, retry_after_s=120)

    with pytest.raises(RateLimited) as caught:
        await bench.transcribed()

    assert caught.value.retry_after >= 119
    assert bench.server.calls <= PARALLEL
    assert bench.charges == []


async def test_a_server_that_never_answers_is_given_up(bench):
    bench.switch(stall=True)

    with pytest.raises(Transient, match="did not answer"):
        await bench.transcribed(bench.recognizer(piece_s=0.3, retries=1))

    assert bench.server.calls <= 2 * PARALLEL


@pytest.mark.parametrize("name", ["unauthenticated", "forbidden"])
async def test_a_final_no_is_not_asked_for_twice(bench, name):
    bench.switch(**{name: True})

    with pytest.raises(ProviderError):
        await bench.transcribed()

    assert bench.server.calls <= PARALLEL
    assert bench.charges == []


async def test_an_unreachable_server_is_transient_and_costs_nothing(bench, short):
    recognizer = bench.open(f"http://127.0.0.1:{unused_port()}", 1.0, retries=0)

    with pytest.raises(NotAccepted, match="cannot be reached"):
        await bench.transcribed(recognizer, short)
    with pytest.raises(Transient, match="cannot be reached"):
        await recognizer.check()
    await recognizer.close()


# -- what is paid for is kept --


async def test_a_second_process_asks_for_nothing_that_was_answered(bench):
    one = await bench.transcribed()
    calls = bench.server.calls

    two = await bench.transcribed()

    assert one == two
    assert bench.server.calls == calls == len(bench.kept)


async def test_only_what_is_missing_is_sent_again(bench):
    one = await bench.transcribed()
    calls = bench.server.calls
    del bench.kept[next(iter(bench.kept))]
    bench.kept[next(iter(bench.kept))] = b"\xff not what we wrote"

    assert await bench.transcribed() == one
    assert bench.server.calls == calls + 2


async def test_a_cancelled_recording_goes_on_with_what_was_answered(bench):
    bench.switch(delay_s=0.1)
    recognizer = bench.recognizer(parallel=1)
    task = asyncio.create_task(bench.transcribed(recognizer))
    while len(bench.kept) < 1:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    calls = bench.server.calls

    heard_all(await bench.transcribed())

    pieces = len(bench.kept)
    assert bench.server.calls - calls <= pieces - 1  # nothing of the answered one
    assert sum(bench.charges) <= pieces + 1  # the one in flight
    await recognizer.close()


async def test_an_orderly_end_waits_for_what_is_in_flight_and_loses_nothing(bench):
    bench.switch(delay_s=0.8)
    recognizer = bench.recognizer(parallel=1)
    task = asyncio.create_task(bench.transcribed(recognizer))
    while not bench.server.ledger.charges:
        await asyncio.sleep(0.01)
    await recognizer.close()
    with pytest.raises(Transient, match="shut down"):
        await task
    assert len(bench.kept) == 1

    heard_all(await bench.transcribed())

    assert bench.charges == [1] * len(bench.kept)


async def test_an_orderly_end_does_not_wait_for_ever(bench):
    bench.switch(stall=True)
    recognizer = bench.recognizer(close_s=0.3)
    task = asyncio.create_task(bench.transcribed(recognizer))
    while not bench.server.calls:
        await asyncio.sleep(0.01)

    async with asyncio.timeout(5):
        await recognizer.close()

    with pytest.raises((Transient, asyncio.CancelledError)):
        await task


async def test_a_lost_answer_costs_one_piece_a_second_time(bench):
    """Unavoidable: there is no idempotency key, and nothing lists what was recognized."""
    bench.switch(lose_answer=1)

    heard_all(await bench.transcribed())

    assert bench.charges == [1] * (len(bench.kept) - 1) + [2]


# -- what is special of HTTP --


@of(HTTP)
async def test_words_have_the_vendors_punctuation_and_confidence(bench, short):
    found = await bench.transcribed(path=short)

    assert [word.text for word in found.words] == ["F300,", "F310,", "F320,", "F330."]
    assert all(word.confidence == pytest.approx(0.9, abs=0.001) for word in found.words)
    assert found.model in ("whisper-1", "gpt-4o-transcribe", "nova-3", "scribe_v2")


@of(HTTP)
@pytest.mark.parametrize("without", ["confidences", "language", "billing", "times", "words"])
async def test_what_an_answer_leaves_out_is_not_known(bench, without):
    if isinstance(bench.server, openai_audio.Server) and without == "words":
        pytest.skip("its segments have the times")
    bench.switch(without=[without])

    found = await bench.transcribed()

    gpt = found.model.startswith("gpt")
    heard_all(found, times=without not in ("times", "words") and not gpt)
    if without == "confidences":
        assert found.confidence is None
    if without == "language" or (gpt and without != "language"):
        assert found.language is None
    assert found.details["billed_seconds"] >= SECONDS


@of(["openai"])
async def test_without_word_times_a_segments_words_are_spread_over_it(bench, short):
    bench.switch(without=["words"])

    found = await bench.transcribed(path=short)

    starts = [word.start_ms for word in found.words]
    assert starts == [0, 1000, 2000, 3000]


@of(HTTP)
@pytest.mark.parametrize("how", ["half", "garbage"])
async def test_an_answer_that_breaks_off_is_asked_for_again_some_times(bench, short, how):
    bench.switch(**{how: 1})
    if how == "garbage":
        with pytest.raises(ProviderError, match="no transcript"):
            await bench.transcribed(path=short)
        assert bench.charges == [1]
        return
    heard_all(await bench.transcribed(path=short), 4, times=bench.open != _gpt)
    assert bench.charges == [2]


@of(HTTP)
async def test_json_that_is_no_transcript_is_not_paid_for_again(bench, short):
    bench.switch(mangle=True)

    found = None
    with contextlib.suppress(ProviderError):
        found = await bench.transcribed(path=short)

    assert found is None or found.words == ()
    assert bench.charges == [1]


@of(HTTP)
@pytest.mark.parametrize(("late", "charges"), [("slow", [1]), ("cut", [2]), ("504", [2])])
async def test_what_is_accepted_late_is_billed_again_if_its_answer_was_lost(bench, short, late, charges):
    bench.switch(late=1, late_s=0.5, late_answer=late)

    await bench.transcribed(path=short)
    await asyncio.sleep(0.6)
    bench.server.accept()

    assert bench.charges == charges


@of(HTTP)
@pytest.mark.parametrize(
    ("switch", "said"),
    [
        ("unauthenticated", "is the key in"),
        ("forbidden", "may it do this"),
        ("broke", "broke is on"),
        ("too_large", "413"),
    ],
)
async def test_refusals_say_what_to_do(bench, short, switch, said):
    bench.switch(**{switch: True})

    with pytest.raises(ProviderError, match=said):
        await bench.transcribed(path=short)
    assert bench.server.calls == 1


@of(HTTP)
async def test_a_wrong_key_is_refused_and_no_key_is_ever_shown(bench, short):
    bench.switch(echo_key=True)
    with pytest.raises(Transient, match=r"upstream said no to \.\.\.") as echoed:
        await bench.transcribed(bench.recognizer(retries=0), short)
    bench.switch()
    wrong = bench.recognizer(key="a-wrong-key-of-nobody")
    with pytest.raises(ProviderError, match="401") as caught:
        await bench.transcribed(wrong, short)
    with pytest.raises(ProviderError, match="401"):
        await wrong.check()

    shown = f"{echoed.value}{caught.value}{wrong!r}{vars(wrong)}"
    assert bench.server.key not in shown
    assert "a-wrong-key-of-nobody" not in shown
    assert bench.charges == []
    await wrong.close()


@of(HTTP)
async def test_looking_is_free(bench):
    recognizer = bench.recognizer()
    await recognizer.check()
    if isinstance(bench.server, elevenlabs_scribe.Server):
        bench.server.restricted = True
        await recognizer.check()
    await recognizer.close()

    assert bench.charges == []
    with pytest.raises(NotAccepted, match="shut down"):
        await recognizer.check()


@of(["elevenlabs"])
async def test_what_the_vendor_keeps_is_deleted_when_its_answer_is_stored(bench, short):
    await bench.transcribed(path=short)
    assert bench.server.deleted == ["transcript-of-request-1"]
    bench.switch(keep=True)
    bench.kept.clear()

    found = await bench.transcribed(path=short)

    assert len(found.words) == 4
    assert len(bench.server.deleted) == 1


# -- speakers: the whole recording in one request --


@of(SPEAKERS)
async def test_speakers_are_told_apart_in_the_whole_recording_which_is_charged_once(bench):
    found = await bench.transcribed(diarize=True, duration_ms=SECONDS * 1000)

    is_a_transcript(found, bench.recognizer())
    heard_all(found)
    assert found.duration_ms == SECONDS * 1000
    assert len({word.speaker for word in found.words}) == 2
    assert (bench.charges, bench.server.calls) == ([1], 1)
    assert bench.server.asked["diarize"] == ["true"]
    assert "num_speakers" not in bench.server.asked
    again = await bench.transcribed(diarize=True)
    assert again == found
    assert bench.charges == [1]


@of(["elevenlabs"])
async def test_the_number_of_speakers_is_told(bench):
    await bench.transcribed(diarize=True, speakers=3)

    assert bench.server.asked["num_speakers"] == ["3"]


@of(["google", "openai"])
async def test_where_speakers_are_not_told_apart_pieces_have_none(bench):
    found = await bench.transcribed(diarize=True)

    assert {word.speaker for word in found.words} == {None}
    assert bench.server.calls > 1


@of(SPEAKERS)
async def test_a_whole_recording_whose_answers_are_lost_is_sent_twice_in_a_run_and_no_more(bench, short):
    bench.switch(lose_answer=True)

    for _ in range(3):  # the attempts of the stage, perhaps in other processes
        with pytest.raises(ProviderError, match="not sent again in this run"):
            await bench.transcribed(path=short, diarize=True)
    assert bench.charges == [WHOLE_SENDS]
    bench.switch(lose_answer=1)
    with_answer = await bench.recognizer().transcribe_chunks(
        short, replace(asked(diarize=True), run=2), bench.told.append, bench.kept, bench.limiter
    )

    assert len(with_answer.words) == 4
    assert bench.charges == [WHOLE_SENDS + 2]


@of(SPEAKERS)
async def test_a_whole_recording_that_was_in_flight_at_kills_is_sent_twice_and_no_more(bench, short):
    bench.switch(stall=True)
    for calls in range(1, WHOLE_SENDS + 1):
        task = asyncio.create_task(bench.transcribed(path=short, diarize=True))
        while bench.server.calls < calls:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    bench.switch()

    with pytest.raises(ProviderError, match="not sent again in this run"):
        await bench.transcribed(path=short, diarize=True)
    assert bench.server.calls == WHOLE_SENDS


@of(SPEAKERS)
async def test_refusals_of_a_whole_recording_are_no_sends(bench, short):
    bench.switch(refuse_429=WHOLE_SENDS + 1, retry_after_s=0.1)

    found = await bench.transcribed(path=short, diarize=True)

    assert len(found.words) == 4
    assert bench.charges == [1]
