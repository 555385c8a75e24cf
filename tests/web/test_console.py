"""The page and its scripts: served as they are, with a strict policy."""

from __future__ import annotations

import re

import pytest
from yarl import URL

from web.console import FOLDER


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_the_pages_load_their_own_files_only(worker, path):
    page = await worker.get(path, {})
    html = await page.text()
    policy = page.headers["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://|javascript:", html)
    for link in re.findall(r'(?:src|href)="(/[^"]+)"', html):
        response = await worker.get(link, {})
        assert response.status == 200, link
        assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_every_module_of_the_page_and_all_that_it_imports_is_served_as_a_script(worker):
    """A module that is missing, or has another media type, stops the whole page."""
    pending, served = ["/static/console.js", "/static/docs/docs.js"], set()
    while pending:
        path = pending.pop()
        response = await worker.get(path, {})
        assert (response.status, response.content_type) == (200, "text/javascript"), path
        served.add(path)
        imports = re.findall(r'^import .* from "(\..*)";$', await response.text(), re.MULTILINE)
        pending += [module for name in imports if (module := str(URL(path).join(URL(name)))) not in served]

    assert served == {f"/static/{file.relative_to(FOLDER).as_posix()}" for file in FOLDER.rglob("*.js")}


@pytest.mark.parametrize("path", ["/", "/static/console.js", "/static/icon.svg"])
async def test_a_file_that_a_browser_has_is_not_sent_again(worker, path):
    first = await worker.get(path, {"Accept-Encoding": "gzip"})
    plain = await worker.get(path, {"Accept-Encoding": "identity"})
    again = await worker.get(path, {"If-None-Match": f'"other", {first.headers["ETag"]}'})

    assert await first.read() == await plain.read()
    assert "Content-Encoding" not in plain.headers
    assert path == "/static/icon.svg" or first.headers["Content-Encoding"] == "gzip"
    assert (again.status, await again.read()) == (304, b"")
    assert again.headers["Content-Security-Policy"] == first.headers["Content-Security-Policy"]
    assert (await worker.get(path, {"If-None-Match": 'W/"other"'})).status == 200


def test_the_consoles_scripts_write_text_and_never_markup():
    """Transcripts, file names and reasons come from strangers."""
    scripts = sorted(FOLDER.rglob("*.js"))

    assert FOLDER / "console.js" in scripts
    for script in scripts:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|localStorage",
            script.read_text(),
        )
