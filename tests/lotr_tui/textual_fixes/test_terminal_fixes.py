"""Tests of the workarounds that concern the terminal: closed output, invalid input, and stopped processes."""

import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import pytest
from textual.drivers import linux_driver
from textual.drivers._writer_thread import MAX_QUEUED_WRITES, WriterThread

from lotr_tui.cli.launch import run_app
from lotr_tui.textual_fixes.app import TextualFixesApp
from lotr_tui.textual_fixes.terminal.closed_terminal_output import ResilientWriterThread
from lotr_tui.textual_fixes.terminal.invalid_utf8_input import replace_undecodable_input
from lotr_tui.textual_fixes.terminal.stop_and_continue import ContinuableLinuxDriver
from tests.support.terminal import Terminal, TerminalError
from tests.support.textual_defects import expect_defect


@pytest.fixture
def terminal() -> Iterator[tuple[int, IO[str]]]:
    """Pseudo-terminal: file descriptor of the terminal's side, and file that the program writes to."""
    descriptor, program_side = os.openpty()
    file = os.fdopen(program_side, "w", encoding="utf-8")
    yield descriptor, file
    with suppress(OSError):  # unwritten text
        file.close()


def write_and_stop(writer: WriterThread) -> threading.Thread:
    """Write more than the queue holds and stop the writer, in a thread because both may block."""

    def run() -> None:
        for _ in range(2 * MAX_QUEUED_WRITES):
            writer.write("words ")
        writer.stop()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("writer_type", "timeout"), [(ResilientWriterThread, 20)])
def test_exit_does_not_wait_for_a_closed_terminal(
    terminal: tuple[int, IO[str]], writer_type: type[WriterThread], timeout: float
) -> None:
    descriptor, file = terminal
    os.close(descriptor)
    writer = writer_type(file)
    writer.start()
    thread = write_and_stop(writer)
    thread.join(timeout)
    assert not thread.is_alive()
    assert not writer.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_workaround_for_a_closed_terminal_is_still_needed(terminal: tuple[int, IO[str]]) -> None:
    with expect_defect(AssertionError):
        test_exit_does_not_wait_for_a_closed_terminal(terminal, WriterThread, timeout=1)


def test_open_terminal_gets_all_output(terminal: tuple[int, IO[str]]) -> None:
    descriptor, file = terminal
    writer = ResilientWriterThread(file)
    writer.start()
    write_and_stop(writer).join(20)
    expected, shown = "words " * 2 * MAX_QUEUED_WRITES, ""
    while len(shown) < len(expected):
        shown += os.read(descriptor, 10_000).decode()
    assert shown == expected
    os.close(descriptor)


def test_run_app_installs_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_driver, "WriterThread", WriterThread)
    monkeypatch.setattr(linux_driver, "getincrementaldecoder", linux_driver.getincrementaldecoder)  # type: ignore[attr-defined]
    monkeypatch.setattr("signal.signal", lambda *_: None)
    used: list[Any] = []

    class FakeApp:
        terminal_closed, detached_run, exit_message, exit_code = False, None, "", 0
        job, is_training = None, False

        def run(self, *, mouse: bool) -> None:
            used.append(linux_driver.WriterThread)

        def finish_training(self) -> None:
            pass

        def tracker_lines(self) -> list[str]:
            return []

    run_app(FakeApp(), mouse=False)  # type: ignore[arg-type]
    assert used == [ResilientWriterThread]


@pytest.mark.parametrize("install", [replace_undecodable_input])
def test_invalid_utf8_is_read_as_replacement_characters(
    monkeypatch: pytest.MonkeyPatch, install: Callable[[], None]
) -> None:
    monkeypatch.setattr(linux_driver, "getincrementaldecoder", linux_driver.getincrementaldecoder)  # type: ignore[attr-defined]
    install()
    decode = linux_driver.getincrementaldecoder("utf-8")().decode  # type: ignore[attr-defined]
    assert decode(b"a\xffb") == "a\N{REPLACEMENT CHARACTER}b"


def test_workaround_for_invalid_utf8_is_still_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    with expect_defect(UnicodeDecodeError):
        test_invalid_utf8_is_read_as_replacement_characters(monkeypatch, install=lambda: None)


# Stopped and continued processes

APP_SOURCE = """
import signal
import sys
import threading
from importlib import import_module
from textual.app import App
from textual.widgets import Label

class SmallApp(App):
    BINDINGS = [("ctrl+q", "quit", "quit"), ("ctrl+t", "continue_in_thread", "continue")]

    def compose(self):
        yield Label("the whole screen")

    def action_continue_in_thread(self):
        def receive_signal():
            signal.pthread_kill(threading.get_ident(), signal.SIGCONT)

        threading.Timer(0.3, receive_signal).start()

module, _, name = sys.argv[1].rpartition(".")
SmallApp(driver_class=getattr(import_module(module), name)).run()
"""
SCREEN_TEXT = "the whole screen"
CTRL_Q, CTRL_T = b"\x11", b"\x14"
PLAIN_DRIVER = "textual.drivers.linux_driver.LinuxDriver"
FIXED_DRIVER = "lotr_tui.textual_fixes.terminal.stop_and_continue.ContinuableLinuxDriver"
ALTERNATE_SCREEN_ON, ALTERNATE_SCREEN_OFF = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture
def start_app(tmp_path: Path) -> Iterator[Callable[[str], Terminal]]:
    """Function that starts a small app with a driver in a pseudo-terminal."""
    with ExitStack() as stack:

        def start(driver: str) -> Terminal:
            command = [sys.executable, "-c", APP_SOURCE, driver]
            return stack.enter_context(Terminal(command, 60, 10, tmp_path).spawn())

        yield start


def stop_process(terminal: Terminal, number: signal.Signals) -> bytes:
    """Send a signal that stops the process, and return the output until then."""
    os.kill(terminal.pid, number)
    output, deadline = b"", time.monotonic() + 10
    while "State:\tT" not in Path(f"/proc/{terminal.pid}/status").read_text():
        assert time.monotonic() < deadline, "the process is not stopped"
        output += terminal.read(0.02)
    return output + terminal.read(0.05)


def read_to_text(terminal: Terminal, seconds: float = 10) -> bytes:
    """Return the output until the screen is painted."""
    output, deadline = b"", time.monotonic() + seconds
    while SCREEN_TEXT.encode() not in output:
        assert time.monotonic() < deadline, "the app does not repaint"
        output += terminal.read(0.05)
    return output


def read_to_exit(terminal: Terminal, seconds: float = 10) -> bytes:
    """Return the output until the process ends."""
    output, deadline = b"", time.monotonic() + seconds
    while not terminal.has_exited():
        assert time.monotonic() < deadline, "the process does not end"
        with suppress(TerminalError):
            output += terminal.read(0.02)
    with suppress(TerminalError):
        output += terminal.read(0.02)
    return output


def in_raw_mode(terminal: Terminal) -> bool:
    return not terminal.modes()[3] & (termios.ECHO | termios.ICANON)


@pytest.mark.parametrize(("driver", "timeout"), [(FIXED_DRIVER, 10)])
def test_an_app_that_was_stopped_and_continued_quits_and_restores_the_modes(
    start_app: Callable[[str], Terminal], driver: str, timeout: float
) -> None:
    terminal = start_app(driver)
    shell_modes = terminal.modes()
    terminal.read_until(SCREEN_TEXT)
    terminal.read_until_quiet(0.2, 3)
    stop_process(terminal, signal.SIGSTOP)
    terminal.set_modes(shell_modes)  # as a shell with job control does
    os.kill(terminal.pid, signal.SIGCONT)
    read_to_text(terminal, timeout)
    assert in_raw_mode(terminal)
    terminal.write(CTRL_Q)
    assert ALTERNATE_SCREEN_OFF in read_to_exit(terminal, timeout)
    assert terminal.exit_status == 0
    assert terminal.modes() == shell_modes


def test_workaround_for_stopped_processes_is_still_needed(start_app: Callable[[str], Terminal]) -> None:
    with expect_defect(AssertionError):
        test_an_app_that_was_stopped_and_continued_quits_and_restores_the_modes(start_app, PLAIN_DRIVER, timeout=1)


def test_a_continued_app_turns_on_what_a_shell_may_have_turned_off(start_app: Callable[[str], Terminal]) -> None:
    terminal = start_app(FIXED_DRIVER)
    terminal.read_until(SCREEN_TEXT)
    terminal.read_until_quiet(0.2, 3)
    stop_process(terminal, signal.SIGSTOP)
    os.kill(terminal.pid, signal.SIGCONT)
    output = read_to_text(terminal)
    for sequence in (ALTERNATE_SCREEN_ON, b"\x1b[?2004h", b"\x1b[?1006h", b"\x1b[?25l"):
        assert sequence in output
    # The keyboard protocol is popped and pushed, so that one pop at the exit still removes it.
    assert output.count(b"\x1b[<u") == output.count(b"\x1b[>") == 1


def test_a_continue_signal_that_another_thread_receives_wakes_the_app(start_app: Callable[[str], Terminal]) -> None:
    terminal = start_app(FIXED_DRIVER)
    terminal.read_until(SCREEN_TEXT)
    terminal.read_until_quiet(0.2, 3)
    terminal.write(CTRL_T)
    read_to_text(terminal)


def test_a_suspended_app_restores_the_terminal_meanwhile_and_resumes(start_app: Callable[[str], Terminal]) -> None:
    terminal = start_app(FIXED_DRIVER)
    shell_modes = terminal.modes()
    terminal.read_until(SCREEN_TEXT)
    terminal.read_until_quiet(0.2, 3)
    for _ in range(2):
        assert ALTERNATE_SCREEN_OFF in stop_process(terminal, signal.SIGTSTP)
        assert terminal.modes() == shell_modes
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.read_until(SCREEN_TEXT)
        assert in_raw_mode(terminal)
    terminal.write(CTRL_Q)
    read_to_exit(terminal)
    assert terminal.exit_status == 0
    assert terminal.modes() == shell_modes


def test_a_continue_signal_during_the_exit_changes_nothing(start_app: Callable[[str], Terminal]) -> None:
    terminal = start_app(FIXED_DRIVER)
    shell_modes = terminal.modes()
    terminal.read_until(SCREEN_TEXT)
    terminal.read_until_quiet(0.2, 3)
    terminal.write(CTRL_Q)
    output = b""
    while not terminal.has_exited():
        os.kill(terminal.pid, signal.SIGCONT)
        with suppress(TerminalError):
            output += terminal.read(0.005)
    assert b"Traceback" not in output
    assert terminal.exit_status == 0
    assert terminal.modes() == shell_modes


def test_the_app_uses_the_driver() -> None:
    assert TextualFixesApp().get_driver_class() is ContinuableLinuxDriver
