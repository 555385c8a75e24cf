"""Where Whisper computes, and which folders are taken for models."""

from __future__ import annotations

import pytest

from agents.asr.whisper_models import Devices, Placement, checked_folder, placed
from agents.fleet.environment import from_env
from agents.fleet.recognizers import open_recognizer
from schemas.errors import ProviderError, SettingsError

TYPES = {"cpu": {"int8", "float32", "int8_float32"}, "cuda": {"int8", "float16", "float32", "int8_float16"}}
OLD = TYPES | {"cuda": {"int8", "float32"}}


@pytest.mark.parametrize(
    ("device", "number", "compute_type", "devices", "types", "expected"),
    [
        ("cpu", 0, "", 0, TYPES, ("cpu", 0, "int8")),
        ("cpu", 3, "float32", 2, TYPES, ("cpu", 0, "float32")),
        ("auto", 0, "", 0, TYPES, ("cpu", 0, "int8")),
        ("auto", 1, "", 0, TYPES, ("cpu", 0, "int8")),
        ("auto", 1, "", 2, TYPES, ("cuda", 1, "float16")),
        ("cuda", 0, "", 1, OLD, ("cuda", 0, "float32")),
        ("cuda", 0, "int8_float16", 1, TYPES, ("cuda", 0, "int8_float16")),
    ],
)
def test_a_process_is_placed(device, number, compute_type, devices, types, expected):
    assert placed(device, number, compute_type, devices, types.__getitem__) == Placement(*expected)


@pytest.mark.parametrize(
    ("device", "number", "compute_type", "devices", "error"),
    [
        ("cuda", 0, "", 0, "there is no CUDA device 0; the driver shows 0. Set WHISPER_DEVICE=cpu"),
        ("cuda", 2, "", 2, "there is no CUDA device 2; the driver shows 2"),
        ("auto", 1, "", 1, "there is no CUDA device 1"),
        ("cpu", 0, "float16", 0, "cpu does not support float16 here; it supports float32, int8, int8_float32"),
    ],
)
def test_what_is_not_there_is_refused_with_what_to_do(device, number, compute_type, devices, error):
    with pytest.raises(ProviderError, match=error):
        placed(device, number, compute_type, devices, TYPES.__getitem__)


def test_the_library_itself_says_what_there_is():
    ctranslate2 = pytest.importorskip("ctranslate2")
    devices = ctranslate2.get_cuda_device_count()
    where = placed("auto", 0, "", devices, ctranslate2.get_supported_compute_types)

    assert where.device == ("cuda" if devices else "cpu")
    assert where.compute_type != "default"


def test_each_process_has_its_device():
    assert len(Devices().arguments) == 1
    assert Devices("cuda", "float16", (0, 1), 2).arguments == (
        *[("cuda", "0", "float16", "")] * 2,
        *[("cuda", "1", "float16", "")] * 2,
    )


def model(folder, **files):
    names = {"model.bin": b"\6\0\0\0\x0c\0WhisperSpec\0", "config.json": b"{}", "tokenizer.json": b"{}"}
    for name, content in (names | files).items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def test_a_model_in_the_form_of_ctranslate2_is_taken(tmp_path):
    assert checked_folder(model(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"model.bin": None}, "has no model.bin"),
        ({"tokenizer.json": None}, "has no tokenizer.json"),
        ({"model.bin": b"\6\0\0\0\x0f\0TransformerSpec"}, "no Whisper model of CTranslate2: convert it"),
        ({"model.bin": b"version https://git-lfs.github.com/spec/v1"}, "no Whisper model of CTranslate2"),
        ({"model.bin": None, "model.safetensors": b""}, "of another form: convert it: ct2-transformers-converter"),
    ],
)
def test_what_is_no_model_is_refused_with_what_to_do(tmp_path, files, error):
    with pytest.raises(ProviderError, match=error):
        checked_folder(model(tmp_path, **files))
    environment = {"WHISPER_MODELS": f"whisper-own={tmp_path}", "CONCORD_RECOGNIZERS": "whisper-own"}
    with pytest.raises(SettingsError, match=f"WHISPER_MODELS: .*{error}"):
        open_recognizer("whisper-own", from_env(environment))


async def test_a_folder_becomes_a_recognizer_with_as_many_processes_as_are_set(tmp_path):
    environment = {"WHISPER_MODELS": f"whisper-own={model(tmp_path)}", "CONCORD_RECOGNIZERS": "whisper-own"}
    environment |= {"WHISPER_DEVICES": "0,1", "WHISPER_PROCESSES": "2", "WHISPER_DEVICE": "cuda"}
    recognizer = open_recognizer("whisper-own", from_env(environment))

    assert (recognizer.name, recognizer.at_once) == ("whisper-own", 4)
    await recognizer.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"WHISPER_DEVICE": "tpu"},
        {"WHISPER_DEVICES": ","},
        {"WHISPER_DEVICES": "0,0"},
        {"WHISPER_DEVICES": "first"},
        {"WHISPER_PROCESSES": "0"},
        {"WHISPER_COMPUTE_TYPE": "int4"},
        {"WHISPER_MODELS": "own=/models/own"},
        {"WHISPER_MODELS": "/models/own"},
    ],
    ids=str,
)
def test_settings_that_are_wrong_are_refused_at_the_start(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        from_env(wrong)
