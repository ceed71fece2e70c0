"""Whoever leaves is not held up, whatever a thread is busy with: the real program, in a pseudo-terminal.

`LOTR_TUI_LEAVING=all pytest tests/lotr_tui/test_leaving.py` does it with every kind of worker.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.events import Key, MouseMove, Resize
from textual.geometry import Size

from lotr_tui.app import LotrApp
from lotr_tui.bench.subjects import TYPEABLE
from lotr_tui.bench.terminal import BenchError, Terminal
from lotr_tui.widgets.prompt import Prompt
from tests.lotr_tui.screens.session.test_session_screen import until

BUSY_SECONDS = 60.0
"""What each thread is busy for: whoever waited for it would be caught."""
MOST_SECONDS = 20.0
"""In which the program must have ended, on the busiest machine."""

# The slow part of each kind of worker, as it would be with a large file; all else is the program itself.
SLOW = {
    "opening a model": ("lotr_tui.session.player.open_player", b""),
    "listing the runs": ("lotr_tui.screens.runs.screen.all_runs", b"\x0f"),
    "preparing a training": ("engine.training.job.prepare_job", b"\x14|\r"),
    "counting Kneser-Ney": ("lotr_tui.screens.lens.screen._kneser_ney", b"\x05"),
    "sorting the training text": ("lotr_tui.screens.memorization.screen._find", b"the lamp|\x1b[20~"),
    "reading the gates": ("lotr_tui.screens.activations.screen.gates", b"the lamp|\x1b[21~"),
    "reading a long prompt": ("lotr_tui.session.conversation.read", b"the lamp\r"),
    "writing a ladder": ("lotr_tui.session.column_writers.in_step", b"the lamp|\x0c"),
}
PROGRAM = """
import importlib, sys, time
from pathlib import Path
module, _, name = sys.argv.pop(1).rpartition(".")
begun = Path(sys.argv.pop(1))
seconds = float(sys.argv.pop(1))
def slow(*_, **__):
    begun.touch()
    time.sleep(seconds)
setattr(importlib.import_module(module), name, slow)
from lotr_tui.__main__ import main
main()
"""


SHORT = ("opening a model", "listing the runs", "preparing a training")
"""Those that once held up who left; the suite has time for no more."""


@pytest.mark.parametrize("what", SLOW if os.environ.get("LOTR_TUI_LEAVING") == "all" else SHORT)
def test_a_busy_thread_holds_up_nobody(what: str, tmp_path: Path) -> None:
    name, keys = SLOW[what]
    begun = tmp_path / "begun"
    command = [sys.executable, "-c", PROGRAM, name, str(begun), str(BUSY_SECONDS)]
    with Terminal(command, 100, 30, tmp_path).opened() as terminal:
        terminal.until(TYPEABLE)
        if keys:
            terminal.until("This is")
        for part in keys.split(b"|"):
            terminal.write(part)
            terminal.settle(0.2, 1)
        while not begun.exists():
            terminal.settle(0.05, 0.05)
        terminal.write(b"\x11")
        asked = time.monotonic()
        while not terminal.ended():
            assert time.monotonic() < asked + MOST_SECONDS, f"it waits for {what}"
            try:
                terminal.read()
            except BenchError:
                time.sleep(0.01)
    print(f"{what}: {time.monotonic() - asked:.2f} s")
    assert terminal.status == 0


async def test_keys_and_sizes_that_wait_hold_up_nobody(make_app: Callable[..., LotrApp]) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        prompt = app.screen.query_one(Prompt)
        await until(pilot, lambda: prompt.has_focus)
        size = app.size
        for number in range(100):
            app.post_message(Key("a", "a"))
            app.post_message(Resize(Size(81 + number, 24), Size(81 + number, 24)))
        app.exit()
    assert prompt.text == ""
    assert app.size == size


async def test_a_mouse_that_moves_when_the_screens_are_closed(make_app: Callable[..., LotrApp]) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)):
        screens = app._screen_stack
        closed = screens.copy()
        screens.clear()
        try:
            await app.on_event(MouseMove(None, 1, 1, 0, 0, 0, False, False, False))
        finally:
            screens.extend(closed)
