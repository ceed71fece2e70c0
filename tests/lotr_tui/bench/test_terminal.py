"""Programs in the benchmark's pseudo-terminal."""

import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from lotr_tui.bench.interface.keys import TYPED_TEXT, keystrokes, type_keys
from lotr_tui.bench.terminal import BenchError, Terminal, strip_control_sequences

ECHO_PROGRAM = """
import os, sys, tty
tty.setraw(0)
text = ""
os.write(1, b"\\x1b[1mready\\x1b[0m")
while key := os.read(0, 1).decode():
    text = text[:-1] if key == "\\x7f" else text + key
    os.write(1, b"\\x1b[2K\\x1b[1;1H")
    os.write(1, b"\\x1b[31m" + text.encode() + b"\\x1b[0m ")
    if text.endswith("!"):
        break
"""
"""Program that rewrites its line at each key, in two writes, and ends after an exclamation mark."""


@pytest.fixture
def echo(tmp_path: Path) -> Terminal:
    return Terminal([sys.executable, "-c", ECHO_PROGRAM], 40, 5, tmp_path)


def test_keystrokes_type_and_delete_the_text_and_each_shows_a_new_text() -> None:
    text = previous = ""
    for key, expected in islice(keystrokes("a bc"), 50):
        deleted = text[-1:] if key == b"\x7f" else ""
        text = text[:-1] if deleted else text + key.decode()
        assert expected == text + " "
        assert deleted == " " or expected not in previous  # the old text cannot be mistaken for the new one
        previous = expected
    assert max(len(expected) for _, expected in islice(keystrokes(TYPED_TEXT), 200)) == len(TYPED_TEXT) + 1


def test_key_is_timed_until_its_echo(echo: Terminal) -> None:
    with echo.spawn() as terminal:
        assert terminal.read_until("ready") == len(b"\x1b[1mready\x1b[0m")
        started = time.perf_counter()
        latencies = type_keys(terminal, 8)
        assert len(latencies) == 8
        assert all(0 < seconds < time.perf_counter() - started for seconds in latencies)
        assert terminal.press(b"x") > 0  # until any output
        terminal.read_until_quiet(0.1, 1)
        assert terminal.read(0.01) == b""


def test_program_that_ends_is_an_error(echo: Terminal) -> None:
    with echo.spawn() as terminal:
        terminal.read_until("ready")
        with pytest.raises(BenchError, match="ended during its measurement"):
            terminal.press(b"!", "something else")


def test_text_that_never_appears_is_an_error(echo: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lotr_tui.bench.terminal.TIMEOUT_SECONDS", 0.1)
    with echo.spawn() as terminal:
        with pytest.raises(BenchError, match="did not show 'never'"):
            terminal.read_until("never")
        with pytest.raises(BenchError, match="did not show 'nor this'"):
            terminal.press(b"a", "nor this")


def test_keys_reach_a_program_that_is_blocked_on_its_output(tmp_path: Path) -> None:
    program = """
import os, sys, tty
tty.setraw(0)
os.write(1, b"ready")
sys.stdout.write("words " * 50_000)
sys.stdout.flush()
taken = 0
while taken < 20_000:
    taken += len(os.read(0, 1000))
os.write(1, b"took %d" % taken)
"""
    with Terminal([sys.executable, "-c", program], 80, 24, tmp_path).spawn() as terminal:
        terminal.read_until("ready")
        terminal.write(b"k" * 20_000)
        num_bytes = terminal.read_until("took 20000")
    assert num_bytes > 290_000


def test_ctrl_s_does_not_block_the_output(tmp_path: Path) -> None:
    program = "input(); print('con' + 'tinues')"
    with Terminal([sys.executable, "-c", program], 80, 24, tmp_path).spawn() as terminal:
        terminal.write(b"\x13\r")
        terminal.read_until("continues")


def test_control_sequences_and_incomplete_characters_are_removed() -> None:
    assert strip_control_sequences(b"\x1b[2;5H\x1b[38;2;1;2;3mtempera\x1b[0mture 0.85\x1b[?25l ") == "temperature 0.85 "
    assert strip_control_sequences("─ é".encode()[:-1]) == "─ \N{REPLACEMENT CHARACTER}"


def test_measured_program_has_a_terminal_on_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    program = "from lotr_tui.cli.options import has_terminal; print('screen', has_terminal()); input()"
    with Terminal([sys.executable, "-c", program], 80, 24, tmp_path).spawn() as terminal:
        terminal.read_until("screen True")
