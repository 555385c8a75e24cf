"""Where Whisper computes, and which folders are taken for models."""

from __future__ import annotations

import ctypes
import sys

import pytest

from agents.__main__ import parser_of
from agents.asr.whisper_models import Devices, Placement, check_devices, checked_folder, placed
from agents.commands import doctor
from agents.fleet.environment import from_env
from agents.fleet.models.local import check_local
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


#: What stands in for CTranslate2 on another machine.
_NO_LIBRARY = "raise ImportError('libcudart.so.12: cannot open shared object file')"
_ONE_DEVICE = """
def get_cuda_device_count():
    return 1

def get_supported_compute_types(device):
    return {"float16", "float32"}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "library", "error"),
    [
        (Devices("auto", "float32"), _NO_LIBRARY, r"CTranslate2 cannot be used: libcudart.* Run `make install`"),
        (Devices("cuda"), _ONE_DEVICE, r"cuBLAS does not load .*install cuBLAS 12.* or set WHISPER_DEVICE=cpu"),
        (Devices("cuda", numbers=(0, 1)), _ONE_DEVICE, r"there is no CUDA device 1; the driver shows 1"),
        (Devices("cpu", "int8"), _ONE_DEVICE, r"WHISPER_COMPUTE_TYPE: cpu does not support int8 here; it supports"),
        (Devices("cpu", "int8"), "import os; os._exit(3)", r"ends with exit code 3"),
    ],
    ids=["library", "cublas", "device", "type", "crash"],
)
def test_what_lacks_for_a_device_is_said_before_the_first_recording(tmp_path, monkeypatch, devices, library, error):
    if "cuBLAS" in error and _loads("libcublas.so.12"):
        pytest.skip("this machine has cuBLAS")
    (tmp_path / "ctranslate2.py").write_text(library)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ProviderError, match=error):
        check_devices(devices)


def _loads(library):
    try:
        return bool(ctypes.CDLL(library))
    except OSError:
        return False


def test_the_library_of_this_machine_is_asked_about_what_is_set_and_not_about_the_defaults(monkeypatch):
    ctranslate2 = pytest.importorskip("ctranslate2")
    check_devices(Devices("auto", "float32"))
    if not ctranslate2.get_cuda_device_count():
        with pytest.raises(ProviderError, match="there is no CUDA device 0; the driver shows 0"):
            check_devices(Devices("cuda"))
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    check_devices(Devices())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "is_checked"),
    [
        (["up"], True),
        (["worker", "intake", "transcribe.whisper-own"], True),
        (["worker", "reconcile"], False),
        (["worker", "transcribe.scripted-a"], False),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"WHISPER_MODELS": "whisper-own=/nonexistent/own"}, "WHISPER_MODELS: /nonexistent/own is no folder"),
        ({"WHISPER_COMPUTE_TYPE": "float16"}, "WHISPER_COMPUTE_TYPE: cpu does not support float16"),
    ],
    ids=["folder", "type"],
)
async def test_a_command_checks_what_its_recognizers_need_before_it_starts_anything(
    tmp_path, command, is_checked, variables, error
):
    pytest.importorskip("ctranslate2")
    environment = {"CONCORD_RECOGNIZERS": "scripted-a,whisper-own", "CONCORD_DATA": str(tmp_path / "data")}
    settings, arguments = from_env(environment | variables), parser_of(command).parse_args(command)
    if not is_checked:
        check_local(settings, arguments.stage)
        return
    with pytest.raises(SettingsError, match=error):
        await arguments.run(arguments, settings)
    assert not (tmp_path / "data").exists()


def test_a_worker_that_reconciles_needs_what_its_tiebreaker_needs(tmp_path):
    environment = {"CONCORD_RECOGNIZERS": "scripted-a", "CONCORD_TIEBREAKER": "whisper-own"}
    settings = from_env(environment | {"WHISPER_MODELS": f"whisper-own={tmp_path}"})
    with pytest.raises(SettingsError, match=r"has no model\.bin"):
        check_local(settings, ["reconcile"])
    check_local(settings, ["persist", "transcribe.scripted-a"])


async def test_doctor_tells_what_lacks(tmp_path):
    pytest.importorskip("ctranslate2")
    variables = {"WHISPER_MODELS": f"whisper-own={model(tmp_path)}", "CONCORD_RECOGNIZERS": "whisper-own"}
    [fine] = await doctor._recognizers(from_env(variables), quick=True)
    [wrong] = await doctor._recognizers(from_env(variables | {"WHISPER_COMPUTE_TYPE": "float16"}), quick=True)

    assert fine.level == "ok"
    assert (wrong.level, "cpu does not support float16 here; it supports" in wrong.result) == ("fail", True)
    assert "WHISPER_COMPUTE_TYPE" in wrong.advice
