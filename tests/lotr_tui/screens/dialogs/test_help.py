"""Help with all keys of a screen, and the commands that can be typed into its prompt."""

import pytest
from textual.pilot import Pilot

from lotr_tui.screens.dialogs.help import HelpScreen, KeyBindingsPanel
from lotr_tui.screens.dialogs.sessions import SessionsScreen
from lotr_tui.screens.session.slash_commands.table import SLASH_COMMANDS
from tests.support.pilot import MakeApp, until


async def open_help(pilot: Pilot[None]) -> KeyBindingsPanel:
    await pilot.pause()
    await pilot.press("f1")
    await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
    await pilot.pause()
    return pilot.app.screen.query_one(KeyBindingsPanel)


def text_of_help(panel: KeyBindingsPanel) -> list[str]:
    """Return all lines of the help, also those that are scrolled away."""
    return [line.rstrip() for widget in panel.children for line in _lines(widget)]


def _lines(widget: object) -> list[str]:
    return [widget.render_line(y).text for y in range(widget.size.height)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 35)])
async def test_help_of_the_session_lists_keys_and_typed_commands(make_app: MakeApp, size: tuple[int, int]) -> None:
    async with make_app().run_test(size=size) as pilot:
        panel = await open_help(pilot)
        lines = text_of_help(panel)
        assert [line for line in lines if line in ("This screen", "Type into the prompt", "Everywhere")] == [
            "This screen",
            "Type into the prompt",
            "Everywhere",
        ]
        for command in SLASH_COMMANDS.values():
            assert any(line.startswith(f"{command.usage} ") for line in lines), command.usage
        dialog = pilot.app.screen.query_one(".dialog")
        assert pilot.app.screen.region.contains_region(dialog.region)
        assert panel.max_scroll_y > 0
        await pilot.press("end")
        await until(pilot, lambda: panel.scroll_y == panel.max_scroll_y)


async def test_explanations_are_aligned_and_without_the_labels_of_the_footer(make_app: MakeApp) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(SessionsScreen())
        lines = text_of_help(await open_help(pilot))
        columns = {
            line.index(line.split(maxsplit=1)[1]) for line in lines if line[:2] in ("r ", "m ", "j ", "n ", "x ")
        }
        assert columns == {12}
        assert any(line.endswith("Export the session as Markdown") for line in lines)
        assert not any("Markdown: " in line or "/help" in line for line in lines)
