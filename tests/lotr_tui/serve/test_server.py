"""Requests that are refused, of strangers, other sites and too many browsers; processes of apps end with their tab."""

import asyncio
import gzip
import http.client
import shlex
import signal
import socket
import sys
from unittest.mock import AsyncMock, Mock

import pytest

pytest.importorskip("textual_serve", reason="needs textual-serve; pip install 'lotr-tui[serve]'")

from aiohttp import ClientSession, WSServerHandshakeError
from aiohttp.http_parser import DeflateBuffer
from textual_serve.download_manager import DownloadManager

from lotr_tui.serve import server
from lotr_tui.serve.access import ACCESS_TIMEOUT, MAX_STRANGERS, AccessGuard
from lotr_tui.serve.api import ApiServer
from lotr_tui.serve.server import AppProcess, BrowserServer
from tests.support.browser import ServeProcess
from tests.support.dialogues import dialogue_session_model
from tests.support.serving import connect, echo_command, own_origin, read_until, run_as_command, run_server

ROUTES = ("/", "/ws", "/static/js/textual.js", "/own/../access.py")


@pytest.fixture
def record(tmp_path):
    return tmp_path / "record"


@pytest.mark.parametrize("query", [{}, {"token": ""}, {"token": "wrong"}, {"token": "\x00é" * 9}])
async def test_without_the_token_every_route_is_refused_and_nothing_is_started(query, record):
    async with run_server(echo_command(record)) as (client, _, lines):
        for route in ROUTES:
            headers = own_origin(client) | {"Cookie": "lotr-tui-00000000=wrong"}
            response = await client.get(route, params=query, headers=headers)
            text = await response.text()
            assert response.status == 403, route
            assert text.startswith("403 forbidden: ")
            assert text.count("\n") == 1
            assert "Set-Cookie" not in response.headers
        assert not lines
    assert not record.exists()


async def test_the_cookie_is_hidden_from_scripts_and_other_sites_and_the_page_from_caches(record):
    async with run_server(echo_command(record)) as (client, guard, _):
        response = await client.get("/", params={"token": guard.token})
        cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert len(guard.token) >= 43  # 256 bits in base64
        assert guard.token not in cookie + await response.text()
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert "a &lt;title&gt;" in await response.text()
        assert (await client.get("/")).status == 200
        assert (await client.get("/", params={"token": guard.token[:-1]})).status == 403  # also with the cookie
        missing = await client.get("/static/secret")
        assert missing.status == 404
        assert missing.headers["Referrer-Policy"] == "no-referrer"
        proxied = await client.get("/", headers={"X-Forwarded-Proto": "https"})
        assert "Secure" in proxied.headers["Set-Cookie"]
        assert "wss://" in await proxied.text()


@pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "http://localhost:1", "file://a", "http://[::1"])
async def test_a_websocket_of_another_site_is_refused_with_the_cookie(origin, record):
    async with run_server(echo_command(record)) as (client, guard, lines):
        assert (await client.get("/", params={"token": guard.token})).status == 200
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect("/ws", headers={"Origin": origin})
        assert refused.value.status == 403
        assert not lines
    assert not record.exists()


async def test_a_name_that_is_not_of_this_server_is_refused_with_the_token(record):
    """A page of an attacker can let its own name point to 127.0.0.1, and then read what this server answers."""
    async with run_server(echo_command(record)) as (client, guard, _):
        for host, status in (("evil.example", 403), ("127.0.0.1.evil.example:80", 403), ("localhost:9000", 200)):
            response = await client.get("/", params={"token": guard.token}, headers={"Host": host})
            assert response.status == status, host


@pytest.mark.parametrize(
    ("netloc", "loopback", "public"),
    [
        *((netloc, True, True) for netloc in ("LOCALHOST.:1", "[::1]:8000", "proxy.example")),
        *((netloc, False, True) for netloc in ("192.0.2.7:8000", "[2001:db8::1]")),
        *((netloc, False, False) for netloc in ("evil.example", "localhost@evil.example", "localhost:x", "[::1", "")),
    ],
)
def test_allowed_hosts(netloc, loopback, public):
    assert AccessGuard(["proxy.example"]).allows(netloc) is loopback
    assert AccessGuard(["proxy.example"], public=True).allows(netloc) is public


async def test_more_browsers_than_allowed_are_refused_until_one_is_closed_which_ends_its_app(record):
    async with run_server(echo_command(record), max_browsers=1) as (client, guard, lines):
        first = await connect(client, guard)
        await read_until(first, "size 100x30")
        page = await client.get("/")
        assert page.status == 503
        assert "1 of 1 sessions are open (--max-browsers)" in await page.text()
        second = await client.ws_connect("/ws", headers=own_origin(client))
        message = await second.receive(10)
        assert "--max-browsers" in message.extra
        await first.close()
        while (await client.get("/")).status != 200:
            await asyncio.sleep(0.02)
        assert "browser 1 has closed the session" in lines
        assert record.read_text() == "started ended "
        third = await connect(client, guard)
        await read_until(third, "size 100x30")
    assert record.read_text() == "started ended started ended "  # the end of the server ends its apps
    assert "closed the session" in lines[-1]


def test_connections_without_the_token_are_closed_in_time_and_the_oldest_of_too_many_first():
    guard = AccessGuard()
    slow, later = Mock(), Mock()
    guard.close_strangers([slow], 0.0)
    guard.close_strangers([slow, later], ACCESS_TIMEOUT)
    assert slow.force_close.called
    assert not later.force_close.called
    many = [Mock() for _ in range(MAX_STRANGERS + 2)]
    guard.close_strangers(many, 0.0)
    assert [each.force_close.called for each in many] == [True] * 2 + [False] * MAX_STRANGERS


async def test_a_connection_with_the_token_stays_open(record):
    async with run_server(echo_command(record)) as (client, guard, _):
        websocket = await connect(client, guard)
        connections = client.server.runner.server.connections
        for now in (0.0, ACCESS_TIMEOUT):
            guard.close_strangers(connections, now)
        await read_until(websocket, "size 100x30")


@pytest.mark.parametrize("is_api", [False, True])
async def test_nothing_is_decompressed_with_or_without_the_token(is_api, record, monkeypatch):
    guard, decompress = AccessGuard(), Mock()
    monkeypatch.setattr(DeflateBuffer, "feed_data", decompress)
    if is_api:
        application = ApiServer(dialogue_session_model(), guard).make_application()
    else:
        application = BrowserServer(echo_command(record), "title", guard, 1, print).make_application()
    async with asyncio.timeout(20), run_as_command(application) as port, ClientSession() as client:
        statuses = []
        for token in ("wrong", guard.token):
            headers = {"Content-Encoding": "gzip", "Authorization": f"Bearer {token}"}
            url = f"http://127.0.0.1:{port}/v1/completions"
            response = await client.post(url, data=gzip.compress(bytes(1_000_000)), headers=headers)
            statuses.append(response.status)
    assert statuses == ([401, 400] if is_api else [403, 404])
    assert not decompress.called


LINES = ("GET", "GET / HTTP/1.1\r\nno colon", "\x16\x03\x01\x1b[2J", "GET http://[::1 HTTP/1.1")
MALFORMED = [f"{line}\r\n\r\n".encode() for line in LINES]


def test_the_page_opens_during_a_flood_of_connections_and_errors_are_one_line_a_second(tmp_path):
    with ServeProcess(tmp_path) as server:
        port, path = int(server.url.split(":")[2].split("/")[0]), "/" + server.url.split("/")[3]
        flood = [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
        for number, connection in enumerate(flood):
            connection.sendall(MALFORMED[number % 8] if number % 8 < len(MALFORMED) else b"GET / HTTP/1.1\r\nHost: a")
        owner = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        owner.request("GET", path)
        assert owner.getresponse().status == 200
        _, output = server.stop()
        for connection in flood:
            connection.close()
    errors = [line for line in output.splitlines() if "400" in line]
    assert 1 <= len(errors) <= 3
    assert all(line.startswith("error: ") and line.isprintable() for line in errors)
    assert "Traceback" not in output


START = "import os, signal, struct, sys, time; os.write(1, b'__GANGLION__\\n');"
WRITE = "write = lambda data: os.write(1, b'D' + struct.pack('>I', len(data)) + data);"


async def start(program, **replaced):
    """Start a program as an app; the functions that write to its browser are mocks or `replaced`."""
    functions = {name: AsyncMock() for name in ("write_bytes", "write_str", "close")} | replaced
    command = shlex.join([sys.executable, "-c", program])
    process = AppProcess(command, download_manager=DownloadManager(), **functions)
    await process.start(80, 24)
    return process


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_output_is_read_after_the_browser_has_left(tmp_path):
    """Otherwise the app is blocked in a write, and never sees that its tab was closed."""
    done, closed = tmp_path / "done", AsyncMock(side_effect=ConnectionResetError("closing"))
    program = f"{START}{WRITE}[write(b'x' * 60000) for _ in range(50)]; open({str(done)!r}, 'w')"
    process = await start(program, write_bytes=closed)
    await asyncio.wait_for(process.stop(), 20)
    assert done.exists()


async def test_an_app_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(server, "EXIT_TIMEOUT", 0.3)
    program, output = f"{START}signal.signal(15, signal.SIG_IGN); {WRITE}write(b'up'); time.sleep(600)", AsyncMock()
    process = await start(program, write_bytes=output)
    await until(lambda: output.called)
    await asyncio.wait_for(process.stop(), 20)
    assert process.child.wait(20) == -signal.SIGKILL


async def test_a_process_that_lets_go_of_its_streams_survives_the_tab(tmp_path):
    """A training does so when its terminal is closed."""
    detach = "null = os.open(os.devnull, os.O_RDWR); [os.dup2(null, number) for number in (0, 1, 2)]; time.sleep(600)"
    process = await start(f"{START}sys.stdin.buffer.read(); {detach}")
    await asyncio.wait_for(process.stop(), 20)
    assert process.child.poll() is None
    process.child.kill()


async def test_what_an_app_prints_at_its_end_is_one_printable_line_each():
    process = await start(f"{START}sys.stderr.write('bad \\x1b[2J name\\n' + 'x' * 99999 + '\\nlast\\n')")
    await asyncio.wait_for(process.stop(), 20)
    assert "\x1b" not in process.last_lines
    assert len(process.last_lines) <= server.MAX_ERROR_BYTES
    assert process.last_lines.endswith("\nlast")


async def test_the_browser_is_closed_when_the_app_ends():
    close = AsyncMock()
    process = await start(START, close=close)
    await until(lambda: close.called)
    await process.stop()


async def test_messages_that_are_not_of_the_page_end_their_session_only_and_sizes_are_bounded(tmp_path):
    async with run_server(echo_command(tmp_path / "record")) as (client, guard, lines):
        broken, calm = await connect(client, guard), await connect(client, guard)
        await broken.send_str("no json")
        await until(lambda: any("has lost its session" in line for line in lines))
        await calm.send_json(["stdin", "a"])
        await calm.send_json(["resize", {"width": 99_999_999, "height": -5}])
        output = await read_until(calm, "resize")
        assert "got 1;" in output
        assert f'"width": {server.MAX_WIDTH}, "height": 1}}' in output
        await calm.close()
