"""Workarounds that concern the terminal: closed output, invalid input, and stopped processes."""

import os
import signal
import sys
import termios
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from lotr_tui.textual_fixes.terminal import ResilientWriterThread
from tests.support.terminal import MODEL_READY_TEXT, SESSION_COMMAND, Terminal

MANY_WRITES = 100  # more than the queue of the writer holds
APP_SOURCE = """
import signal
import threading
from lotr_tui.textual_fixes.app import TextualFixesApp
from textual.widgets import Label

class SmallApp(TextualFixesApp):
    BINDINGS = [("ctrl+q", "quit", "quit"), ("ctrl+t", "continue_in_thread", "continue")]

    def compose(self):
        yield Label("the whole screen")

    def action_continue_in_thread(self):
        def receive_signal():
            signal.pthread_kill(threading.get_ident(), signal.SIGCONT)

        threading.Timer(0.3, receive_signal).start()

SmallApp().run()
"""
SCREEN_TEXT = "the whole screen"
CTRL_Q, CTRL_T = b"\x11", b"\x14"
ALTERNATE_SCREEN_ON, ALTERNATE_SCREEN_OFF = b"\x1b[?1049h", b"\x1b[?1049l"


def test_exit_does_not_wait_for_a_closed_terminal():
    descriptor, program_side = os.openpty()
    file = os.fdopen(program_side, "w", encoding="utf-8")
    os.close(descriptor)
    writer = ResilientWriterThread(file)
    writer.start()

    def write_and_stop():
        for _ in range(MANY_WRITES):
            writer.write("words ")
        writer.stop()

    thread = threading.Thread(target=write_and_stop, daemon=True)  # both may block
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert not writer.is_alive()
    with suppress(OSError):  # unwritten text
        file.close()


def test_session_survives_bytes_that_are_not_utf8_and_ends_with_its_terminal(tmp_path):
    with Terminal(SESSION_COMMAND, 100, 30, tmp_path).spawn() as terminal:
        terminal.read_until(MODEL_READY_TEXT)
        terminal.press(b"\xff\xfe\x80 the lamp", "lamp")
        terminal.hang_up()
        terminal.read_until_exit(20)
        assert terminal.exit_status == 129


# Stopped and continued processes


@pytest.fixture
def terminal(tmp_path):
    with Terminal([sys.executable, "-c", APP_SOURCE], 60, 10, tmp_path).spawn() as terminal:
        terminal.shell_modes = terminal.modes()
        terminal.read_until(SCREEN_TEXT)
        terminal.read_until_quiet(0.2, 3)
        yield terminal


def stop_process(terminal, number):
    """Send a signal that stops the process, and return the output until then."""
    os.kill(terminal.pid, number)
    status = Path(f"/proc/{terminal.pid}/status")
    return terminal.output_until(lambda _: "State:\tT" in status.read_text()) + terminal.read(0.05)


def continue_process(terminal):
    """Continue the process, and return the output until the screen is painted, with the terminal in raw mode."""
    os.kill(terminal.pid, signal.SIGCONT)
    output = terminal.output_until(lambda output: SCREEN_TEXT.encode() in output)
    assert not terminal.modes()[3] & (termios.ECHO | termios.ICANON)
    return output


def test_an_app_that_was_stopped_or_suspended_turns_on_what_a_shell_has_turned_off_and_restores_it(terminal):
    stop_process(terminal, signal.SIGSTOP)
    terminal.set_modes(terminal.shell_modes)  # as a shell with job control does
    output = continue_process(terminal)
    for sequence in (ALTERNATE_SCREEN_ON, b"\x1b[?2004h", b"\x1b[?1006h", b"\x1b[?25l"):
        assert sequence in output
    # The keyboard protocol is popped and pushed, so that one pop at the exit still removes it.
    assert output.count(b"\x1b[<u") == output.count(b"\x1b[>") == 1
    for _ in range(2):
        assert ALTERNATE_SCREEN_OFF in stop_process(terminal, signal.SIGTSTP)
        assert terminal.modes() == terminal.shell_modes
        continue_process(terminal)
    terminal.write(CTRL_Q)
    assert ALTERNATE_SCREEN_OFF in terminal.read_until_exit()
    assert terminal.exit_status == 0
    assert terminal.modes() == terminal.shell_modes


def test_a_continue_signal_wakes_the_app_through_another_thread_and_changes_nothing_during_the_exit(terminal):
    terminal.press(CTRL_T, SCREEN_TEXT)
    terminal.write(CTRL_Q)

    def has_ended(output):
        if not terminal.has_exited():
            os.kill(terminal.pid, signal.SIGCONT)
        return terminal.has_exited()

    output = terminal.output_until(has_ended) + terminal.read_until_exit()
    assert ALTERNATE_SCREEN_OFF in output
    assert b"Traceback" not in output
    assert terminal.exit_status == 0
    assert terminal.modes() == terminal.shell_modes
