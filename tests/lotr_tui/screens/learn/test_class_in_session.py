"""The class above a session: key, slash command, material of the session, and the hint for a new user."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from engine.models.mixture import Mixture
from lotr_tui.learn.chapters import CHAPTERS, find_chapter
from lotr_tui.learn.material import Material
from lotr_tui.learn.progress import Progress, ProgressStore, progress_file
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.screens.session.frame import CLASS_HINT
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.session.history import PromptHistory
from lotr_tui.session.session_model import SessionModel, load_session_model
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support.learn import chapter_screen
from tests.support.pilot import MakeApp, conversation_of, notices, reply_to, send, text_of, until
from tests.support.slow_models import FakeSlowModel, slow_session_model


def help_text(pilot: Pilot[None]) -> str:
    return text_of(pilot.app.screen.query_one(HelpLine))


async def until_ready(pilot: Pilot[None]) -> None:
    """Wait until the session has its model."""
    screen: Any = pilot.app.screen
    await until(pilot, lambda: screen.is_ready)
    await pilot.pause()


async def until_figure(pilot: Pilot[None]) -> ChapterScreen:
    """Wait until the class is open, and its figure is shown."""
    await until(pilot, lambda: isinstance(pilot.app.screen, ChapterScreen) and pilot.app.screen.is_idle, 30)
    return chapter_screen(pilot)


# Key and command


@pytest.mark.usefixtures("slider_figure")
async def test_key_opens_the_class_and_escape_returns_to_the_session_as_it_was(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await until_ready(pilot)
        reply = await reply_to(pilot)
        app.screen.query_one("#prompt", PromptInput).value = "half a"
        await pilot.press("ctrl+underscore")
        screen = await until_figure(pilot)
        assert screen.index == 0
        await pilot.press("right", "right", "escape")
        assert isinstance(app.screen, SessionScreen)
        assert app.screen.query_one("#prompt", PromptInput).value == "half a"
        assert conversation_of(app).current_reply is reply
        assert isinstance(app.focused, PromptInput)
        await pilot.press("ctrl+underscore")
        assert (await until_figure(pilot)).index == 1  # the first task is done


@pytest.mark.usefixtures("slider_figure")
@pytest.mark.parametrize(("typed", "index"), [("/learn", 0), ("/learn memory", 3), ("/learn 8", 7)])
async def test_slash_command_opens_a_chapter(make_app: MakeApp, typed: str, index: int) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until_ready(pilot)
        await send(pilot, typed)
        assert (await until_figure(pilot)).index == index
        await pilot.press("escape")
        assert app.screen.query_one("#prompt", PromptInput).value == ""


async def test_misspelled_chapter_is_refused_and_the_command_stays(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until_ready(pilot)
        await send(pilot, "/learn perplexty")
        assert "there is no chapter 'perplexty'; did you mean perplexity" in notices(app)
        assert app.screen.query_one("#prompt", PromptInput).value == "/learn perplexty"


async def test_names_of_chapters_are_completed(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until_ready(pilot)
        prompt = app.screen.query_one("#prompt", PromptInput)
        for chapter in CHAPTERS:
            await pilot.press(*f"/learn {chapter.name[:3]}", "tab")
            assert prompt.value == f"/learn {chapter.name}"
            await pilot.press("escape")


@pytest.mark.usefixtures("slider_figure")
async def test_class_opens_before_the_model_is_loaded(make_app: MakeApp) -> None:
    released = threading.Event()

    def load() -> SessionModel:
        released.wait()
        raise OSError("no model")

    app = make_app(session_model=None, load_session_model=load)
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            await send(pilot, "/learn counting")
            assert (await until_figure(pilot)).index == 1
            released.set()
    finally:
        released.set()


# Material


async def opened_material(pilot: Pilot[None], chapter: str) -> Material:
    """Open a chapter from the session, and return its material."""
    await until_ready(pilot)
    await send(pilot, f"/learn {chapter}")
    screen = await until_figure(pilot)
    assert screen.index == find_chapter(chapter)
    material = screen._material
    assert material is not None
    return material


async def test_bundled_model_of_the_session_is_the_class_without_a_run(make_app: MakeApp) -> None:
    async with make_app(session_model=load_session_model([None], None)).run_test(size=(80, 24)) as pilot:
        assert (await opened_material(pilot, "tokens")).session_model is None


@pytest.mark.parametrize(
    "make_session_model",
    [
        pytest.param(lambda model: slow_session_model(FakeSlowModel()), id="by others"),
        pytest.param(
            lambda model: replace(model, model=Mixture([model.model, model.model], [0.5, 0.5])), id="combination"
        ),
        pytest.param(lambda model: replace(model, run=None), id="training without a run"),
    ],
)
async def test_class_opens_on_every_kind_of_model(
    make_app: MakeApp, untrained_run: Path, make_session_model: Any
) -> None:
    session_model = load_session_model([str(untrained_run)], None)
    app = make_app(session_model=make_session_model(session_model))
    async with app.run_test(size=(120, 35)) as pilot:
        material = await opened_material(pilot, "tokens")
        assert material.session_model is app.session_model
        assert "words" in text_of(chapter_screen(pilot).query_one("#tokens", Static))


async def test_run_whose_configuration_is_gone_is_one_line(
    make_app: MakeApp, untrained_run: Path, tmp_path: Path
) -> None:
    session_model = replace(load_session_model([str(untrained_run)], None), run=tmp_path / "gone")
    app = make_app(session_model=session_model)
    async with app.run_test(size=(120, 35)) as pilot:
        await until_ready(pilot)
        await send(pilot, "/learn tokens")
        await until(pilot, lambda: isinstance(app.screen, ChapterScreen) and app.screen.query("#figure-message"))
        message = app.screen.query_one("#figure-message", Static)
        await until(pilot, lambda: "gone" in text_of(message))
        assert "\n" not in text_of(message)


# The hint for a new user


@pytest.mark.usefixtures("slider_figure")
async def test_new_user_is_invited_to_the_class_until_it_was_opened(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until_ready(pilot)
        assert help_text(pilot) == CLASS_HINT
        assert len(CLASS_HINT) <= 58  # fits a terminal of 60 columns
        await send(pilot, "/learn")
        await until_figure(pilot)
        await pilot.press("escape")
        assert help_text(pilot) == app.session_model.introduction()
    async with make_app().run_test(size=(80, 24)) as pilot:
        await until_ready(pilot)
        assert help_text(pilot).startswith("You are talking to")


@pytest.mark.parametrize("known", ["history", "progress", "damaged progress"])
async def test_user_who_knows_the_program_sees_no_invitation(make_app: MakeApp, known: str) -> None:
    app = make_app()
    if known == "history":
        PromptHistory().add("hello")
    elif known == "progress":
        store = ProgressStore()
        store.add(last="tokens")
        store.save()
    else:
        progress_file().write_text("{")
    async with app.run_test(size=(80, 24)) as pilot:
        await until_ready(pilot)
        assert help_text(pilot).startswith("You are talking to")
    assert known != "damaged progress" or progress_file().read_text() == "{"  # only the class reads the file
    assert known != "progress" or ProgressStore().current == Progress((), "tokens")


async def test_invitation_gives_way_to_the_first_steps_after_a_prompt(make_app: MakeApp) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await until_ready(pilot)
        await reply_to(pilot)
        assert help_text(pilot).startswith("Next:")
