"""The app ends promptly whatever its threads are doing, with an exit code that says why."""

import os
import signal
import sys

import pytest

from lotr_tui.session.session_file import list_sessions
from tests.support.terminal import INPUT_READY_TEXT, MODEL_READY_TEXT, SESSION_COMMAND, Terminal

MAX_EXIT_SECONDS = 20.0  # seconds in which the app must have ended on a busy machine; a busy thread takes 60
CTRL_O, CTRL_T, CTRL_Q = b"\x0f", b"\x14", b"\x11"
PROGRAM = """
import sys, time
from pathlib import Path
from unittest.mock import patch
function, started = sys.argv.pop(1), Path(sys.argv.pop(1))
patch(function, lambda *_, **__: (started.touch(), time.sleep(60))).start()
from lotr_tui.__main__ import main
main()
"""
START = """
print("started", flush=True)
from lotr_tui.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("function", "keys"),
    [
        ("lotr_tui.session.session_model.load_session_model", []),
        pytest.param("lotr_tui.monitor.run_list.list_selectable_runs", [CTRL_O], marks=pytest.mark.slow),
        ("engine.training.job.prepare_job", [CTRL_T, b"\r"]),
    ],
    ids=lambda value: value.rpartition(".")[2] if isinstance(value, str) else "",
)
def test_exit_does_not_wait_for_a_busy_thread(function, keys, tmp_path):
    started, is_training = tmp_path / "started", function.endswith("prepare_job")
    command = [sys.executable, "-c", PROGRAM, function, str(started)]
    with Terminal(command, 100, 30, tmp_path).spawn() as terminal:
        terminal.read_until(MODEL_READY_TEXT if keys else INPUT_READY_TEXT)
        for key in keys:
            terminal.write(key)
            terminal.read_until_quiet(0.2, 1)
        terminal.output_until(lambda _: started.exists())
        if is_training:
            terminal.press(CTRL_Q, "stop the training")
        terminal.write(b"s" if is_training else CTRL_Q)
        terminal.read_until_exit(MAX_EXIT_SECONDS)
        assert terminal.exit_status == 0


def test_an_error_of_the_program_ends_the_session_with_one_line_and_exit_code_1(tmp_path):
    program = PROGRAM.replace("lambda *_, **__: (started.touch(), time.sleep(60))", "lambda *_, **__: 1 / 0")
    command = [sys.executable, "-c", program, "lotr_tui.screens.session.preview.Preview.complete", "unused"]
    with Terminal(command, 100, 30, tmp_path).spawn() as terminal:
        terminal.read_until(MODEL_READY_TEXT)
        terminal.write(b"x")
        output = terminal.read_until_exit(MAX_EXIT_SECONDS)
        assert terminal.exit_status == 1
    assert output.rstrip().endswith(
        b"lotr-tui: ZeroDivisionError: division by zero; LOTR_TUI_DEBUG=1 shows the traceback"
    )
    assert b"Traceback" not in output


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGQUIT, 131), (signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_saves_the_reply_that_is_written_and_restores_the_terminal(tmp_path, number, status):
    with Terminal([*SESSION_COMMAND, "--pace", "2"], 80, 24, tmp_path).spawn() as terminal:
        modes = terminal.modes()
        terminal.read_until(MODEL_READY_TEXT)
        terminal.press(b"Where is Frodo?\r", "stop")
        os.kill(terminal.pid, number)
        terminal.read_until_exit(MAX_EXIT_SECONDS)
        assert terminal.exit_status == status
        assert terminal.modes() == modes
    (session,) = list_sessions(tmp_path / "sessions")
    assert (session.num_replies, session.first_prompt) == (1, "Where is Frodo?")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_during_the_start_ends_the_session_without_a_traceback(tmp_path, number):
    command = [sys.executable, "-c", START]  # the start of Python itself answers SIGINT with a fatal error
    with Terminal(command, 80, 24, tmp_path).spawn() as terminal:
        terminal.read_until("started")
        os.kill(terminal.pid, number)
        output = terminal.read_until_exit(MAX_EXIT_SECONDS)
    assert terminal.exit_status in (128 + number, -number)  # before its handler is there, a signal ends the process
    assert b"Traceback" not in output or output.rstrip().endswith(b"KeyboardInterrupt")
