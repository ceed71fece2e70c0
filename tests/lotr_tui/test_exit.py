"""Tests of the exit: the app ends promptly whatever its threads are doing.

Set `LOTR_TUI_EXIT=all` to test every kind of thread.
"""

import os
import sys
import time
from pathlib import Path

import pytest

from tests.support.terminal import INPUT_READY_TEXT, MODEL_READY_TEXT, Terminal, TerminalError

SLOW_SECONDS = 60.0
"""Seconds that a slow function takes, so that waiting for it is noticed."""
MAX_EXIT_SECONDS = 20.0
"""Seconds in which the app must have ended on a busy machine."""
CTRL_O, CTRL_T, CTRL_E, CTRL_L, CTRL_Q, F9, F10 = b"\x0f", b"\x14", b"\x05", b"\x0c", b"\x11", b"\x1b[20~", b"\x1b[21~"

# Functions that run in a thread, and the keys that start them.
SLOW_FUNCTIONS: dict[str, tuple[str, list[bytes]]] = {
    "load a model": ("lotr_tui.session.session_model.load_session_model", []),
    "list the runs": ("lotr_tui.screens.runs.screen.list_selectable_runs", [CTRL_O]),
    "prepare a training": ("engine.training.job.prepare_job", [CTRL_T, b"\r"]),
    "count Kneser-Ney": ("lotr_tui.screens.lens.scoring.load_kneser_ney", [CTRL_E]),
    "find copied passages": ("lotr_tui.screens.memorization.screen.find_memorized_passages", [b"the lamp", F9]),
    "record activations": ("lotr_tui.screens.activations.screen.record_activations", [b"the lamp", F10]),
    "read a long prompt": ("lotr_tui.session.conversation.generation.prefill", [b"the lamp\r"]),
    "generate a ladder": ("lotr_tui.screens.comparison.writers.generate_columns", [b"the lamp", CTRL_L]),
}
USUALLY_TESTED = ("load a model", "list the runs", "prepare a training")
"""Functions that once delayed the exit; testing all of them takes too long for the suite."""
PROGRAM = """
import importlib, sys, time
from pathlib import Path
module, _, name = sys.argv.pop(1).rpartition(".")
started = Path(sys.argv.pop(1))
seconds = float(sys.argv.pop(1))
def slow(*_, **__):
    started.touch()
    time.sleep(seconds)
target = importlib.import_module(module)
assert hasattr(target, name)
setattr(target, name, slow)
from lotr_tui.__main__ import main
main()
"""


@pytest.mark.parametrize("name", SLOW_FUNCTIONS if os.environ.get("LOTR_TUI_EXIT") == "all" else USUALLY_TESTED)
def test_exit_does_not_wait_for_a_busy_thread(name: str, tmp_path: Path) -> None:
    function, keys = SLOW_FUNCTIONS[name]
    started = tmp_path / "started"
    command = [sys.executable, "-c", PROGRAM, function, str(started), str(SLOW_SECONDS)]
    with Terminal(command, 100, 30, tmp_path).spawn() as terminal:
        terminal.read_until(INPUT_READY_TEXT)
        if keys:
            terminal.read_until(MODEL_READY_TEXT)
        for key in keys:
            terminal.write(key)
            terminal.read_until_quiet(0.2, 1)
        while not started.exists():
            terminal.read_until_quiet(0.05, 0.05)
        if name == "prepare a training":
            terminal.press(CTRL_Q, "stop the training")
        terminal.write(b"s" if name == "prepare a training" else CTRL_Q)
        quit_at = time.monotonic()
        while not terminal.has_exited():
            assert time.monotonic() < quit_at + MAX_EXIT_SECONDS, f"the app waits for {function}"
            try:
                terminal.read()
            except TerminalError:
                time.sleep(0.01)
    assert terminal.exit_status == 0
