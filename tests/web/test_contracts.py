"""What holds for every request: ids, the access log, codes of problems, origins, compression, slashes, methods."""

from __future__ import annotations

import gzip
import json
import re
from html import escape
from pathlib import Path

import pytest
from aiohttp import web

from tests.web.service import ACME, Worker, problem, raw_response
from web.middleware.access_log import open_access_log
from web.resources.problems.codes import CODES, code_of
from web.server import ServerOptions

WEB = Path(__file__).parents[2] / "web"
PAGE = "https://app.example"

#: A code where it is given to a problem.
_USED = re.compile(r'ApiProblem\(\s*"(\w+)"|\bcode="(\w+)"')


@pytest.mark.parametrize("brought", ["abc-123", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "a" * 128])
async def test_a_sane_request_id_is_kept(worker, brought):
    response = await worker.get("/tenants", ACME | {"X-Request-Id": brought})

    assert response.headers["X-Request-Id"] == brought


@pytest.mark.parametrize("brought", ["", " ", "a b", "a" * 129, "<script>", "ü", '"'])
async def test_any_other_request_id_is_replaced(worker, brought):
    response = await worker.get("/jobs/unknown/status", ACME | {"X-Request-Id": brought})
    document = json.loads(await response.text())

    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])
    assert document["request_id"] == response.headers["X-Request-Id"]


async def test_the_access_log_has_a_line_a_request_and_no_secrets(tmp_path):
    target = tmp_path / "access.log"
    async with Worker(options=ServerOptions(access_log=open_access_log(str(target)))) as worker:
        await worker.created()
        await worker.get("/jobs/j/status?tenant=acme", ACME | {"X-Request-Id": "r-1", "User-Agent": 'x"y' + "z" * 999})
        await worker.get("/jobs/%ff%0a/status", {"Authorization": "Bearer wrong-key"})
        target.rename(tmp_path / "moved")
        await worker.get("/nothing")
    texts = [(tmp_path / name).read_text() for name in ("moved", "access.log")]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]

    assert len(lines) == 3
    first = lines[0]
    assert (first["request_id"], first["status"], first["caller"], first["tenant"]) == (
        *("r-1", 200, "environment:acme", "acme"),
    )
    assert (first["path"], first["operation"], first["method"]) == ("/jobs/j/status", "jobs_id_status", "GET")
    assert len(first["user_agent"]) == 200
    assert [(line["status"], line["caller"]) for line in lines[1:]] == [(401, None), (404, None)]
    assert not re.search("-key|tenant=", (tmp_path / "moved").read_text())


async def test_a_page_explains_every_code(worker):
    listed = (await worker.json("/problems", {}))["problems"]
    assert {one["code"] for one in listed} == set(CODES)
    for code in CODES:
        page = await worker.get(f"/problems/{code}", {"Accept": "text/html,*/*"})
        assert page.content_type == "text/html"
        assert escape(CODES[code].meaning) in await page.text()
    assert (await problem(await worker.get("/problems/nothing", {}), 404))["code"] == "not_found"


def test_every_code_that_is_used_is_listed_and_every_status_has_one():
    """Codes are published: one that is used must be in the list, and statuses of plain HTTP errors must lead to one."""
    texts = [path.read_text() for path in WEB.rglob("*.py")]
    used = {code for text in texts for pair in _USED.findall(text) for code in pair if code}
    raised = {name for text in texts for name in re.findall(r"raise web\.(HTTP\w+)", text)}
    statuses = {getattr(web, name).status_code for name in raised}

    statuses |= {int(status) for text in texts for status in re.findall(r"\bproblem\((\d{3})", text)}
    assert {"rate_limited", "ambiguous", "version_changed"} <= used
    # 404 and 405 are those of aiohttp's router, 500 is what nobody has thought of.
    assert used | {code_of(status) for status in statuses | {404, 405, 500} if status >= 400} == set(CODES)
    assert [status for status in statuses if status >= 400 and CODES[code_of(status)].status != status] == []
    assert all(one.meaning.endswith(".") and one.remedy.endswith(".") for one in CODES.values())


@pytest.fixture
async def shared():
    async with Worker(options=ServerOptions(origins=frozenset({PAGE}))) as service:
        yield service


async def test_pages_of_an_allowed_origin_may_read_answers(shared):
    response = await shared.get("/tenants", ACME | {"Origin": PAGE})
    refused = await shared.get("/tenants", {"Origin": PAGE})
    other = await shared.get("/tenants", ACME | {"Origin": "https://evil.example"})

    assert response.headers["Access-Control-Allow-Origin"] == PAGE
    assert {"RateLimit", "Idempotent-Replayed"} <= set(response.headers["Access-Control-Expose-Headers"].split(", "))
    assert refused.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Access-Control-Allow-Origin" not in other.headers
    assert [r.headers["Vary"] for r in (response, other)] == ["Origin", "Origin"]
    assert all("Access-Control-Allow-Credentials" not in r.headers for r in (response, refused, other))


async def test_a_browser_is_told_what_it_may_send(shared, worker):
    asking = {"Origin": PAGE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-api-key"}
    allowed = await shared.client.options("/jobs/j/status", headers=asking)
    foreign = await shared.client.options("/jobs/j/status", headers=asking | {"Origin": "https://evil.example"})
    closed = await worker.client.options("/jobs/j/status", headers=asking)

    assert allowed.status == 204
    assert allowed.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
    assert "X-API-Key" in allowed.headers["Access-Control-Allow-Headers"]
    for response in (foreign, closed):
        assert not any(name.startswith("Access-Control") for name in response.headers)


async def test_options_and_head_are_answered_everywhere(worker):
    options = await worker.client.options("/jobs/j/status")
    head = await worker.client.head("/tenants", headers=ACME)
    get = await worker.get("/tenants")

    assert (options.status, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    await problem(await worker.client.options("/nothing"), 404)
    assert (head.status, head.headers["Content-Length"]) == (200, get.headers["Content-Length"])


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        *[("gzip", True), ("GZIP;q=0.5, br", True), ("*", True), ("deflate, gzip;q=1.0", True)],
        *[("", False), ("identity", False), ("gzip;q=0", False), ("gzip; q=0.00, *", False), ("br", False)],
    ],
)
async def test_text_is_compressed_for_clients_that_take_it(worker, accepted, is_compressed):
    request = f"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {accepted}\r\n\r\n"
    head, _, _ = (await raw_response(worker, request.encode())).partition(b"\r\n\r\n")

    assert (b"Content-Encoding: gzip" in head) == is_compressed
    assert b"Vary: Accept-Encoding" in head


async def test_what_is_compressed_is_the_same_text_and_streams_are_left_alone(worker):
    await worker.created()
    await worker.stored_audio()
    await worker.finished()
    sent = {"Accept-Encoding": "gzip"}
    async with worker.client.session.get(f"{worker.url}openapi.json", headers=sent, auto_decompress=False) as response:
        packed = await response.read()
    plain = await (await worker.get("/openapi.json", {"Accept-Encoding": "identity"})).read()

    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 4
    for path in ("/jobs/j/audio", "/jobs/j/events", "/tenants"):
        assert "Content-Encoding" not in (await worker.get(path, ACME | sent)).headers


async def test_a_slash_too_many_leads_to_the_address_without_it(worker):
    response = await worker.get("/tenants/acme/jobs/?limit=1", allow_redirects=False)

    assert (response.status, response.headers["Location"]) == (308, "/tenants/acme/jobs?limit=1")
    assert b" 404 " in await raw_response(worker, b"GET //evil.example/tenants/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await problem(await worker.get("/nothing/"), 404)


async def test_every_answer_forbids_what_browsers_might_do_with_it(worker):
    for path in ("/tenants", "/nothing", "/jobs/unknown/status"):
        headers = (await worker.get(path)).headers
        assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert (headers["X-Frame-Options"], headers["X-Content-Type-Options"]) == ("DENY", "nosniff")


async def test_operations_have_tags_and_the_page_about_them_needs_no_other_host(worker):
    document = await worker.json("/openapi.json")
    tags = {operation["tags"][0] for item in document["paths"].values() for operation in item.values()}

    assert {"jobs", "tenants", "problems"} <= tags
    scripts = [path.read_text() for path in (WEB / "static" / "docs").iterdir()]
    assert not any("https://" in text for text in scripts)
