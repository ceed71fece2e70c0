"""Regenerate the pictures in the README: `python -m tests.tools.pictures`.

They are screenshots of the real app with the bundled model and real trainings on the bundled dialogues. Needs SmolLM2
(`lotr-tui fetch smollm2`).
"""

import asyncio
import os
import tempfile
from pathlib import Path

from engine.config import BUNDLED
from engine.models.pretrained.names import SMOLLM2
from engine.presets import PRESETS
from engine.training.job import prepare_job
from lotr_tui.app import LotrApp
from lotr_tui.learn.chapters import find_chapter
from lotr_tui.learn.material import Material
from lotr_tui.screens.inspect.attention import AttentionScreen
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.session.session_model import load_session_model
from lotr_tui.widgets.prompt import PromptInput
from lotr_tui.widgets.slider import SamplerPanel
from tests.support.files import CHECKOUT
from tests.support.pilot import until
from tests.support.terminal import link_fetched_models

ATTENTION_TEXT = "When Gandalf and Frodo reached the gate, Gandalf gave the Ring to Frodo"
ATTENTION_HEAD = (24, 4)
"""Layer and head, both from 0, that look at the next name: a name mover (Wang et al. 2022, arXiv 2211.00593)."""


async def wait_for(pilot, condition):
    """Let the app run until `condition` holds, and then until it is painted."""
    await until(pilot, condition, 300)
    await pilot.pause(0.5)


async def save(app, pilot, name):
    """Save a picture of the screen, and stop what trains."""
    path = CHECKOUT / "assets" / name
    path.write_text(app.export_screenshot(title="lotr-tui"), encoding="utf-8")
    print(path)
    if app.state.is_training:
        app.state.training.stop()
        await wait_for(pilot, lambda: not app.state.is_training)


async def picture_session(runs_dir):
    """A conversation, who answers, next words, and a training that goes on."""
    app = LotrApp(session_model=load_session_model([BUNDLED], None), runs_dir=runs_dir, pace=0)
    async with app.run_test(size=(130, 36)) as pilot:
        app.state.start_training(PRESETS["tiny"].with_values(epochs=20))
        for line, seed in (("Hello, Gandalf.", "3"), ("Where is the Ring?", "60"), ("/to Gollum", "40"), ("", "40")):
            app.screen.query_one(SamplerPanel).set_texts({"seed": seed})
            app.screen.query_one("#prompt", PromptInput).value = line
            await pilot.press("enter" if line else "ctrl+n")  # a training offers its model on an empty enter
            await pilot.pause(2)
        app.screen.query_one("#prompt", PromptInput).value = "Who are you"
        await wait_for(pilot, lambda: app.state.training_view is not None and app.state.training_view.epoch > 5.5)
        await save(app, pilot, "session.svg")


async def picture_strength():
    """How Gollum goes on with one text and one seed, without the adapter, with half of it and with all of it."""
    app = LotrApp(session_model=load_session_model([BUNDLED], None), pace=0)
    async with app.run_test(size=(110, 26)) as pilot:
        commands = ["/set mode continue", "/to Gollum", "/set seed 0"]
        for strength in ("0", "0.5", "1"):
            commands += [f"/strength {strength}", "The Ring is"]
        for line in commands:
            app.screen.query_one("#prompt", PromptInput).value = line
            await pilot.press("enter")
            await pilot.pause(0.5)
            conversation = app.screen.view.conversation
            await wait_for(pilot, lambda conversation=conversation: conversation.active_reply is None)
        await pilot.pause(2)
        await save(app, pilot, "strength.svg")


async def picture_dashboard(runs_dir):
    app = LotrApp(job=prepare_job(PRESETS["tiny"].with_values(epochs=8), "tiny", runs_dir), runs_dir=runs_dir)
    async with app.run_test(size=(130, 36)) as pilot:
        await wait_for(pilot, lambda: app.state.training_view is not None and app.state.training_view.epoch > 6.5)
        await save(app, pilot, "dashboard.svg")


async def picture_chapter():
    """The chapter on training, whose curve passes the counting models."""
    app = LotrApp(make_screen=lambda: ChapterScreen(Material, find_chapter("training")))
    async with app.run_test(size=(130, 34)) as pilot:
        await wait_for(pilot, lambda: app.screen.is_idle)
        await pilot.press("right", "right", "enter")  # to a good rate
        await wait_for(pilot, lambda: not app.screen.is_idle)
        await wait_for(pilot, lambda: app.screen.is_idle)
        await save(app, pilot, "class.svg")


async def picture_attention():
    session_model = load_session_model([SMOLLM2], None)
    app = LotrApp(session_model=session_model, pace=0)
    async with app.run_test(size=(150, 40)) as pilot:
        screen = AttentionScreen(session_model, ATTENTION_TEXT)
        app.push_screen(screen)
        await wait_for(pilot, lambda: app.screen is screen and screen.is_idle and screen.reading is not None)
        layer, head = ATTENTION_HEAD
        await pilot.press(*["left_square_bracket"] * (len(screen.reading.layers) - 1 - layer), *["up"] * 40)
        await pilot.press(*["down"] * (head + 2), "space", "0", "tab", "up")  # a row is of a head from the third on
        await pilot.press("shift+tab", "g")  # the position that the head looks at most
        await wait_for(pilot, lambda: screen.is_idle)
        await save(app, pilot, "attention.svg")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        link_fetched_models(home)
        os.environ["LOTR_TUI_HOME"] = home  # without the settings and runs of the user
        asyncio.run(picture_session(Path(home, "runs")))
        asyncio.run(picture_strength())
        asyncio.run(picture_dashboard(Path(home, "runs")))
        asyncio.run(picture_chapter())
        asyncio.run(picture_attention())
