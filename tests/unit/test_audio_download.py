# ruff: noqa: RUF001 - hosts in letters that look like others are what this is about
"""Downloads from external hosts: the URLs and addresses that are refused before a byte is sent."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ipaddress
import os
import resource
import socket
import ssl
import time
import zlib
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.media.source.audio_download import Downloader, DownloadLimits
from agents.media.source.audio_url import AllowedHosts, is_public
from schemas.errors import RefusedLocation, RefusedMedia, Transient, Unavailable
from tests.servers.hosts import answering, raw, serving

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


def self_signed(folder):
    """A server's TLS context with a certificate that no authority has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    secret = key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    (folder / "server.pem").write_bytes(secret + certificate.public_bytes(pem))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    return context


@contextlib.contextmanager
def no_descriptors():
    """This process has used up its descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
    audio_source: list[bytes] = []

    async def redirect(request):
        request.transport.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % audio_source[-1])
        request.transport.close()
        return web.Response()

    # Some cannot stand in a header, or are another address without what cannot.
    led = [uri for uri in REFUSED if not {"\n", "\x00"} & set(uri) and uri != "https://example.com/\ud800"]
    async with counting() as (port, connections), serving(redirect) as base, downloader(only(base)) as it:
        for uri in led:
            location = uri.format(port) if "{}" in uri else uri
            audio_source.append(location.encode("utf-8", "surrogatepass"))
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


@pytest.mark.slow
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


@pytest.mark.parametrize("status", [202, 404, 408, 423, 425, 429, 500, 502, 503, 504, 599])
async def test_refusals_that_pass_are_transient(status, tmp_path):
    async with serving(answering(status)) as base, downloader() as it:
        with pytest.raises(Transient, match=rf"^audio_uri: 127\.0\.0\.1 answered {status}$") as refusal:
            await it.save(base, tmp_path / "a")
    assert refusal.value.retry_after is None


@pytest.mark.parametrize("status", [204, 206, 300, 304, 400, 401, 403, 405, 410, 451])
async def test_other_refusals_are_final(status, tmp_path):
    async with serving(answering(status)) as base, downloader() as it:
        with pytest.raises(RefusedLocation, match=rf"^audio_uri: 127\.0\.0\.1 answered {status}$"):
            await it.save(base, tmp_path / "a")


async def test_a_host_that_says_when_to_come_back_is_believed(tmp_path):
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    for asked, seconds in (("20", 20), (then, pytest.approx(90, abs=2)), ("86400", 3600), ("-5", 0), ("soon", None)):
        async with serving(answering(429, Retry_After=asked)) as base, downloader() as it:
            with pytest.raises(Transient) as refusal:
                await it.save(base, tmp_path / "a")
        assert refusal.value.retry_after == seconds


async def test_redirects_are_followed_so_far(tmp_path):
    async def handler(request):
        number = int(request.path[1:])
        return (
            web.Response(status=302, headers={"Location": f"{number - 1}"}) if number else web.Response(body=b"audio")
        )

    async with serving(handler) as base, downloader() as it:
        await it.save(f"{base}/5", tmp_path / "a")
        with pytest.raises(RefusedLocation, match="more than 5 redirects"):
            await it.save(f"{base}/6", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == b"audio"


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([], "ended before everything was there"),
        ([OK + b"Content-Length: 10\r\n\r\n", b"12345"], "ended before everything was there"),
        ([CHUNKED, b"5\r\n12345\r\n"], "ended before everything was there"),
        ([b"SSH-2.0-OpenSSH\r\n"], "no proper answer"),
        ([OK + b"X: " + b"x" * 100_000 + b"\r\n\r\n"], "no proper answer"),
        ([5.0], "does not answer in time"),
        ([OK + b"Content-Length: 10\r\n\r\n", b"1", 5.0], "does not answer in time"),
        ([OK, *[b"X: y\r\n", 0.1] * 50], "does not answer in time"),  # each read is in time, the headers are not
        ([OK + b"Content-Length: 10\r\n\r\n", *[b"1", 0.1] * 9], r"too slowly \(\d+ bytes in 0 s; at least 1000 a "),
        ([CHUNKED, *[b"1\r\n1\r\n", 0.1] * 50], "too slowly"),
        ([OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"audio" * 99, mtime=0)[:20]], "ends in the middle"),
    ],
)
async def test_a_host_that_does_not_deliver_is_said_to_be_at_fault(parts, says, tmp_path):
    patience = DownloadLimits(answer_s=0.5, connect_s=0.5, read_s=0.3, least=1000, window_s=0.35)
    async with raw(*parts) as base, downloader(limits=patience) as it:
        async with asyncio.timeout(3):
            with pytest.raises(Transient, match=rf"^audio_uri: 127\.0\.0\.1 .*{says}"):
                await it.save(base, tmp_path / "a")


async def test_a_host_is_not_called_slow_for_our_own_disk(tmp_path):
    size = 4 << 18
    os.mkfifo(tmp_path / "disk")

    def slowly() -> int:
        with (tmp_path / "disk").open("rb") as file:
            time.sleep(0.5)
            return len(file.read())

    reading = asyncio.get_running_loop().run_in_executor(None, slowly)
    patience = DownloadLimits(least=10 * size, window_s=0.3)
    async with serving(answering(200, bytes(size))) as base, downloader(limits=patience) as it:
        await it.save(base, tmp_path / "disk")
    assert await reading == size


async def test_an_unreachable_server_or_one_without_tls_is_transient(tmp_path):
    def lookup(host, port):
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    async with serving(answering()) as base, downloader(AllowedHosts.of(["127.0.0.1", "none.example"])) as it:
        with pytest.raises(Transient, match=r"does not deliver \(no TLS connection can be made to it\)"):
            await it.save(base.replace("http:", "https:"), tmp_path / "a")
        with pytest.raises(Transient, match=r"does not deliver \(connection refused\)"):
            await it.save("http://127.0.0.1:1/", tmp_path / "a")
    async with downloader(lookup=lookup) as it:
        with pytest.raises(Transient, match=r"none\.example does not deliver \(its name cannot be resolved\)"):
            await it.save("https://none.example/", tmp_path / "a")


async def test_an_untrusted_certificate_is_not_accepted(tmp_path):
    async with serving(answering(), ssl_context=self_signed(tmp_path)) as base, downloader() as it:
        with pytest.raises(Transient, match="its certificate is not accepted: self-signed certificate"):
            await it.save(base.replace("http:", "https:"), tmp_path / "a")


async def test_a_process_without_descriptors_is_our_own_fault(tmp_path):
    async with serving(answering()) as base, downloader() as it:
        with no_descriptors(), pytest.raises(Unavailable):
            await it.save(base, tmp_path / "a")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"audio"),
        ({"Content_Encoding": "identity"}, b"audio"),
        ({"Content_Encoding": "gzip"}, gzip.compress(b"audio", mtime=0)),
        ({"Content_Encoding": "GZIP"}, gzip.compress(b"audio", mtime=0)),
        ({"Content_Encoding": "deflate"}, zlib.compress(b"audio")),
    ],
)
async def test_an_encoding_that_was_not_asked_for_is_undone(headers, body, tmp_path):
    async with serving(answering(200, body, **headers)) as base, downloader() as it:
        await it.save(base, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"audio"


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        ("gzip", b"audio", RefusedMedia),
        ("gzip", gzip.compress(bytes(3 << 20), mtime=0), RefusedMedia),
        ("br", b"audio", RefusedLocation),
        ("gzip, gzip", gzip.compress(gzip.compress(b"audio", mtime=0), mtime=0), RefusedLocation),
        ("\x1b[31m", b"audio", RefusedLocation),
    ],
)
async def test_an_encoding_that_is_a_lie_a_bomb_or_unknown_is_refused(encoding, body, error, tmp_path):
    parts = OK + b"Content-Encoding: " + encoding.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with raw(parts) as base, downloader(max_bytes=1 << 20) as it:
        with pytest.raises((error, Transient)) as refusal:
            await it.save(base, tmp_path / "a")
    assert refusal.type is error or "\x1b" in encoding  # aiohttp takes that for no HTTP
    assert (tmp_path / "a").stat().st_size <= 1 << 20 if (tmp_path / "a").exists() else True


async def test_more_than_is_accepted_is_refused_however_it_comes(tmp_path):
    async with downloader(max_bytes=1000) as it:
        for headers, body in (
            (b"Content-Length: 1001", b""),
            (b"X: y", b"x" * 1001),
            (b"Content-Length: 99999999999", b""),
        ):
            async with raw(OK + headers + b"\r\n\r\n" + body) as base:
                with pytest.raises(RefusedMedia, match="1000"):
                    await it.save(base, tmp_path / "a")


@pytest.mark.parametrize(
    "body", [b"<!DOCTYPE html><html>", b"\n <html lang=en>", b"<!-- x --><HTML>", b"<head><title>"]
)
async def test_a_login_page_is_no_recording_and_is_said_to_be_one(body, tmp_path):
    async with serving(answering(200, body + b"Please log in")) as base, downloader() as it:
        with pytest.raises(RefusedMedia, match=r"127\.0\.0\.1 answers with a web page .* does this URL need a login\?"):
            await it.save(base, tmp_path / "a")
