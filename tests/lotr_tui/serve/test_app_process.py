"""Processes of apps: they end with their tab, also if they hang, and what they print cannot harm the server."""

import asyncio
import os
import signal
import sys

import pytest

pytest.importorskip("textual_serve", reason="needs textual-serve; pip install 'lotr-tui[serve]'")

from textual_serve.download_manager import DownloadManager

from lotr_tui.serve import app_process
from lotr_tui.serve.app_process import AppProcess
from tests.support.serving import connect, echo_command, read_until, run_server

START = "import os, signal, struct, sys, time; os.write(1, b'__GANGLION__\\n');"
WRITE = "write = lambda data: os.write(1, b'D' + struct.pack('>I', len(data)) + data);"


async def start(program, **replaced):
    output = []

    async def collect(data):
        output.append(data)

    async def ignore(*_):
        pass

    functions = {"write_bytes": collect, "write_str": ignore, "close": ignore} | replaced
    process = AppProcess([sys.executable, "-c", program], download_manager=DownloadManager(), **functions)
    await process.start(80, 24)
    return process, output


async def test_output_is_read_after_the_browser_has_left(tmp_path):
    """Otherwise the app is blocked in a write, and never sees that its tab was closed."""

    async def fail(_):
        raise ConnectionResetError("closing")

    done = tmp_path / "done"
    process, _ = await start(
        f"{START}{WRITE}[write(b'x' * 60000) for _ in range(50)]; open({str(done)!r}, 'w')", write_bytes=fail
    )
    await asyncio.wait_for(process.stop(), 20)
    assert done.exists()


async def test_an_app_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(app_process, "EXIT_TIMEOUT", 0.3)
    monkeypatch.setattr(app_process, "TERMINATE_TIMEOUT", 0.3)
    process, output = await start(f"{START}signal.signal(15, signal.SIG_IGN); {WRITE}write(b'up'); time.sleep(600)")
    while not output:
        await asyncio.sleep(0.02)
    await asyncio.wait_for(process.stop(), 20)
    while not process.has_ended:
        await asyncio.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


async def test_a_process_that_lets_go_of_its_streams_survives_the_tab(tmp_path):
    """A training does so when its terminal is closed."""
    detach = "null = os.open(os.devnull, os.O_RDWR); [os.dup2(null, number) for number in (0, 1, 2)]; time.sleep(600)"
    process, _ = await start(f"{START}sys.stdin.buffer.read(); {detach}")
    await asyncio.wait_for(process.stop(), 20)
    assert not process.has_ended
    os.kill(process.pid, signal.SIGKILL)


async def test_what_an_app_prints_at_its_end_is_one_printable_line_each():
    process, _ = await start(f"{START}sys.stderr.write('bad \\x1b[2J name\\n' + 'x' * 99999 + '\\nlast\\n')")
    await asyncio.wait_for(process.stop(), 20)
    assert "\x1b" not in process.error_text
    assert len(process.error_text) <= app_process.MAX_ERROR_BYTES
    assert process.error_text.endswith("\nlast")


async def test_a_stream_that_is_no_packets_closes_the_browser():
    closed = asyncio.Event()

    async def close():
        closed.set()

    process, _ = await start(f"{START}os.write(1, b'garbage in place of packets'); time.sleep(600)", close=close)
    await asyncio.wait_for(closed.wait(), 20)
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.wait_for(process.stop(), 20)


async def test_the_app_is_closed_with_its_tab_and_with_the_server(tmp_path):
    record = tmp_path / "record"
    async with run_server(echo_command(record)) as (client, guard, lines):
        first = await connect(client, guard)
        await read_until(first, "size 100x30")
        await first.close()
        while len(lines) < 2:
            await asyncio.sleep(0.02)
        assert lines[1] == "browser 1 has closed the session"
        assert record.read_text() == "started quit "
        second = await connect(client, guard)
        await read_until(second, "size 100x30")
    assert record.read_text() == "started quit started quit "
    assert lines[-1] == "browser 2 has closed the session"
