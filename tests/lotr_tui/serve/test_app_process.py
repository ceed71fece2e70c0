"""Processes of apps: they end with their tab, also if they hang, and what they print cannot harm the server."""

import asyncio
import shlex
import signal
import sys
from unittest.mock import AsyncMock

import pytest

pytest.importorskip("textual_serve", reason="needs textual-serve; pip install 'lotr-tui[serve]'")

from textual_serve.download_manager import DownloadManager

from lotr_tui.serve import server
from lotr_tui.serve.server import AppProcess
from tests.support.serving import connect, echo_command, read_until, run_server

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
