"""Random keys, clicks, pastes and sizes never crash the app, and all its threads end.

Set `LOTR_TUI_MONKEY` to a number of steps for a longer test.
"""

import os
import random
import threading

import pytest
from textual import events

from engine.runs.loading import load_model
from lotr_tui.app import LotrApp
from lotr_tui.session.session_model import SessionModel
from tests.support.app import FakeJob, finished, make_decoder, training_events
from tests.support.dialogues import dialogue_session_model
from tests.support.open_inspectors import use_training_text
from tests.support.open_models import bpe_tokenizer, write_open_run
from tests.support.pilot import until

pytestmark = pytest.mark.slow

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


async def random_step(pilot, rng):
    app, kind = pilot.app, rng.random()
    if kind < 0.86:
        await pilot.press(done := rng.choice(KEYS))
    elif kind < 0.94:
        await pilot.click(offset=(done := (rng.randrange(app.size.width), rng.randrange(app.size.height))))
    elif kind < 0.97:
        app.post_message(events.Paste(done := rng.choice(PASTES)))
        await pilot.pause()
    else:
        await pilot.resize_terminal(*(done := rng.choice(SIZES)))
    return done


def bpe_model(folder, monkeypatch):
    use_training_text(monkeypatch, tokenizer := bpe_tokenizer())  # so that every screen has one
    return SessionModel.from_loaded(load_model(write_open_run(folder / "open", tokenizer)))


@pytest.mark.parametrize(
    ("make_session_model", "seed"), [(None, 1), (bpe_model, 3), (lambda *_: dialogue_session_model(), 6)]
)
async def test_random_input_never_crashes_the_app(make_app, use_job, monkeypatch, tmp_path, make_session_model, seed):
    monkeypatch.chdir(tmp_path)  # sessions are exported to the working directory
    model = {} if make_session_model is None else {"session_model": make_session_model(tmp_path, monkeypatch)}
    use_job(FakeJob([*training_events(), finished(make_decoder())]).release())
    monkeypatch.setattr(LotrApp, "action_quit", lambda self: None)
    monkeypatch.setattr(LotrApp, "action_suspend_process", lambda self: None)
    rng, done = random.Random(seed), []
    before = set(threading.enumerate())
    app = make_app(**model)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.query("#training"))
        for _ in range(STEPS):
            done.append(await random_step(pilot, rng))
            assert app.is_running, f"the app ended after {done[-10:]}"
        if app.state.training is not None:
            app.state.training.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive() or thread.name.startswith("asyncio"), thread.name
