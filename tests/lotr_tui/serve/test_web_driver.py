"""The app under Textual's web driver, without a server: its stream, closed tabs, signals, and a server that dies."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lotr_tui.textual_fixes.terminal.served import WEB_DRIVER
from tests.support.terminal import MODEL_READY_TEXT, strip_control_sequences

PRINTING_APP = """
import os, sys, threading, time
def print_for_ever():
    while True:
        os.write(1, b"printed by a library\\n")
        time.sleep(0.05)
threading.Timer(1.5, print_for_ever).start()
from lotr_tui.__main__ import main
main()
"""


class ServedApp:
    """An app whose standard streams are pipes, as textual-serve starts it."""

    def __init__(self, home: Path, *command: str) -> None:
        environment = {"LOTR_TUI_HOME": str(home), "TEXTUAL_DRIVER": WEB_DRIVER, "COLUMNS": "120", "ROWS": "35"}
        self.process = subprocess.Popen(
            [sys.executable, *(command or ("-m", "lotr_tui"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"TERM": "xterm-256color"} | environment,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.text = ""

    def send(self, kind: bytes, data: bytes) -> None:
        self.stdin.write(struct.pack(">cI", kind, len(data)) + data)
        self.stdin.flush()

    def read_until(self, text: str) -> None:
        """Read packets until the output has `text`; anything else in the stream is an error."""
        while text not in self.text:
            kind, size = struct.unpack(">cI", self.stdout.read(5))
            assert kind in (b"D", b"M"), (kind, size)
            payload = self.stdout.read(size)
            if kind == b"D":
                self.text += strip_control_sequences(payload)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServedApp]]:
    apps: list[ServedApp] = []

    def start_app(*command: str) -> ServedApp:
        apps.append(ServedApp(tmp_path / "home", *command))
        assert apps[-1].stdout.readline() == b"__GANGLION__\n"
        return apps[-1]

    yield start_app
    for app in apps:
        app.process.kill()
        app.process.wait()
        for stream in (app.stdin, app.stdout, app.process.stderr):
            with suppress(BrokenPipeError):
                stream.close()


def test_a_closed_tab_saves_the_conversation_and_ends_the_app(start: Callable[..., ServedApp], tmp_path: Path) -> None:
    app = start()
    app.read_until(MODEL_READY_TEXT)
    app.send(b"D", b"\xff\xfe")  # no UTF-8; the input goes on
    app.send(b"D", b"Where is Frodo?\r")
    app.read_until(" · T 0.70")
    app.send(b"M", json.dumps({"type": "quit"}).encode())
    while app.stdout.read(65536):
        pass
    assert app.process.wait(20) == 129
    sessions = list((tmp_path / "home" / "sessions").iterdir())
    assert any("Where is Frodo?" in path.read_text() for path in sessions if path.is_file())


@pytest.mark.parametrize("end", ["streams", "SIGTERM"])
def test_the_app_ends_when_its_server_dies_or_a_signal_arrives(start: Callable[..., ServedApp], end: str) -> None:
    app = start()
    app.read_until(MODEL_READY_TEXT)
    if end == "streams":
        app.stdin.close()
        app.stdout.close()
    else:
        app.process.send_signal(signal.SIGTERM)
        while app.stdout.read(65536):
            pass
    assert app.process.wait(20) == (129 if end == "streams" else 143)
    assert app.process.stderr is not None
    assert b"Traceback" not in app.process.stderr.read()


def test_what_a_library_prints_does_not_break_the_stream(start: Callable[..., ServedApp]) -> None:
    app = start("-c", PRINTING_APP)
    app.read_until(MODEL_READY_TEXT)
    for _ in range(10):
        app.send(b"D", b"lamp ")
        time.sleep(0.1)
    app.read_until("lamp lamp")
    app.send(b"M", b'{"type": "notice", "text": "from [the] server"}')
    app.read_until("from [the] server")
    app.send(b"M", b'{"type": "quit"}')
    _, errors = app.process.communicate(timeout=20)
    assert b"printed by a library" in errors
