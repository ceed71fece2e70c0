"""Help with all keys of a screen, and the commands that can be typed into its prompt."""

from lotr_tui.screens.dialogs.help import HelpScreen, KeyBindingsPanel
from lotr_tui.screens.dialogs.sessions import SessionsScreen
from lotr_tui.screens.session.slash_commands.table import SLASH_COMMANDS
from tests.support.pilot import lines_of, until


async def open_help(pilot):
    """Open the help, and return its panel with all lines, also those that are scrolled away."""
    await pilot.pause()
    await pilot.press("f1")
    await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
    await pilot.pause()
    panel = pilot.app.screen.query_one(KeyBindingsPanel)
    return panel, [line.rstrip() for widget in panel.children for line in lines_of(widget).split("\n")]


async def test_help_lists_keys_and_typed_commands_in_aligned_columns(make_app):
    async with make_app().run_test(size=(60, 20)) as pilot:
        panel, lines = await open_help(pilot)
        headings = ["This screen", "Type into the prompt", "Everywhere"]
        assert [line for line in lines if line in headings] == headings
        for command in SLASH_COMMANDS.values():
            assert any(line.startswith(f"{command.usage} ") for line in lines), command.usage
        assert pilot.app.screen.region.contains_region(pilot.app.screen.query_one(".dialog").region)
        await pilot.press("end")
        await until(pilot, lambda: panel.scroll_y == panel.max_scroll_y > 0)

        await pilot.press("escape")
        await pilot.resize_terminal(80, 24)
        await pilot.app.push_screen(SessionsScreen())
        _, lines = await open_help(pilot)
        keys = ("r ", "m ", "j ", "n ", "x ")
        assert {line.index(line.split(maxsplit=1)[1]) for line in lines if line[:2] in keys} == {12}
        assert any(line.endswith("Export the session as Markdown") for line in lines)
        assert not any("Markdown: " in line or "/help" in line for line in lines)
