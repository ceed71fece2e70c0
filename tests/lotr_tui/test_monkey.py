"""Whatever keys, clicks, pastes and sizes come, in whatever order: no exception, and no thread that does not end.

`LOTR_TUI_MONKEY=20000 pytest tests/lotr_tui/test_monkey.py` goes on for longer.
"""

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot

import engine.training.job
from lotr_tui.app import LotrApp
from tests.lotr_tui.conftest import FakeJob, finished, make_decoder, training_events
from tests.lotr_tui.screens.session.test_session_screen import until

STEPS = int(os.environ.get("LOTR_TUI_MONKEY", "40"))
SIZES = [(200, 50), (80, 24), (60, 20), (20, 5), (120, 30)]
KEYS = (
    *"abcdefghij klmnop.,?!0123456789-+/[",
    *(f"f{number}" for number in range(1, 13)),
    *(f"ctrl+{letter}" for letter in "abcdefghijklmnoprstuvwxyz"),
    *("enter", "escape", "tab", "shift+tab", "up", "down", "left", "right", "home", "end", "pageup", "pagedown"),
    *("backspace", "delete", "space", "enter", "enter", "escape"),
)
PASTES = (
    "Bilbo Baggins is\na friend",
    "[red]not markup[/red] \x1b[31m\x00\x07 the lamp",
    "日本語 مرحبا e\u0301 \u200b frodo",
    "the lamp " * 5000,
    "",
)


async def one_step(pilot: Pilot[None], chance: random.Random) -> str:
    """Something that a person, a cat or a terminal might do; says what."""
    app, kind = pilot.app, chance.random()
    if kind < 0.86:
        key = chance.choice(KEYS)
        await pilot.press(key)
        return f"key {key}"
    if kind < 0.94:
        place = chance.randrange(app.size.width), chance.randrange(app.size.height)
        await pilot.click(offset=place)
        return f"click {place}"
    if kind < 0.97:
        paste = chance.choice(PASTES)
        app.post_message(events.Paste(paste))
        await pilot.pause()
        return f"paste {paste[:20]!r}"
    size = chance.choice(SIZES)
    await pilot.resize_terminal(*size)
    return f"resize {size}"


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_that_is_pressed_breaks_it(
    make_app: Callable[..., LotrApp], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)  # sessions are exported to the folder that the app was started from

    def training(*_: Any, **__: Any) -> FakeJob:
        return FakeJob([*training_events(), finished(make_decoder())]).release()

    monkeypatch.setattr(engine.training.job, "prepare_job", training)
    monkeypatch.setattr(LotrApp, "action_quit", lambda self: None)
    monkeypatch.setattr(LotrApp, "action_suspend_process", lambda self: None)
    chance, done = random.Random(seed), []
    before = set(threading.enumerate())
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.query("#training"))
        for _ in range(STEPS):
            done.append(await one_step(pilot, chance))
            assert app.is_running, f"it ended after {done[-10:]}"
            assert app._exception is None, f"after {done[-10:]}: {app._exception!r}"
        app.stop_training()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive() or thread.name.startswith("asyncio"), thread.name
