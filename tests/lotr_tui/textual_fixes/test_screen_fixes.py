"""Tests of the workarounds that concern screens."""

from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import patch

import pytest
from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.css.query import NoMatches
from textual.events import MouseDown, Resize
from textual.geometry import Offset, Size
from textual.messages import Update
from textual.screen import Screen
from textual.widgets import Input, Static
from textual.widgets._toast import Toast

from lotr_tui.textual_fixes.screen import TextualFixesScreen
from tests.support.pilot import until
from tests.support.textual_defects import expect_defect

OLD_SIZE, NEW_SIZE = Size(80, 24), Size(100, 30)


class PlainScreen(Screen[None]):
    def compose(self) -> ComposeResult:
        yield Static("text")
        with Vertical():
            yield Input()

    def on_mount(self) -> None:
        self.query_one(Input).focus()


class FixedScreen(TextualFixesScreen, PlainScreen):
    pass


class ScreenApp(App[None]):
    """App with one type of screen."""

    def __init__(self, screen_type: type[Screen[None]]) -> None:
        super().__init__()
        self._screen_type = screen_type

    def get_default_screen(self) -> Screen[None]:
        return self._screen_type()


@pytest.fixture
def screen_type() -> type[Screen[None]]:
    return FixedScreen


async def test_second_dismissal_closes_no_other_screen(screen_type: type[Screen[None]]) -> None:
    app = ScreenApp(screen_type)
    async with app.run_test():
        dialog, other = screen_type(), screen_type()
        await app.push_screen(dialog)
        await app.push_screen(other)
        dialog.dismiss(None)
        assert app.screen is other


async def test_dismissal_before_the_mount(screen_type: type[Screen[None]]) -> None:
    app = ScreenApp(screen_type)
    async with app.run_test() as pilot:
        base, dialog = app.screen, screen_type()
        app.push_screen(dialog)
        dialog.dismiss(None)
        await until(pilot, lambda: app.screen is base and not dialog.is_running)
        assert app._exception is None


async def test_outdated_size_is_not_laid_out(screen_type: type[Screen[None]]) -> None:
    app = ScreenApp(screen_type)
    sizes: list[Size] = []
    screen_resized = Screen._screen_resized

    def record_size(self: Screen[Any], size: Size) -> None:
        sizes.append(size)
        screen_resized(self, size)

    async with app.run_test(size=OLD_SIZE) as pilot:
        below = app.screen
        await app.push_screen(screen_type())
        with patch.object(Screen, "_screen_resized", record_size):
            app.post_message(Resize(NEW_SIZE, NEW_SIZE))
            await pilot.pause(0.1)
            for size in (OLD_SIZE, NEW_SIZE):
                below.post_message(Resize(size, size))
                below.post_message(Update(below.query_one(Input)))  # keeps the sizes from being merged
            await pilot.pause(0.5)
        assert sizes
        assert set(sizes) == {NEW_SIZE}
        assert len(sizes) < 20
        assert [screen.size for screen in app.screen_stack] == [NEW_SIZE, NEW_SIZE]


async def test_mouse_press_on_a_removed_notification(screen_type: type[Screen[None]]) -> None:
    app = ScreenApp(screen_type)
    async with app.run_test(size=OLD_SIZE, notifications=True) as pilot:
        app.notify("[a notice]", markup=False)
        await until(pilot, lambda: app.screen.query(Toast) and app.screen.query_one(Toast).region.area)
        toast = app.screen.query_one(Toast)
        x, y = toast.region.offset + Offset(2, 1)
        assert app.screen.get_widget_and_offset_at(x, y)[0] is toast
        parent = toast.parent
        assert parent is not None
        toast._detach()  # as it is until the next layout
        try:
            app.screen._forward_event(MouseDown(None, x, y, 0, 0, 1, False, False, False))
        finally:
            toast._attach(parent)


@pytest.mark.parametrize(
    ("check", "error"),
    [
        (test_second_dismissal_closes_no_other_screen, AssertionError),
        (test_dismissal_before_the_mount, NoMatches),
        (test_outdated_size_is_not_laid_out, AssertionError),
        (test_mouse_press_on_a_removed_notification, AttributeError),
    ],
)
async def test_workaround_is_still_needed(
    check: Callable[[type[Screen[None]]], Awaitable[None]], error: type[BaseException]
) -> None:
    with expect_defect(error):
        await check(PlainScreen)
