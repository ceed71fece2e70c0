"""Tests of the workarounds in the command palette."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from textual.app import App
from textual.command import CommandList, CommandPalette, DiscoveryHit, Hits, Provider
from textual.css.query import NoMatches
from textual.errors import NoWidget
from textual.events import Click
from textual.pilot import Pilot
from textual.worker import WorkerFailed

from lotr_tui.textual_fixes.command_palette import RobustCommandPalette
from tests.support.pilot import until
from tests.support.textual_defects import expect_defect


class SingleProvider(Provider):
    """Provider of one command, which matches no query."""

    async def discover(self) -> Hits:
        yield DiscoveryHit("command", lambda: None)

    async def search(self, query: str) -> Hits:
        for hit in ():
            yield hit


class PaletteApp(App[None]):
    COMMANDS = {SingleProvider}  # noqa: RUF012


async def opened(pilot: Pilot[None], palette: CommandPalette) -> CommandPalette:
    """Open a palette and wait for its list."""
    await pilot.app.push_screen(palette)
    await until(pilot, lambda: palette.query(CommandList))
    return palette


@pytest.fixture
def palette_type() -> type[CommandPalette]:
    return RobustCommandPalette


async def test_palette_closed_before_its_search(palette_type: type[CommandPalette]) -> None:
    app = PaletteApp()
    async with app.run_test() as pilot:
        palette = await opened(pilot, palette_type())
        await palette.query("*").remove()
        palette._gather_commands("command")
        await until(pilot, lambda: not palette.workers._workers)
        assert app._exception is None


async def test_palette_closed_during_its_search(monkeypatch: pytest.MonkeyPatch) -> None:
    app = PaletteApp()
    async with app.run_test() as pilot:
        palette = await opened(pilot, RobustCommandPalette())

        async def search_and_close(self: SingleProvider, query: str) -> AsyncIterator[Any]:
            await palette.query("*").remove()
            for hit in ():
                yield hit

        monkeypatch.setattr(SingleProvider, "search", search_and_close)
        palette._gather_commands("command")
        await until(pilot, lambda: not palette.workers._workers)
        assert app._exception is None


async def test_page_key_in_a_palette_that_is_closing(palette_type: type[CommandPalette]) -> None:
    app = PaletteApp()
    async with app.run_test() as pilot:
        palette = await opened(pilot, palette_type())
        await palette.query("*").remove()
        assert not await app.run_action("command_list('page_down')", palette)


async def test_closed_palette_stops_its_timers(palette_type: type[CommandPalette]) -> None:
    app = PaletteApp()
    async with app.run_test() as pilot:
        palette = await opened(pilot, palette_type())
        await pilot.press(*"zzzz")
        await until(pilot, lambda: palette._no_matches_timer is not None)
        palette.dismiss()
        assert palette._no_matches_timer is None
        assert palette._busy_timer is None
        await until(pilot, lambda: not palette.is_running)


async def test_click_outside_a_smaller_terminal(palette_type: type[CommandPalette]) -> None:
    app = PaletteApp()
    async with app.run_test(size=(80, 24)) as pilot:
        base, palette = app.screen, await opened(pilot, palette_type())
        palette.post_message(click_at(palette, 90, 30))
        await pilot.pause()
        assert app.screen is palette
        palette.post_message(click_at(palette, 1, 23))
        await until(pilot, lambda: app.screen is base or not app.is_running)  # plain Textual ends the app
        assert app.screen is base
        await until(pilot, lambda: not palette.is_running)
        await pilot.pause()  # the app gets the click too, and fails if it has no screen any more


def click_at(palette: CommandPalette, x: int, y: int) -> Click:
    """Return a click at a screen coordinate."""
    return Click(
        palette, x, y, delta_x=0, delta_y=0, button=1, shift=False, meta=False, ctrl=False, screen_x=x, screen_y=y
    )


async def test_palette_follows_the_theme(palette_type: type[CommandPalette]) -> None:
    app = PaletteApp()
    async with app.run_test() as pilot:
        palette = await opened(pilot, palette_type())
        await until(pilot, lambda: palette.has_class("-ready"))  # a new class restyles the palette
        background, below = palette.styles.background, app.screen_stack[0].styles.background
        app.theme = "textual-light"
        await until(pilot, lambda: app.screen_stack[0].styles.background != below)
        await pilot.pause()
        assert palette.styles.background != background


@pytest.mark.parametrize(
    ("check", "error"),
    [
        (test_palette_closed_before_its_search, WorkerFailed),
        (test_page_key_in_a_palette_that_is_closing, NoMatches),
        (test_closed_palette_stops_its_timers, AssertionError),
        (test_click_outside_a_smaller_terminal, NoWidget),
        (test_palette_follows_the_theme, AssertionError),
    ],
)
async def test_workaround_is_still_needed(
    check: Callable[[type[CommandPalette]], Awaitable[None]], error: type[BaseException]
) -> None:
    with expect_defect(error):
        await check(CommandPalette)
