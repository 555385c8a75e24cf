# ruff: noqa: RUF001 - hosts in letters that look like others are what this is about
"""Fetching a recording from a stranger's host: which URLs and addresses are refused before a byte is sent."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.audio_download import Downloader
from agents.audio_url import AllowedHosts, is_public
from schemas.errors import RefusedLocation, Transient

LOOPBACK = AllowedHosts.of(["127.0.0.1"])


def only(base: str) -> AllowedHosts:
    """A server of `serving` is allowed, and no other port of this machine."""
    return AllowedHosts.of([base.removeprefix("http://")])


@asynccontextmanager
async def downloader(allowed: AllowedHosts = LOOPBACK, **more):
    it = Downloader(allowed, **more)
    try:
        yield it
    finally:
        await it.close()


@asynccontextmanager
async def serving(handler):
    """A plain HTTP server on 127.0.0.1; its address."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def counting():
    """A port of this machine, on every address of it, and the list of connections that were made to it."""
    connections = []

    async def seen(reader, writer):
        connections.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(seen, ["127.0.0.1", "::1"], 0)
    ports = {sock.getsockname()[0]: sock.getsockname()[1] for sock in server.sockets}
    async with server:
        yield ports["127.0.0.1"], connections


SPECIAL = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
    "::ffff:0:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "100::1",
    "2001::1", "2001:0:808:808:0:0:80ff:fffe", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1",
    "2002:7f00:1::1", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
    "fec0::1", "ff02::1", "2606:4700::5efe:127.0.0.1", "2606:4700::200:5efe:10.0.0.1", "4000::1",
]  # fmt: skip


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["0177.0.0.1", "0x7f.1", "2130706433", "127.1", "example.com", "", "１.1.1.1"])
def test_what_is_no_address_is_not_a_public_one(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::200e", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_public(address):
    assert is_public(address)


#: Ways to write this machine, and what must never be fetched from; {} is a port on which somebody listens.
REFUSED = [
    "https://127。0。0。1:{}/",
    "https://①②⑦.⓪.⓪.①:{}/",
    "https://１２７.0.0.1:{}/",
    "https://127.0.0.1.:{}/",
    "https://[::1]:{}/",
    "https://[::ffff:127.0.0.1]:{}/",
    "https://[::ffff:7f00:1]:{}/",
    "https://[::127.0.0.1]:{}/",
    "https://[64:ff9b::7f00:1]:{}/",
    "https://[2002:7f00:1::1]:{}/",
    "https://[::ffff:0:127.0.0.1]:{}/",
    "https://[::1%25lo]:{}/",
    "https://[fe80::1%25lo]:{}/",
    "https://0177.0.0.1:{}/",
    "https://0x7f.1:{}/",
    "https://0x7f000001:{}/",
    "https://2130706433:{}/",
    "https://127.1:{}/",
    "https://0:{}/",
    "https://0.0.0.0:{}/",
    "https://[::]:{}/",
    "https://localhost:{}/",
    "https://LOCALHOST:{}/",
    "https://example.com@127.0.0.1:{}/",
    "https://user:secret@example.com:{}/",
    "https://example.com\\@127.0.0.1:{}/",
    "https://%31%32%37.0.0.1:{}/",
    "http://127.0.0.2:{}/",
    "http://example.com:{}/",
    # What yarl, urlsplit or a resolver stumbled over.
    "https://[",
    "https://@/",
    "https://[::1%25a%25b]",
    f"https://{'a' * 300}/",
    f"https://{'.'.join(['a' * 60] * 5)}/",
    f"https://{'a' * 64}.com/",
    "https:///x",
    "https://",
    "https:x",
    "https://.",
    "https://a..b/",
    "https://h:0/",
    "https://h:99999/",
    "https://h:abc/",
    "https://h:-1/",
    "https://h:25/",
    "https://exa\nmple.com/",
    "https://example.com/a\r\nHost: b",
    "https://example.com/\x00",
    "https://exam\x00ple.com/",
    "https://a b/",
    "https://\ud800/",
    "https://example.com/\ud800",
    "https://h%00.com/",
    "https://[::1]x/",
    "https://h:8080:90/",
]


@pytest.mark.parametrize("uri", REFUSED, ids=ascii)
async def test_refused_before_a_connection_is_made(uri, tmp_path):
    async with counting() as (port, connections), downloader(AllowedHosts.of([])) as it:
        with pytest.raises(RefusedLocation, match=r"^audio_uri: "):
            await it.save(uri.format(port) if "{}" in uri else uri, tmp_path / "a")

    assert connections == []


async def test_refused_when_a_redirect_leads_there(tmp_path):
    locations: list[bytes] = []

    async def redirect(request):
        request.transport.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % locations[-1])
        request.transport.close()
        return web.Response()

    # Some cannot stand in a header, or are another address without what cannot.
    led = [uri for uri in REFUSED if not {"\n", "\x00"} & set(uri) and uri != "https://example.com/\ud800"]
    async with counting() as (port, connections), serving(redirect) as base, downloader(only(base)) as it:
        for uri in led:
            location = uri.format(port) if "{}" in uri else uri
            locations.append(location.encode("utf-8", "surrogatepass"))
            with pytest.raises(RefusedLocation, match=r"^audio_uri: "):
                await it.save(f"{base}/a.wav", tmp_path / "a")

    assert len(led) > 40
    assert connections == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://example.com/a", "s3://bucket/key", "data:,a", "//["])
async def test_a_redirect_leaves_http_nowhere(location, tmp_path):
    async def redirect(_):
        return web.Response(status=307, headers={"Location": location})

    async with serving(redirect) as base, downloader() as it:
        with pytest.raises(RefusedLocation, match=r"^audio_uri: "):
            await it.save(f"{base}/a.wav", tmp_path / "a")


async def test_a_name_that_resolves_to_this_machine_is_refused(tmp_path):
    """Also when it resolved to something else a moment before: the address of the socket is what is checked."""
    answers = [["127.0.0.1"], ["::1", "127.0.0.1"], ["::1"]]

    def lookup(host, port):
        return [(2 if "." in a else 10, 1, 6, "", (a, port)) for a in answers.pop(0)]

    async with counting() as (port, connections), downloader(AllowedHosts.of([]), lookup=lookup) as it:
        for _ in range(3):
            with pytest.raises((RefusedLocation, Transient)):
                await it.save(f"https://rebound.example:{port}/a.wav", tmp_path / "a")

    assert connections == []
    assert answers == []


async def test_one_of_a_hosts_addresses_that_is_private_is_enough_to_refuse_it(tmp_path):
    def lookup(host, port):
        return [(2, 1, 6, "", ("127.0.0.1", port)), (2, 1, 6, "", ("203.0.113.1", port))]

    async with downloader(AllowedHosts.of([]), lookup=lookup) as it:
        with pytest.raises(RefusedLocation, match=r"mixed\.example is not a public one.*CONCORD_ALLOW_HOSTS"):
            await it.save("https://mixed.example/a.wav", tmp_path / "a")


@pytest.mark.parametrize(
    ("entry", "uri", "allowed"),
    [
        ("127.0.0.1", "http://127.0.0.1:{}/", True),
        ("127.0.0.1:{}", "http://127.0.0.1:{}/", True),
        ("127.0.0.1:1", "http://127.0.0.1:{}/", False),
        ("LocalHost", "http://localhost:{}/", True),
        ("localhost", "http://LOCALHOST:{}/", True),
        ("localhost.", "http://localhost:{}/", True),
        ("ocalhost", "http://localhost:{}/", False),
        ("127.0.0.1", "http://localhost:{}/", False),
        ("localhost", "http://127.0.0.1:{}/", False),
        ("①②⑦.⓪.⓪.①", "http://127.0.0.1:{}/", True),
        ("[::1]:{}", "http://[::1]:{}/", False),  # nobody listens there, but see below
    ],
)
async def test_hosts_that_an_operator_allows(entry, uri, allowed, tmp_path):
    async def handler(_):
        return web.Response(body=b"audio")

    async with serving(handler) as base:
        port = base.rpartition(":")[2]
        async with downloader(AllowedHosts.of([entry.format(port)])) as it:
            if allowed:
                await it.save(uri.format(port), tmp_path / "a")
                assert (tmp_path / "a").read_bytes() == b"audio"
            else:
                with pytest.raises((RefusedLocation, Transient)) as refusal:
                    await it.save(uri.format(port), tmp_path / "a")
                assert refusal.type is (Transient if entry.startswith("[") else RefusedLocation)


@pytest.mark.parametrize("entry", ["", "http://a", "a/b", "a:b", "a:0", "a b", "a:1:2", "[::1", "*.example.com", "a@b"])
def test_an_entry_that_names_no_host_is_refused(entry):
    with pytest.raises(ValueError, match=r"host or host:port"):
        AllowedHosts.of([entry])


async def test_neither_proxies_nor_cookies_nor_netrc(tmp_path, monkeypatch):
    """What the environment says is for others; a host gets what a stranger would send."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password swordfish")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    seen = []

    async def handler(request):
        seen.append(request.headers)
        if request.path == "/a":
            return web.Response(status=302, headers={"Location": "/b", "Set-Cookie": "session=1; Path=/"})
        return web.Response(body=b"audio")

    async with serving(handler) as base, downloader() as it:
        await it.save(f"{base}/a", tmp_path / "a")

    assert len(seen) == 2
    assert not any({"Cookie", "Authorization", "Referer"} & set(headers) for headers in seen)


#: Pieces of which URLs, and what only looks like them, are made.
_PIECES = st.sampled_from(
    [
        "https", "HTTPS", "http", ":", "//", "/", "\\", "@", "[", "]", "::1", "127.0.0.1", "%", "%25", "%00", "?", "#",
        "x", "a" * 70, ".", "。", "①", "０", "0x7f", "0177", "-", "_", "xn--", "xn--a", "é", "ß", "\u202e", "\xad",
        "\ud800", " ", "\n", "\t", "\x00", "\x7f", "&", "=", ";", "99999", "0", "v1.", "::ffff:", "fe80::1%eth0",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    uri=st.one_of(
        st.lists(_PIECES, max_size=12).map(lambda pieces: "https://" + "".join(pieces)),
        st.lists(_PIECES, max_size=12).map("".join),
        st.text(max_size=60).map("https://{}".format),
        st.text(max_size=60),
    )
)
def test_whatever_the_url_is_it_is_refused_or_asked_again(uri, tmp_path):
    def lookup(host, port):
        raise OSError(f"{host} is not known")

    async def go():
        async with downloader(AllowedHosts.of([]), lookup=lookup) as it:
            with pytest.raises((RefusedLocation, Transient)) as refusal:
                await it.save(uri, tmp_path / "a")
            assert str(refusal.value).startswith("audio_uri: ")
            assert str(refusal.value).isprintable()

    asyncio.run(asyncio.wait_for(go(), 10))
