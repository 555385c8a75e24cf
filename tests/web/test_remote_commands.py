"""Commands over HTTP against the web service: what they print, and their exit statuses."""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio

from agents.__main__ import completed, parser_of
from agents.commands.remote import client as remote
from agents.commands.remote.upload import Form
from tests.web.uploading import recording, uploading

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service():
    """One for all tests, whose jobs have names of their own: starting the prober takes a second."""
    async with uploading() as service:
        yield service


@pytest.fixture
def concord(service, capsys):
    """Run a command in a thread: its status, and what it printed."""

    async def run(*line, key="acme-key", url=None):
        environment = {"CONCORD_URL": url or service.url, "CONCORD_API_KEY": key}
        arguments = parser_of(line).parse_args([str(part) for part in line])
        status = await asyncio.to_thread(completed, lambda: arguments.remote(arguments, environment))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def call_wav(tmp_path):
    path = tmp_path / 'Zoë\'s "call".wav'
    path.write_bytes(recording())
    return path


async def test_a_recording_is_sent_with_its_fields_and_is_a_job(concord, service, call_wav):
    status, printed, _ = await concord(
        "upload", call_wav, "--reference", "order 1/2", "--metadata", '{"agent": "Zoë"}', "--language", "de"
    )
    again, same, _ = await concord("upload", call_wav, "--reference", "order 1/2", "--json")
    shown, job, _ = await concord("jobs", "show", "order 1/2", "--json")

    assert (status, again, shown) == (0, 0, 0)
    job = json.loads(job)
    assert (job["filename"], job["reference"]) == ('Zoë\'s "call".wav', "order 1/2")
    assert job["metadata"] == {"agent": "Zoë"}
    assert json.loads(same)["job_id"] == job["job_id"]
    assert job["job_id"] in printed


async def test_jobs_are_listed_shown_cancelled_and_run_again(concord, call_wav):
    await concord("upload", call_wav, "--reference", "one")

    status, listed, _ = await concord("jobs", "list", "--status", "transcribing")
    assert status == 0
    assert listed.splitlines()[0].split() == ["JOB", "STATUS", "CREATED", "FILE", "REFERENCE"]
    assert "transcribing" in listed.splitlines()[1]
    assert (await concord("jobs", "show", "one"))[0] == 0
    assert (await concord("jobs", "cancel", "one"))[:2] == (0, "cancelled\n")
    assert (await concord("jobs", "cancel", "one"))[0] == remote.CONFLICT
    status, events, failed = await concord("jobs", "watch", "one")
    assert (status, "failed" in events, failed) == (remote.FAILED, True, "failed: " + failed[8:])
    assert (await concord("jobs", "reprocess", "one"))[:2] == (0, "run 2 begins\n")


@pytest.mark.parametrize(
    ("line", "more", "status", "words"),
    [
        (["jobs", "show", "nobody"], {}, remote.NOT_FOUND, "there is no such job (not_found)"),
        (["jobs", "list"], {"key": "wrong"}, remote.REFUSED, "this API key is not known here"),
        (["jobs", "list"], {"url": "http://127.0.0.1:9"}, remote.AWAY, "CONCORD_URL names another"),
        (["jobs", "list", "--status", "x"], {}, remote.INVALID, "status"),
        (["jobs", "delete", "nobody"], {}, remote.INVALID, "--yes does it without asking"),
        (["transcript", "nobody"], {}, remote.NOT_FOUND, "there is no such job"),
        (["upload", "/nowhere.wav"], {}, remote.INVALID, "/nowhere.wav: No such file"),
        (["upload", "a.wav", "--metadata", "[]"], {}, remote.INVALID, "--metadata is no JSON object"),
        (["upload", "a.wav", "b.wav", "--reference", "r"], {}, remote.INVALID, "--reference names one recording"),
    ],
)
async def test_each_failure_has_a_status_and_says_what_to_do(concord, line, more, status, words):
    code, printed, said = await concord(*line, **more)

    assert (code, printed) == (status, "")
    assert said.startswith("concord: ")
    assert words in said


async def test_what_is_no_recording_is_said_with_the_formats_that_work(concord, tmp_path):
    path = tmp_path / "notes.wav"
    path.write_text("not a recording")

    code, _, said = await concord("upload", path)

    assert code == remote.INVALID
    assert "These formats work" in said


async def test_a_form_is_sent_in_parts_and_as_long_as_it_says(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 200_000)
    with path.open("rb") as audio:
        form = Form({"reference": "r"}, 'a"\n.wav', audio, 200_000)
        parts = list(iter(form.read, b""))

    assert sum(map(len, parts)) == form.length
    assert max(map(len, parts)) <= 1 << 16
    assert b'filename="a%22%0A.wav"' in parts[0]


@pytest.mark.parametrize("http", [":8080", "0.0.0.0:8080", "127.0.0.1:8080", ""])
async def test_the_fleet_of_this_machine_is_called_on_the_loopback_address(http):
    assert remote.Api.of_environment({"CONCORD_HTTP": http}).url == "http://127.0.0.1:8080"


async def test_an_upload_whose_answer_is_lost_is_sent_again_as_the_same_request(service, call_wav, monkeypatch, capsys):
    monkeypatch.setattr(remote, "WAITS_S", (0.0,))
    keys, call = [], remote.Api.call

    def losing(self, method, path, **more):
        answer = call(self, method, path, **more)
        if path == "/audio/process":
            keys.append(more["headers"]["Idempotency-Key"])
            if len(keys) == 1:
                raise remote.CommandFailed("the answer is lost", remote.AWAY)
        return answer

    monkeypatch.setattr(remote.Api, "call", losing)
    before = service.published()["audio.uploaded"]
    arguments = parser_of(["upload"]).parse_args(["upload", str(call_wav), "--json"])
    environment = {"CONCORD_URL": service.url, "CONCORD_API_KEY": "acme-key"}

    assert await asyncio.to_thread(arguments.remote, arguments, environment) == 0
    assert len(set(keys)) == 1
    assert len(keys) == 2
    assert service.published()["audio.uploaded"] == before + 1
    capsys.readouterr()
