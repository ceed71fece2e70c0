"""Processes of apps: they end with their tab, also if they hang, and what they print cannot harm the server."""

import asyncio
import os
import signal
import sys
from unittest.mock import AsyncMock

import pytest

pytest.importorskip("textual_serve", reason="needs textual-serve; pip install 'lotr-tui[serve]'")

from lotr_tui.serve import app_process
from lotr_tui.serve.app_process import AppProcess

START = "import os, signal, struct, sys, time; os.write(1, b'__GANGLION__\\n');"
WRITE = "write = lambda data: os.write(1, b'D' + struct.pack('>I', len(data)) + data);"


async def start(program, **replaced):
    """Start a program as an app; the functions that write to its browser are mocks or `replaced`."""
    functions = {name: AsyncMock() for name in ("write_bytes", "write_str", "close")} | replaced
    process = AppProcess([sys.executable, "-c", program], **functions)
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
    monkeypatch.setattr(app_process, "EXIT_TIMEOUT", 0.3)
    monkeypatch.setattr(app_process, "TERMINATE_TIMEOUT", 0.3)
    program, output = f"{START}signal.signal(15, signal.SIG_IGN); {WRITE}write(b'up'); time.sleep(600)", AsyncMock()
    process = await start(program, write_bytes=output)
    await until(lambda: output.called)
    await asyncio.wait_for(process.stop(), 20)
    await until(lambda: process.has_ended)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


async def test_a_process_that_lets_go_of_its_streams_survives_the_tab(tmp_path):
    """A training does so when its terminal is closed."""
    detach = "null = os.open(os.devnull, os.O_RDWR); [os.dup2(null, number) for number in (0, 1, 2)]; time.sleep(600)"
    process = await start(f"{START}sys.stdin.buffer.read(); {detach}")
    await asyncio.wait_for(process.stop(), 20)
    assert not process.has_ended
    os.kill(process.pid, signal.SIGKILL)


async def test_what_an_app_prints_at_its_end_is_one_printable_line_each():
    process = await start(f"{START}sys.stderr.write('bad \\x1b[2J name\\n' + 'x' * 99999 + '\\nlast\\n')")
    await asyncio.wait_for(process.stop(), 20)
    assert "\x1b" not in process.error_text
    assert len(process.error_text) <= app_process.MAX_ERROR_BYTES
    assert process.error_text.endswith("\nlast")


async def test_a_stream_that_is_no_packets_closes_the_browser():
    close = AsyncMock()
    process = await start(f"{START}os.write(1, b'garbage in place of packets'); time.sleep(600)", close=close)
    await until(lambda: close.called)
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.wait_for(process.stop(), 20)
