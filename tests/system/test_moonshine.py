"""Moonshine on speech, and on what is none."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import pytest_asyncio

from agents.asr.protocols import Request
from agents.commands.demo_recordings import PEOPLE, RATE, reference_text, write
from agents.embedded.moonshine_weights import moonshine_path
from bench.default_pair import CONDITIONS
from schemas.errors import ProviderError
from tests.conftest import need

need("faster_whisper", "moonshine_cpp", "onnx", "espeakng_loader", "whisper_normalizer")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def moonshine():
    from agents.asr.moonshine.recognizer import Moonshine

    recognizer = Moonshine("moonshine-base.en", lambda: moonshine_path(None))
    yield recognizer
    await recognizer.close()


async def heard(recognizer, path, **fields):
    asked = Request(tenant_id="acme", job_id="job", run=1, marker="m", **fields)
    return await recognizer.transcribe(path, asked, lambda _: None)


def text(hypothesis):
    return " ".join(word.text for word in hypothesis.words)


def read(path):
    from agents.media.decoding.decoder import decode

    return np.concatenate(list(decode(path)))


@pytest.mark.parametrize(("condition", "limit"), [("clean", 4), ("telephone", 8)])
async def test_few_words_of_a_reader_are_wrong(moonshine, tmp_path, condition, limit):
    """Of 119; as measured, 2 and 4."""
    from agents.text.score import score

    source = PEOPLE / "two-cities.flac"
    path = write(tmp_path / "a.wav", CONDITIONS[condition](read(source)))

    assert score(reference_text(source), text(await heard(moonshine, path))).errors <= limit


async def test_times_confidences_language_and_length_are_returned(moonshine):
    found = await heard(moonshine, PEOPLE / "sense-and-sensibility.flac")

    assert (found.language, found.tells_language, found.model) == ("en", False, "moonshine-base.en")
    assert 0.7 < found.confidence <= 1
    first, last = found.words[0], found.words[-1]
    assert (first.text, last.text) == ("And", "himself.")
    assert last.end_ms < found.duration_ms
    assert last.start_ms > found.duration_ms - 2_000
    assert all(one.start_ms <= two.start_ms for one, two in zip(found.words, found.words[1:], strict=False))


async def test_words_are_where_whisper_has_them(moonshine):
    """At the median within a tenth of a second, over both recordings of people."""
    from agents.asr.whisper import Whisper
    from agents.embedded.weights import model_path

    whisper = Whisper("whisper-tiny.en", lambda: model_path("tiny.en", None))
    apart = []
    for path in PEOPLE.glob("*.flac"):
        one, two = await asyncio.gather(heard(moonshine, path), heard(whisper, path))
        starts = {}
        for word in two.words:
            starts.setdefault(word.text.lower(), []).append(word.start_ms)
        apart += [
            min(abs(word.start_ms - start) for start in starts[word.text.lower()])
            for word in one.words
            if word.text.lower() in starts
        ]
    await whisper.close()

    assert len(apart) > 100
    assert np.median(apart) < 130


def noise(kind):
    random = np.random.default_rng(5)
    at = np.arange(20 * RATE) / RATE
    return {
        "silence": np.zeros(len(at)),
        "hiss": random.normal(0, 0.03, len(at)),
        "loud hiss": random.normal(0, 0.25, len(at)),
        "hum": 0.05 * np.sin(2 * np.pi * 50 * at),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * at),
        "ringing": 0.1 * (np.sin(2 * np.pi * 440 * at) + np.sin(2 * np.pi * 480 * at)) * (at % 6 < 2),
    }[kind]


@pytest.mark.parametrize("kind", ["silence", "hiss", "loud hiss", "hum", "tone", "ringing"])
async def test_no_words_come_out_of_nothing(moonshine, tmp_path, kind):
    found = await heard(moonshine, write(tmp_path / "a.wav", noise(kind)))

    assert (text(found), found.confidence, found.duration_ms) == ("", None, 20_000)


async def test_another_language_than_english_is_a_final_no(moonshine, tmp_path):
    path = write(tmp_path / "a.wav", np.zeros(RATE))

    with pytest.raises(ProviderError, match=r"moonshine-base\.en: it recognizes English only, not 'fr'"):
        await heard(moonshine, path, language="fr")
    assert (await heard(moonshine, path, language="en-GB")).language == "en-GB"
