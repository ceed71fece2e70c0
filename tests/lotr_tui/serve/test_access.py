"""Requests that are refused: without the token, with a wrong one, of other sites, and of too many browsers."""

import asyncio

import pytest

pytest.importorskip("textual_serve", reason="needs textual-serve; pip install 'lotr-tui[serve]'")

from aiohttp import WSServerHandshakeError

from lotr_tui.serve.access import AllowedHosts
from tests.support.serving import connect, echo_command, own_origin, read_until, run_server

ROUTES = ("/", "/ws", "/static/textual.js", "/static/../access.py")


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


@pytest.mark.parametrize(
    "origin", ["", "null", "http://evil.example", "http://localhost:1", "file://127.0.0.1", "http://[::1"]
)
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
        ("LOCALHOST.:1", True, True),
        ("[::1]:8000", True, True),
        ("proxy.example", True, True),
        ("192.0.2.7:8000", False, True),
        ("[2001:db8::1]", False, True),
        *((netloc, False, False) for netloc in ("evil.example", "localhost@evil.example", "localhost:x", "[::1", "")),
    ],
)
def test_allowed_hosts(netloc, loopback, public):
    assert AllowedHosts(["proxy.example"]).allows(netloc) is loopback
    assert AllowedHosts(["proxy.example"], public=True).allows(netloc) is public


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
        assert record.read_text() == "started quit "
        third = await connect(client, guard)
        await read_until(third, "size 100x30")
    assert record.read_text() == "started quit started quit "  # the end of the server ends its apps
    assert "closed the session" in lines[-1]
