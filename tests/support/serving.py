"""A small program in place of the app, which speaks the protocol of Textual's web driver, and a server for it."""

import socket
import sys
from contextlib import asynccontextmanager

from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from lotr_tui.serve.access import AccessGuard, make_runner
from lotr_tui.serve.server import BrowserServer

ECHO_PROGRAM = """
import os, struct, sys
def read(size):
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:  # the tab is closed
            open(sys.argv[1], "a").write("ended ")
            sys.exit(0)
        data += more
    return data
def write(kind, data):
    data = kind + struct.pack(">I", len(data)) + data
    while data:
        data = data[os.write(1, data):]
open(sys.argv[1], "a").write("started ")
os.write(1, b"__GANGLION__\\n")
write(b"D", f"size {os.environ['COLUMNS']}x{os.environ['ROWS']};".encode())
while True:
    kind, size = struct.unpack(">cI", read(5))
    payload = read(size)
    if kind == b"D":
        write(b"D", b"got %d;" % len(payload))
    else:
        write(b"D", payload + b";")
"""  # program that answers every input with its length, and notes its start and its end in the file of its argument


def echo_command(record):
    return [sys.executable, "-c", ECHO_PROGRAM, str(record)]


@asynccontextmanager
async def run_server(command, *, max_browsers=8):
    """Run a server of `command`, with a client, its guard, and the lines that it has reported."""
    guard, lines = AccessGuard(), []
    server = BrowserServer(command, "a <title>", guard, max_browsers, lines.append)
    async with TestClient(TestServer(server.make_application())) as client:
        yield client, guard, lines  # at the end, the server ends the apps, as after a signal


def own_origin(client):
    return {"Origin": str(client.make_url("/")).rstrip("/")}


async def connect(client, guard):
    page = await client.get("/", params={"token": guard.token})
    assert page.status == 200, await page.text()
    return await client.ws_connect("/ws?width=100&height=30", headers=own_origin(client))


async def read_until(websocket, text):
    output = ""
    while text not in output:
        message = await websocket.receive(20)
        assert message.type in (WSMsgType.BINARY, WSMsgType.TEXT), (message, output)
        output += message.data.decode() if message.type == WSMsgType.BINARY else message.data
    return output


@asynccontextmanager
async def run_as_command(application):
    """Serve an application as the command does, with little memory of the system for what clients have not read."""
    runner = make_runner(application)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await web.SockSite(runner, listening).start()
        yield listening.getsockname()[1]
        await runner.cleanup()
