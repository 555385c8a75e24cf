"""Commands with the vendors' SDKs, some of which take a second to load: against servers on this machine."""

from __future__ import annotations

import argparse
import json

import pytest

from agents.commands import doctor, reconcile
from agents.fleet import recognizers
from agents.fleet.environment import from_env
from schemas.errors import SettingsError
from tests.servers.gemini import KEY, gemini_server


def settings(**variables):
    return from_env(variables)


async def test_a_recognizer_is_opened_by_its_name():
    keyed = settings(CONCORD_RECOGNIZERS="assemblyai", ASSEMBLYAI_API_KEY="any")
    recognizer = recognizers.open_recognizer("assemblyai", keyed)

    assert recognizer.name == "assemblyai"
    assert recognizer._callback is None
    await recognizer.close()
    with pytest.raises(SettingsError, match="assemblyai"):
        recognizers.open_recognizer("assemblyay", settings())


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
