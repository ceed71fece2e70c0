"""Help line: the text of the focused part, or of the part under the pointer."""

from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import Button

from lotr_tui.commands import iter_binding_tables
from lotr_tui.screens.session import first_steps, footer
from lotr_tui.screens.session.conversation.transcript import MOUSE_HELP
from lotr_tui.widgets.help_line import HelpLine
from tests.support.app import ThemedApp
from tests.support.pilot import text_of, until


class Cup(Button):
    HELP_LINE: ClassVar[str] = "A cup holds [tea]"


class Kettle(Button):
    temperature = 20

    def get_help_line(self) -> str:
        return f"The water has {self.temperature} degrees" if self.temperature else ""


class Shelf(Vertical):
    HELP_LINE: ClassVar[str] = "A shelf has room"


class KitchenScreen(Screen[None]):
    AUTO_FOCUS = ""
    HELP_LINE: ClassVar[str] = "This is the kitchen"

    def compose(self) -> ComposeResult:
        with Shelf():
            yield Cup("cup", id="cup")
            yield Kettle("kettle", id="kettle")
            yield Button("plain", id="plain")
        yield HelpLine()

    def on_enter(self, event: events.Enter) -> None:
        self.query_one(HelpLine).point_at(event.node)

    def on_leave(self, event: events.Leave) -> None:
        self.query_one(HelpLine).leave(event.node)


class KitchenApp(ThemedApp):
    def get_default_screen(self) -> Screen[None]:
        return KitchenScreen()


def help_text(app: App[None]) -> str:
    return text_of(app.screen.query_one(HelpLine))


async def test_line_shows_the_help_of_the_focused_widget_or_of_what_contains_it() -> None:
    app = KitchenApp()
    async with app.run_test(size=(40, 20)) as pilot:
        assert help_text(app) == "This is the kitchen"
        for widget, text in (
            ("cup", "A cup holds [tea]"),
            ("kettle", "The water has 20 degrees"),
            ("plain", "A shelf has room"),
        ):
            app.screen.query_one(f"#{widget}").focus()
            await pilot.pause()
            assert help_text(app) == text


async def test_changed_text_is_shown_after_an_update_and_an_empty_one_counts_as_none() -> None:
    app = KitchenApp()
    async with app.run_test(size=(40, 20)) as pilot:
        kettle = app.screen.query_one(Kettle)
        kettle.focus()
        await pilot.pause()
        for temperature, text in ((90, "The water has 90 degrees"), (0, "A shelf has room")):
            kettle.temperature = temperature
            app.screen.query_one(HelpLine).update_text()
            assert help_text(app) == text


async def test_pointer_wins_until_it_leaves_or_the_focus_changes() -> None:
    app = KitchenApp()
    async with app.run_test(size=(40, 20)) as pilot:
        app.screen.query_one(Kettle).focus()
        await pilot.pause()
        await pilot.hover("#cup")
        await until(pilot, lambda: help_text(app) == "A cup holds [tea]")
        await pilot.hover(HelpLine)
        await until(pilot, lambda: help_text(app) == "The water has 20 degrees")
        await pilot.hover("#cup")
        await until(pilot, lambda: help_text(app) == "A cup holds [tea]")
        app.screen.query_one("#plain").focus()
        await until(pilot, lambda: help_text(app) == "A shelf has room")


async def test_long_help_takes_one_line_and_ends_with_an_ellipsis() -> None:
    app = KitchenApp()
    async with app.run_test(size=(16, 20)) as pilot:
        app.screen.query_one(Cup).focus()
        line = app.screen.query_one(HelpLine)
        await until(pilot, lambda: "A cup holds" in line.render_line(0).text)
        assert line.size.height == 1
        assert line.render_line(0).text.rstrip().endswith("…")


def test_help_of_every_part_fits_a_terminal_of_80_columns() -> None:
    texts = [getattr(node_type, "HELP_LINE", "") for node_type, _ in iter_binding_tables()]
    texts += [*footer.HELP_LINES.values(), *first_steps.HINTS.values(), MOUSE_HELP]
    assert len(set(texts)) > 20
    assert [text for text in texts if cell_len(text) > 78] == []
