"""Tests of the workarounds that concern the app."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.app import App, ComposeResult, ScreenStackError
from textual.css.query import NoMatches
from textual.dom import NoScreen
from textual.events import Key, MouseMove, Resize
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import Input, Static

from lotr_tui.textual_fixes.app import TextualFixesApp
from tests.support.pilot import until
from tests.support.textual_defects import expect_defect


class FixedInputApp(TextualFixesApp):
    def compose(self) -> ComposeResult:
        yield Input()


class PlainInputApp(App[None]):
    def compose(self) -> ComposeResult:
        yield Input()


@pytest.fixture
def app_type() -> type[App[None]]:
    return FixedInputApp


async def test_queued_keys_and_sizes_do_not_delay_the_exit(app_type: type[App[None]]) -> None:
    app = app_type()
    async with app.run_test(size=(80, 24)):
        text_input = app.query_one(Input)
        size = app.size
        for number in range(100):
            app.post_message(Key("a", "a"))
            app.post_message(Resize(Size(81 + number, 24), Size(81 + number, 24)))
        app.exit()
    assert text_input.value == ""
    assert app.size == size


async def test_mouse_event_after_the_screens_are_closed(app_type: type[App[None]]) -> None:
    app = app_type()
    async with app.run_test(size=(80, 24)):
        screens = app._screen_stack
        closed = screens.copy()
        screens.clear()
        try:
            await app.on_event(MouseMove(None, 1, 1, 0, 0, 0, False, False, False))
        finally:
            screens.extend(closed)


class ExitingScreen(Screen[None]):
    """Screen whose widgets are removed by an exit while it is being mounted."""

    def compose(self) -> ComposeResult:
        yield Static(id="text")

    async def on_mount(self) -> None:
        self.app.exit()
        await self.query("*").remove()
        self.query_one("#text")


async def test_exit_while_a_screen_is_mounted(app_type: type[App[None]]) -> None:
    app = app_type()
    async with app.run_test():
        app.push_screen(ExitingScreen())
        await asyncio.sleep(0.1)  # a pilot would wait for the removed widgets
    assert app.return_code == 0


class TextScreen(Screen[None]):
    """Screen whose action needs its widget."""

    def compose(self) -> ComposeResult:
        yield Static(id="text")

    def action_use_text(self) -> None:
        self.query_one("#text")


async def test_key_of_a_screen_that_is_not_mounted_yet_does_nothing(app_type: type[App[Any]]) -> None:
    app = app_type()
    async with app.run_test():
        screen = TextScreen()
        app.push_screen(screen)
        assert not await app.run_action("use_text", screen)


class PoppedScreen(TextScreen):
    """Screen whose widgets are removed while it is being mounted, as another key has closed it."""

    async def on_mount(self) -> None:
        self.app.pop_screen()
        await self.query("*").remove()
        self.action_use_text()


async def test_screen_that_is_popped_while_it_is_mounted(app_type: type[App[Any]]) -> None:
    app = app_type()
    async with app.run_test():
        app.push_screen(PoppedScreen())
        await asyncio.sleep(0.1)
        assert app.is_running


class Counter(Static, can_focus=True):
    """Widget whose action needs its screen."""

    def action_use_screen(self) -> None:
        assert self.screen


async def test_key_of_a_removed_widget_does_nothing(app_type: type[App[Any]]) -> None:
    app = app_type()
    async with app.run_test() as pilot:
        counter = Counter()
        await app.mount(counter)
        assert await app.run_action("use_screen", counter)
        await counter.remove()
        await until(pilot, lambda: not counter.is_attached)
        assert not await app.run_action("use_screen", counter)


@pytest.mark.parametrize(
    ("check", "error"),
    [
        (test_queued_keys_and_sizes_do_not_delay_the_exit, AssertionError),
        (test_mouse_event_after_the_screens_are_closed, ScreenStackError),
        (test_exit_while_a_screen_is_mounted, NoMatches),
        (test_key_of_a_screen_that_is_not_mounted_yet_does_nothing, NoMatches),
        (test_screen_that_is_popped_while_it_is_mounted, NoMatches),
        (test_key_of_a_removed_widget_does_nothing, NoScreen),
    ],
)
async def test_workaround_is_still_needed(
    check: Callable[[type[App[Any]]], Awaitable[None]], error: type[BaseException]
) -> None:
    with expect_defect(error):
        await check(PlainInputApp)
