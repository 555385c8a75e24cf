"""AssemblyAI beyond the contract of recognizers: fields of requests and responses, and secrets that must not leak."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agents.asr.assemblyai import CALLED_S, DELIVERY_MS, AssemblyAI, Callback
from agents.asr.protocols import Checked, ErasingRecognizer, Listed, Pending, Request, UploadingRecognizer
from schemas.errors import NotAccepted, ProviderError, RateLimited, SettingsError, Transient, Unavailable
from schemas.words import Hypothesis, Word
from tests.servers.assemblyai import Server, Switches

KEY = "a-key-nobody-may-see"
SIGNED = "https://blobs.example.com/acme/j/original.wav?X-Amz-Date={}&X-Amz-Signature=5ec2e7"
ASKED = Request("acme", "j", 1, "concord-j-1-assemblyai", audio_url=SIGNED.format(1))


class Sound:
    """`asr.protocols.Audio`: pieces, and perhaps a link; `closed` when the pieces were given up or read."""

    def __init__(self, pieces=(b"RIFF", b"data"), link=None, error=None) -> None:
        self.pieces, self.link, self.error = pieces, link, error
        self.closed = False

    async def stream(self):
        try:
            for piece in self.pieces:
                yield piece
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True

    async def url(self):
        return self.link


@pytest.fixture
async def running(tmp_path):
    """A server, and its address."""
    server = Server(tmp_path / "ledger.jsonl", key=KEY, again_s=0.05)
    async with TestServer(server.app()) as it:
        yield server, str(it.make_url("/"))
        server.switches = Switches()
        server._changed.set()


@pytest.fixture
def server(running):
    return running[0]


@pytest.fixture
async def recognizer(running):
    it = AssemblyAI("assemblyai", KEY, running[1], timeout_s=1.0)
    it._list.apart_s = 0.0
    yield it
    await it.close()


def wish(server, number=-1):
    """What one charge was asked with."""
    return server.ledger.charges[number]["wish"]


async def test_the_recognizer_uploads_and_can_be_checked(recognizer):
    assert isinstance(recognizer, UploadingRecognizer)
    assert isinstance(recognizer, Checked)


async def test_what_is_not_asked_for_is_not_sent(recognizer, server):
    await recognizer.submit(ASKED, Sound())

    assert wish(server) == {"audio_url": ASKED.audio_url, "language_detection": True}


async def test_every_wish_is_sent(recognizer, server):
    more = {"language": "en-GB", "diarize": True, "redact_pii": True, "vocabulary": ("Dashwood", "Barton Park")}
    more |= {"speakers": 2}
    id = await recognizer.submit(replace(ASKED, **more), Sound())
    heard = await recognizer.poll(id)

    sent = wish(server)
    assert (sent["language_code"], sent["speaker_labels"], sent["speakers_expected"]) == ("en_uk", True, 2)
    assert "language_detection" not in sent
    assert sent["keyterms_prompt"] == ["Dashwood", "Barton Park"]
    assert (sent["redact_pii"], sent["redact_pii_sub"]) == (True, "entity_name")
    assert {"person_name", "phone_number", "credit_card_number"} <= set(sent["redact_pii_policies"])
    assert not {"date", "money_amount", "organization"} & set(sent["redact_pii_policies"])
    assert heard.language == "en-GB"
    assert {word.speaker for word in heard.words} == {"A", "B"}
    assert "[PERSON_NAME]" in [word.text for word in heard.words]


@pytest.mark.parametrize(
    ("tag", "code"), [("en", "en"), ("en-US", "en_us"), ("EN-au", "en_au"), ("pt-BR", "pt"), ("de-CH", "de_ch")]
)
async def test_languages_are_named_as_the_vendor_names_them(recognizer, server, tag, code):
    await recognizer.submit(replace(ASKED, language=tag), Sound())

    assert wish(server)["language_code"] == code


async def test_a_link_to_our_storage_spares_the_upload(recognizer, server):
    url = await recognizer.upload(ASKED, Sound(link=SIGNED.format(1)))

    assert url == SIGNED.format(1)
    assert server.calls == []


@pytest.mark.parametrize(
    "link",
    [
        "http://blobs.example.com/a.wav",
        "https://localhost/a.wav",
        "https://minio:9000/a.wav",
        "https://10.1.2.3/a.wav",
        "https://[::1]/a.wav",
        "https://minio.storage.svc.cluster.local/a.wav",
    ],
)
async def test_a_link_that_only_we_can_follow_is_not_given_to_the_vendor(link):
    recognizer = AssemblyAI("assemblyai", KEY)

    assert not recognizer._follows(link)
    assert recognizer._follows("https://bucket.s3.eu-central-1.amazonaws.com/acme/j/original.wav")
    await recognizer.close()


async def test_an_upload_is_streamed_and_every_one_has_its_own_url(recognizer, server):
    sound = Sound([bytes(1 << 20)] * 20)
    one, two = await recognizer.upload(ASKED, sound), await recognizer.upload(ASKED, sound)

    assert one != two
    assert sound.closed
    assert [headers.get("Transfer-Encoding") for _, headers in server.calls] == ["chunked"] * 2
    assert server.ledger.charges == []


async def test_an_upload_may_take_longer_than_a_call(recognizer):
    class Slow(Sound):
        async def stream(self):
            for _ in range(4):
                await asyncio.sleep(0.4)
                yield b"piece"

    assert await recognizer.upload(ASKED, Slow())


async def test_an_outage_of_our_own_store_in_the_middle_of_an_upload_is_that(recognizer):
    sound = Sound(error=Unavailable("the store is away"))

    with pytest.raises(Unavailable):
        await recognizer.upload(ASKED, sound)
    assert sound.closed


async def test_a_cancelled_upload_lets_go_of_the_audio(recognizer, server):
    server.switches = Switches(stall=True)
    sound = Sound([bytes(1 << 20)] * 200)
    task = asyncio.create_task(recognizer.upload(ASKED, sound))
    await asyncio.sleep(0.3)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert sound.closed


async def test_what_the_sdk_does_not_know_is_read_all_the_same(recognizer, server):
    """A status, a model, a policy and a fraction of a second that the SDK's models refuse: it is paid for."""
    server.switches = Switches(novel=True, delay_s=0.3)
    id = await recognizer.submit(ASKED, Sound())
    waiting = await recognizer.poll(id)
    await asyncio.sleep(0.3)
    heard = await recognizer.poll(id)

    assert isinstance(waiting, Pending)
    assert heard.model == "universal-9"
    assert len(heard.words) > 50
    assert await recognizer.find(ASKED) == id


@pytest.mark.parametrize("how", ["garble", "mangle"])
async def test_an_answer_to_a_submission_that_cannot_be_read_is_looked_for(recognizer, server, how):
    server.switches = Switches(**{how: 1})
    with pytest.raises(Transient):
        await recognizer.submit(ASKED, Sound())

    assert await recognizer.find(ASKED) == server.ledger.charges[0]["id"]


async def test_a_transcript_that_cannot_be_read_is_a_final_no_that_says_where(recognizer, server):
    id = await recognizer.submit(ASKED, Sound())
    server.switches = Switches(mangle=True)

    with pytest.raises(ProviderError, match=r"words\.0\.text"):
        await recognizer.poll(id)


@pytest.mark.parametrize("call", ["find", "poll"])
async def test_a_gateways_page_is_transient(recognizer, server, call):
    id = await recognizer.submit(ASKED, Sound())
    server.switches = Switches(garble=True)

    with pytest.raises(Transient):
        await (recognizer.find(ASKED) if call == "find" else recognizer.poll(id))


async def test_a_connection_that_is_cut_before_the_request_was_taken_charges_nothing(recognizer, server):
    server.switches = Switches(cut=1)
    with pytest.raises(Transient):
        await recognizer.submit(ASKED, Sound())

    assert server.ledger.charges == []
    assert await recognizer.find(ASKED) is None


async def test_a_recording_without_speech_has_an_empty_transcript(recognizer, server):
    server.switches = Switches(fail="language_detection cannot be performed on files with no spoken audio.")
    heard = await recognizer.poll(await recognizer.submit(ASKED, Sound()))

    assert heard == Hypothesis("assemblyai", (), duration_ms=3000)


async def test_times_and_confidences_out_of_their_range_are_put_right(recognizer):
    said = [
        {"text": " late ", "start": 900.4, "end": 800, "confidence": 1.0000001, "channel": "2"},
        {"text": "", "start": 0, "end": 1, "confidence": 0.5},
        {"text": "early", "start": -3, "end": 90, "confidence": -0.1, "speaker": "A"},
    ]
    found = {"status": "completed", "words": said, "audio_duration": 0, "language_code": None, "confidence": None}

    async def answer(_):
        return web.json_response(found)

    app = web.Application()
    app.router.add_get("/v2/transcript/{id}", answer)
    async with TestServer(app) as running:
        other = AssemblyAI("assemblyai", KEY, str(running.make_url("/")))
        heard = await other.poll("x")
        await other.close()

    assert heard.words == (Word("early", 0, 90, 0.0, "A"), Word("late", 900, 900, 1.0, None, 2))
    assert heard.duration_ms == 900


async def test_an_id_is_one_part_of_a_path(recognizer, server):
    with pytest.raises(ProviderError):
        await recognizer.poll("../../ledger")

    assert server.calls[-1][0] == "poll"


# -- what must not be told --


async def told(call):
    with pytest.raises((Transient, ProviderError)) as caught:
        await call
    shown, exc = [], caught.value
    while exc is not None:
        shown.append(f"{exc!s} {exc!r}")
        exc = exc.__cause__
    return " ".join(shown)


async def test_no_error_shows_the_key_or_a_signature(recognizer, server, caplog):
    caplog.set_level(logging.DEBUG)
    errors = []
    id = await recognizer.submit(ASKED, Sound())
    server.switches = Switches(fail=True)
    errors.append(await told(recognizer.poll(id)))
    for switches in ({"refuse_429": True}, {"error_5xx": True}, {"cut": True}, {"garble": True}):
        server.switches = Switches(**switches)
        errors.append(await told(recognizer.submit(ASKED, Sound())))
    server.switches = Switches()
    errors.append(await told(recognizer.submit(replace(ASKED, language="tlh"), Sound())))

    shown = " ".join([*errors, repr(recognizer), repr(ASKED)])
    assert "X-Amz-Signature" not in shown
    assert KEY not in shown
    assert "unable to download" in errors[0]
    assert "X-Amz-Signature" not in " ".join(r.getMessage() for r in caplog.records if r.levelno > logging.DEBUG)


async def test_a_wrong_key_is_called_that_and_a_missing_server_is_not(running):
    server, url = running
    wrong = AssemblyAI("assemblyai", "another-key", url)
    away = AssemblyAI("assemblyai", "another-key", "http://127.0.0.1:9", timeout_s=1.0)

    with pytest.raises(ProviderError, match="key in ASSEMBLYAI_API_KEY is refused"):
        await wrong.check()
    with pytest.raises(ProviderError, match="key in ASSEMBLYAI_API_KEY is refused"):
        await wrong.upload(ASKED, Sound([bytes(1 << 20)] * 30))
    with pytest.raises(Transient, match=r"cannot be reached at 127\.0\.0\.1:9"):
        await away.check()
    assert server.ledger.charges == []
    await wrong.close()
    await away.close()


@pytest.mark.parametrize("key", ["", "with space", "line\nbreak", "schlüssel"])
def test_what_cannot_be_a_key_is_refused_without_being_shown(key):
    with pytest.raises(SettingsError) as caught:
        AssemblyAI("assemblyai", key)

    assert not key or key not in str(caught.value)


# -- pauses --


async def test_each_of_many_calls_at_once_gets_its_own_pause():
    async def pause(request):
        number = request.match_info["id"]
        await asyncio.sleep(0.001 * (int(number) % 7))
        return web.json_response({"error": "slow"}, status=429, headers={"Retry-After": number})

    app = web.Application()
    app.router.add_get("/v2/transcript/{id}", pause)
    async with TestServer(app) as running:
        recognizer = AssemblyAI("assemblyai", KEY, str(running.make_url("/")))
        answers = await asyncio.gather(*(recognizer.poll(str(n)) for n in range(60)), return_exceptions=True)
        await recognizer.close()

    assert all(isinstance(answer, RateLimited) for answer in answers)
    assert [answer.retry_after for answer in answers] == list(range(60))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("12", 12),
        ("0.5", 0.5),
        ("-3", 0),
        ("99999999", 3600),
        ("nan", None),
        ("soon", None),
        ("in ten minutes", 600),
    ],
)
async def test_a_pause_is_a_number_or_a_date_and_has_an_end(recognizer, server, header, seconds):
    if header == "in ten minutes":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    server.switches = Switches(refuse_429=True, retry_after_s=header)

    with pytest.raises(RateLimited) as caught:
        await recognizer.poll("x")
    assert caught.value.retry_after == (seconds if seconds != 600 else pytest.approx(600, abs=60))


# -- finding what was lost --


async def test_the_search_goes_back_over_many_pages(recognizer, server):
    id = await recognizer.submit(ASKED, Sound())
    now = time.time()
    for n in range(450):
        server.ledger.charge({"id": f"other-{n}", "audio_url": f"https://x/{n}", "charged_at": now, "ready_at": now})

    asked = replace(ASKED, since=datetime.now(UTC) - timedelta(seconds=5))
    assert await recognizer.find(asked, proof=False) == id
    assert [call for call, _ in server.calls].count("find") == 5  # pages overlap by one; the last two are the end


async def test_the_search_goes_back_no_further_than_to_when_the_url_was_made(recognizer, server):
    for n in range(1000):
        ago = time.time() - 3600 + n
        server.ledger.charge({"id": f"other-{n}", "audio_url": f"https://x/{n}", "charged_at": ago, "ready_at": ago})

    asked = replace(ASKED, since=datetime.now(UTC))
    assert await recognizer.find(asked) is None
    assert [call for call, _ in server.calls].count("find") == 2  # for proof it is read twice


async def test_a_list_without_end_is_given_up_in_time_and_not_taken_for_a_no(running):
    async def endless(request):
        await asyncio.sleep(0.05)
        number = int(request.query.get("before_id", "0"))
        item = {"id": str(number + 1), "audio_url": "https://x/1", "created": datetime.now(UTC).isoformat()}
        return web.json_response({"page_details": {}, "transcripts": [item | {"status": "queued"}]})

    app = web.Application()
    app.router.add_get("/v2/transcript", endless)
    async with TestServer(app) as server:
        recognizer = AssemblyAI("assemblyai", KEY, str(server.make_url("/")), timeout_s=0.5)
        recognizer._list._reading_s = 0.5
        with pytest.raises(Transient, match="too long"):
            await recognizer.find(ASKED)
        await recognizer.close()


@pytest.mark.parametrize("how", [{"status": 202}, {"half": 1}, {"late": 1, "late_answer": "504"}], ids=str)
async def test_an_answer_to_a_submission_that_is_none_leaves_open_whether_it_is_accepted(recognizer, server, how):
    server.switches = Switches(**how)

    with pytest.raises(Transient) as caught:
        await recognizer.submit(ASKED, Sound())
    assert not isinstance(caught.value, NotAccepted)


async def test_a_list_that_has_other_requests_only_now_and_then_proves_nothing(recognizer, server):
    """In one reading of the two something is missing that was there long before."""
    for n in range(5):
        ago = time.time() - 500 + 100 * n
        server.ledger.charge({"id": f"other-{n}", "audio_url": f"https://x/{n}", "charged_at": ago, "ready_at": ago})
    server.switches = Switches(gap=1)
    with pytest.raises(Transient, match="leaves some out"):
        await recognizer.find(replace(ASKED, since=datetime.now(UTC)))

    assert await recognizer.find(replace(ASKED, since=datetime.now(UTC))) is None


async def test_a_list_that_has_forgotten_where_we_were_is_not_taken_for_its_end(recognizer, server):
    now = time.time()
    for n in range(5):
        server.ledger.charge({"id": f"other-{n}", "audio_url": f"https://x/{n}", "charged_at": now, "ready_at": now})
    server.switches = Switches(page=2)
    page, deleted = recognizer._page, []

    async def forgetting(before):
        if before is not None and not deleted:
            deleted.append(before)
            server._deleted.add(before)
        return await page(before)

    recognizer._page = forgetting
    with pytest.raises(Transient, match="does not go on where it was"):
        await recognizer.find(replace(ASKED, since=datetime.now(UTC)))


async def test_those_who_look_at_the_same_time_share_a_reading(recognizer, server):
    asked = [replace(ASKED, audio_url=f"https://x/{n}", since=datetime.now(UTC)) for n in range(30)]
    ids = [await recognizer.submit(each, Sound()) for each in asked]
    found = await asyncio.gather(*(recognizer.find(each) for each in asked))

    assert found == ids
    assert [call for call, _ in server.calls].count("find") <= 2 * 2 * 2  # two readings each, of two calls


async def test_a_reading_goes_on_when_who_asked_for_it_has_given_up(recognizer, server):
    id = await recognizer.submit(ASKED, Sound())
    server.switches = Switches(stall=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await recognizer.find(ASKED)
    server.switches = Switches()
    looked = [call for call, _ in server.calls].count("find")

    assert looked == 1
    with contextlib.suppress(Transient):  # the call that stalled was cut off, or given up
        await recognizer.find(ASKED, within_s=10)
    assert await recognizer.find(ASKED, within_s=10) == id


async def test_a_link_to_our_storage_is_recognized_by_its_path_whatever_its_signature(recognizer):
    listed = Listed("x", datetime(2026, 1, 1, tzinfo=UTC), frozenset([SIGNED.format(1)]))
    upload = Listed("y", None, frozenset(["https://cdn.assemblyai.com/upload/1"]))
    again = replace(ASKED, audio_url=SIGNED.format(2), since=datetime.now(UTC))

    assert recognizer.recalls(listed, again)
    assert recognizer.recalls(listed, replace(again, audio_url="https://bucket/another.wav?s=1")) is False
    assert recognizer.recalls(upload, again) is False
    assert recognizer.recalls(upload, replace(again, audio_url="https://cdn.assemblyai.com/upload/2")) is None
    assert recognizer.recalls(Listed("z", None, None), again) is None


async def test_the_system_does_not_deliver_a_request_long_after_we_have_given_up(recognizer, server):
    await recognizer.submit(ASKED, Sound())
    [connection] = recognizer._client._calls.http_client._transport._pool.connections
    stream = connection._connection._network_stream.get_extra_info("socket")

    assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == DELIVERY_MS


@pytest.mark.parametrize("bare", [False, True])
async def test_a_run_finds_its_own_request_and_not_that_of_an_earlier_run(recognizer, server, bare):
    """Both have the same object's URL; where the list leaves the signatures out, the time tells them apart."""
    server.switches = Switches(bare=bare)
    first = replace(ASKED, since=datetime.now(UTC))
    second = replace(ASKED, run=2, audio_url=SIGNED.format(2), since=datetime.now(UTC) + timedelta(hours=1))
    one = await recognizer.submit(first, Sound())

    assert await recognizer.find(first) == one
    assert await recognizer.find(second) is None


# -- callbacks --


@contextlib.asynccontextmanager
async def callee(statuses):
    """Somebody to call, who answers with these statuses in turn."""
    heard = []

    async def listen(request):
        heard.append((request.headers.get("X-Token"), await request.json()))
        return web.Response(status=statuses.pop(0))

    app = web.Application()
    app.router.add_post("/webhooks/assemblyai", listen)
    async with TestServer(app) as server:
        yield Callback(str(server.make_url("/webhooks/assemblyai")), "X-Token", "the-token"), heard


async def test_with_a_callback_url_it_is_sent_and_polls_are_rarer(running):
    server, url = running
    server.switches = Switches(delay_s=0.2)
    async with callee([503, 204]) as (callback, heard):
        recognizer = AssemblyAI("assemblyai", KEY, url, callback=callback)
        id = await recognizer.submit(ASKED, Sound())
        waiting = await recognizer.poll(id)
        async with asyncio.timeout(5):
            while len(server.called) < 2:
                await asyncio.sleep(0.02)
        await recognizer.close()

    assert waiting == Pending(CALLED_S)
    assert heard == [("the-token", {"transcript_id": id, "status": "completed"})] * 2
    assert "the-token" not in repr(callback)


async def test_a_real_recognizer_may_stand_behind_the_server(tmp_path):
    async def listen(path):
        return Hypothesis("x", (Word(path.read_text(), 0, 400, 0.9),), "en", 1000, 0.9)

    server = Server(tmp_path / "ledger.jsonl", listen=listen)
    async with TestServer(server.app()) as running:
        recognizer = AssemblyAI("assemblyai", KEY, str(running.make_url("/")))
        url = await recognizer.upload(ASKED, Sound([b"spo", b"ken"]))
        id = await recognizer.submit(replace(ASKED, audio_url=url), Sound())
        while isinstance(heard := await recognizer.poll(id), Pending):
            await asyncio.sleep(0.02)
        await recognizer.close()

    assert [word.text for word in heard.words] == ["spoken"]


async def test_the_server_gets_the_audio_by_its_url_and_fails_as_the_vendor_does_where_there_is_none(
    recognizer, server, tmp_path
):
    (tmp_path / "call.wav").write_bytes(b"RIFF" * 100_000)
    blobs = web.Application()
    blobs.router.add_static("/blobs", tmp_path)
    server.switches = Switches(fetch=True)
    async with TestServer(blobs) as there:
        url = str(there.make_url("/blobs/call.wav?X-Amz-Signature=5ec2e7%2F"))
        for link in (url, url.replace("call", "nothing")):
            await recognizer.submit(replace(ASKED, audio_url=link), Sound())
        heard, missing = await asyncio.gather(*(ended(recognizer, c["id"]) for c in server.ledger.charges))

    assert heard.words
    assert "unable to download" in str(missing)
    there, gone = sorted(server.fetched, key=lambda came: came["status"])
    assert (there["status"], there["sha256"]) == (200, hashlib.sha256(b"RIFF" * 100_000).hexdigest())
    assert gone["status"] == 404


async def ended(recognizer, id):
    """The transcript, or the error that it ended in."""
    try:
        while isinstance(heard := await recognizer.poll(id), Pending):
            await asyncio.sleep(0.02)
    except ProviderError as exc:
        return exc
    return heard


async def test_a_transcript_is_deleted_with_what_was_uploaded_for_it_and_again_without_harm(recognizer, server):
    id = await recognizer.submit(ASKED, Sound())

    assert isinstance(recognizer, ErasingRecognizer)
    assert [await recognizer.erase(id, ASKED.audio_url) for _ in range(2)] == [None, None]
    assert await recognizer.erase("unknown", None) is None
    assert [call for call, _ in server.calls].count("delete") == 3
    with pytest.raises(ProviderError):
        await recognizer.poll(id)


async def test_a_transcript_is_not_taken_for_deleted_because_the_vendor_refuses(recognizer, server):
    id = await recognizer.submit(ASKED, Sound())
    server.switches.on = ["delete", "poll"]
    for switch, error in {"forbidden": ProviderError, "error_5xx": Transient, "cut": Transient}.items():
        setattr(server.switches, switch, True)
        with pytest.raises(error):
            await recognizer.erase(id, None)
        setattr(server.switches, switch, False)

    assert await recognizer.erase(id, None) is None


async def test_what_no_request_has_used_is_reported(recognizer):
    url = await recognizer.upload(ASKED, Sound())

    assert "upload" in await recognizer.erase(None, url)
    assert await recognizer.erase(None, SIGNED.format(1)) is None
