"""The app under Textual's web driver, without a server: its stream, closed tabs, signals, and a server that dies."""

import os
import signal
import struct
import subprocess
import sys
import time

import pytest

from lotr_tui.textual_fixes import WEB_DRIVER
from tests.support.terminal import MODEL_READY_TEXT, answer_first_question, strip_control_sequences

PRINTING_APP = """
import os, sys, threading, time
def print_for_ever():
    while True:
        os.write(1, b"printed by a library\\n")
        time.sleep(0.05)
threading.Timer(0.5, print_for_ever).start()
from lotr_tui.__main__ import main
main()
"""


class ServedApp:
    """An app whose standard streams are pipes, as textual-serve starts it."""

    def __init__(self, home, *command):
        answer_first_question(home)
        environment = {"LOTR_TUI_HOME": str(home), "TEXTUAL_DRIVER": WEB_DRIVER, "COLUMNS": "120", "ROWS": "35"}
        command = [sys.executable, *(command or ("-m", "lotr_tui"))]
        environment = os.environ | {"TERM": "xterm-256color"} | environment
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen(command, env=environment, **streams)
        self.text = ""
        while (line := self.process.stdout.readline()) != b"__GANGLION__\n":  # the driver has not started yet
            assert line == b"printed by a library\n"

    def send(self, kind, data):
        self.process.stdin.write(struct.pack(">cI", kind, len(data)) + data)
        self.process.stdin.flush()

    def read_until(self, text):
        """Read packets until the output has `text`; anything else in the stream is an error."""
        while text not in self.text:
            kind, size = struct.unpack(">cI", self.process.stdout.read(5))
            assert kind in (b"D", b"M"), (kind, size)
            payload = self.process.stdout.read(size)
            if kind == b"D":
                self.text += strip_control_sequences(payload)

    def end(self):
        """Read the rest of the output, and return the exit code and the standard error."""
        while self.process.stdout.read(65536):
            pass
        return self.process.wait(20), self.process.stderr.read()


@pytest.fixture
def app(tmp_path, request):
    """Return an app that has loaded its model, by default the session."""
    app = ServedApp(tmp_path / "home", *getattr(request, "param", ()))
    app.read_until(MODEL_READY_TEXT)
    yield app
    app.process.kill()
    app.process.wait()


def test_a_closed_tab_saves_the_conversation_and_ends_the_app(app, tmp_path):
    app.send(b"D", b"\xff\xfe")  # no UTF-8; the input goes on
    app.send(b"D", b"Where is Frodo?\r")
    app.read_until("‹ 1/8 ›")  # the answers of a finished reply
    app.process.stdin.close()
    assert app.end()[0] == 129
    (session,) = (path for path in (tmp_path / "home" / "sessions").iterdir() if path.suffix == ".jsonl")
    assert "Where is Frodo?" in session.read_text()


def test_the_app_ends_at_a_signal(app):
    app.process.send_signal(signal.SIGTERM)
    code, errors = app.end()
    assert code == 143
    assert b"Traceback" not in errors


def test_the_app_ends_when_its_server_dies(app):
    app.process.stdin.close()
    app.process.stdout.close()
    assert app.process.wait(20) == 129
    assert b"Traceback" not in app.process.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize("app", [("-c", PRINTING_APP)], indirect=True, ids=["printing"])
def test_what_a_library_prints_does_not_break_the_stream(app):
    for _ in range(5):
        app.send(b"D", b"lamp ")
        time.sleep(0.1)
    app.read_until("lamp lamp")
    app.process.stdin.close()
    assert b"printed by a library" in app.end()[1]
