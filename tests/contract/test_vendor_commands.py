"""Commands with the vendors' SDKs, some of which take a second to load: against servers on this machine."""

from __future__ import annotations

import argparse
import json

import pytest
from aiohttp.test_utils import TestServer

from agents.asr.assemblyai import AssemblyAI
from agents.commands import doctor, reconcile
from agents.commands.checks.text_model import text_model
from agents.fleet import recognizers
from agents.fleet.environment import from_env
from schemas.errors import SettingsError
from tests.servers import deepgram, elevenlabs_scribe, openai, openai_audio
from tests.servers.assemblyai import Server, Switches
from tests.servers.gemini import KEY, gemini_server

KEYED = {"CONCORD_RECOGNIZERS": "assemblyai,whisper-base", "ASSEMBLYAI_API_KEY": "a-key-nobody-may-see"}


def settings(**variables):
    return from_env(variables)


async def test_a_recognizer_is_opened_by_its_name():
    recognizer = recognizers.open_recognizer("assemblyai", settings(**KEYED))

    assert recognizer.name == "assemblyai"
    assert recognizer._callback is None
    await recognizer.close()
    with pytest.raises(SettingsError, match="assemblyai"):
        recognizers.open_recognizer("assemblyay", settings())


@pytest.mark.parametrize("missing", [None, "CONCORD_PUBLIC_URL", "WEBHOOK_SECRET"])
async def test_callbacks_are_asked_for_when_it_is_known_where_to_and_by_what(missing):
    given = KEYED | {"CONCORD_PUBLIC_URL": "https://concord.example.com/", "WEBHOOK_SECRET": "a secret of some length"}
    given.pop(missing, None)
    recognizer = recognizers.open_recognizer("assemblyai", settings(**given))
    await recognizer.close()

    if missing:
        assert recognizer._callback is None
    else:
        assert recognizer._callback.url == "https://concord.example.com/webhooks/assemblyai"
        assert recognizer._callback.token == recognizers.callback_tokens(settings(**given))["assemblyai"]
        assert "secret" not in recognizer._callback.token


async def test_the_doctor_tells_a_wrong_key_from_a_missing_server(tmp_path):
    server = Server(tmp_path / "ledger.jsonl", key=KEYED["ASSEMBLYAI_API_KEY"])
    async with TestServer(server.app()) as running:
        url = str(running.make_url("/"))
        right = await doctor._recognizer("assemblyai", settings(**KEYED, ASSEMBLYAI_BASE_URL=url), quick=True)
        other = settings(**KEYED | {"ASSEMBLYAI_API_KEY": "another"}, ASSEMBLYAI_BASE_URL=url)
        wrong = await doctor._recognizer("assemblyai", other, quick=True)
    away = await doctor._recognizer(
        "assemblyai", settings(**KEYED, ASSEMBLYAI_BASE_URL="http://127.0.0.1:9"), quick=True
    )

    assert [found.level for found in (right, wrong, away)] == ["ok", "fail", "fail"]
    assert "refuses us: assemblyai answered 401" in wrong.result
    assert "ASSEMBLYAI_API_KEY" in wrong.advice
    assert "cannot be reached at 127.0.0.1:9" in away.result
    assert "ASSEMBLYAI_BASE_URL" in away.advice
    assert "another" not in wrong.result


IN_PIECES = {
    "openai": (openai_audio, "OPENAI_TRANSCRIBE_API_KEY", "OPENAI_TRANSCRIBE_BASE_URL", "/v1"),
    "deepgram": (deepgram, "DEEPGRAM_API_KEY", "DEEPGRAM_BASE_URL", ""),
    "elevenlabs": (elevenlabs_scribe, "ELEVENLABS_API_KEY", "ELEVENLABS_BASE_URL", ""),
}


@pytest.mark.parametrize("name", IN_PIECES)
async def test_the_doctor_asks_vendors_without_being_billed(tmp_path, name):
    module, key, address, path = IN_PIECES[name]
    server = module.Server(tmp_path / "ledger.jsonl")

    async def examined(url, given):
        found = settings(CONCORD_RECOGNIZERS=name, **{key: given, address: url})
        return await doctor._recognizer(name, found, quick=True)

    async with TestServer(server.app()) as running:
        url = f"{str(running.make_url('')).rstrip('/')}{path}"
        right, wrong = await examined(url, module.KEY), await examined(url, "another")
    away = await examined(f"http://127.0.0.1:9{path}", module.KEY)

    assert [found.level for found in (right, wrong, away)] == ["ok", "fail", "fail"]
    assert "answered 401" in wrong.result
    assert key in wrong.advice
    assert "another" not in wrong.result
    assert "cannot be reached at 127.0.0.1:9" in away.result
    assert address in away.advice
    assert server.ledger.charges == []


@pytest.mark.parametrize(
    ("switch", "level", "said"),
    [
        ("stall", "fail", "does not answer a look at its list in time"),
        ("cut", "fail", "broke off a look at its list"),
        ("error_5xx", "fail", "answered 503"),
        ("refuse_429", "warn", "answered 429"),
        ("garble", "fail", "no JSON"),
    ],
)
async def test_the_doctor_tells_how_a_recognizer_that_is_there_does_not_work(
    tmp_path, monkeypatch, switch, level, said
):
    monkeypatch.setitem(AssemblyAI.__init__.__kwdefaults__, "timeout_s", 0.5)
    server = Server(tmp_path / "ledger.jsonl")
    async with TestServer(server.app()) as running:
        server.switches = Switches(**{switch: True})
        given = settings(**KEYED, ASSEMBLYAI_BASE_URL=str(running.make_url("/")))
        found = await doctor._recognizer("assemblyai", given, quick=True)
        server.switches = Switches()
        server._changed.set()

    assert found.level == level
    assert said in found.result
    assert found.advice


async def test_doctor_tells_whether_the_text_model_is_configured_good_refused_or_away():
    async def found(**env):
        [finding] = await text_model(settings(**env))
        assert openai.KEY not in repr(finding)
        return finding.level, finding.result

    async with openai.openai_server() as server:
        here = {"OPENAI_BASE_URL": server.url, "OPENAI_MODEL": "gpt-local"}
        found_all = [
            await found(),
            await found(OPENAI_API_KEY=openai.KEY, **here),
            await found(OPENAI_API_KEY="another", **here),
            await found(OPENAI_API_KEY=openai.KEY, **here | {"OPENAI_MODEL": "gpt-0"}),
        ]
    found_all.append(await found(OPENAI_API_KEY=openai.KEY, **here))

    assert [level for level, _ in found_all] == ["ok", "ok", "fail", "fail", "warn"]
    assert "digests" in found_all[0][1]
    assert "gpt-local" in found_all[3][1]


async def test_doctor_tells_whether_gemini_is_configured_good_refused_or_away():
    async def found(**env):
        [finding] = await doctor._gemini(settings(**env))
        assert env.get("GEMINI_API_KEY", "-") not in repr(finding)
        return finding.level, finding.result

    async with gemini_server() as server:
        here = {"GEMINI_BASE_URL": server.url}
        absent = await found()
        good = await found(GEMINI_API_KEY=KEY, **here)
        unused = await found(GEMINI_API_KEY=KEY, GEMINI_MAX_SPANS="0", **here)
        wrong = await found(GEMINI_API_KEY="another", **here)
        unknown = await found(GEMINI_API_KEY=KEY, GEMINI_MODEL="gemini-0", **here)
        server.misbehave("echo_key")
        failing = await found(GEMINI_API_KEY=KEY, **here)
    away = await found(GEMINI_API_KEY=KEY, **here)

    assert [level for level, _ in (absent, good, unused, wrong, unknown, failing, away)] == [
        *("ok", "ok", "warn", "fail", "fail", "warn", "warn")
    ]
    assert "not configured" in absent[1]
    assert "API key not valid" in wrong[1]
    assert "not found" in unknown[1]
    assert "cannot be reached" in away[1]
    assert server.asked == []


async def test_reconcile_calls_gemini_if_requested(tmp_path, capsys):
    heard = {
        "a": [["please", 0, 1], ["four", 1, 2], ["days", 2, 3]],
        "b": [["please", 0, 1], ["fourteen", 1, 2], ["days", 2, 3]],
    }
    (tmp_path / "call.json").write_text(json.dumps({"id": "call", "hypotheses": heard}))
    parser = argparse.ArgumentParser("concord")
    reconcile.add(parser.add_subparsers(required=True))
    told = parser.parse_args(["reconcile", str(tmp_path / "call.json"), "--adjudicate"])
    with pytest.raises(SettingsError, match="GEMINI_API_KEY"):
        await reconcile.run(told, settings())
    async with gemini_server() as server:
        await reconcile.run(told, settings(GEMINI_API_KEY=KEY, GEMINI_BASE_URL=server.url))

    out, err = capsys.readouterr()
    assert "fourteen" in out.splitlines()[0]
    assert "judged 1 of 1 disputed spans" in err
