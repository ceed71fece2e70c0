"""Help line: the text of the focused part, or of the part under the pointer."""

from typing import ClassVar

from rich.cells import cell_len
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

    def get_help_line(self):
        return f"The water has {self.temperature} degrees" if self.temperature else ""


class Shelf(Vertical):
    HELP_LINE: ClassVar[str] = "A shelf has room"


class KitchenScreen(Screen[None]):
    AUTO_FOCUS = ""
    HELP_LINE: ClassVar[str] = "This is the kitchen"

    def compose(self):
        with Shelf():
            yield Cup("cup", id="cup")
            yield Kettle("kettle", id="kettle")
            yield Button("plain", id="plain")
        yield HelpLine()

    def on_enter(self, event):
        self.query_one(HelpLine).point_at(event.node)

    def on_leave(self, event):
        self.query_one(HelpLine).leave(event.node)


class KitchenApp(ThemedApp):
    def get_default_screen(self):
        return KitchenScreen()


def help_text(app):
    return text_of(app.screen.query_one(HelpLine))


async def test_line_shows_the_help_of_the_part_under_the_pointer_or_with_the_focus():
    app = KitchenApp()
    async with app.run_test(size=(40, 20)) as pilot:
        assert help_text(app) == "This is the kitchen"
        for widget, text in (
            ("cup", "A cup holds [tea]"),
            ("plain", "A shelf has room"),
            ("kettle", "The water has 20 degrees"),
        ):
            app.screen.query_one(f"#{widget}").focus()
            await pilot.pause()
            assert help_text(app) == text
        kettle, line = app.screen.query_one(Kettle), app.screen.query_one(HelpLine)
        for temperature, text in ((90, "The water has 90 degrees"), (0, "A shelf has room")):
            kettle.temperature = temperature
            line.update_text()
            assert help_text(app) == text
        await pilot.hover("#cup")
        await until(pilot, lambda: help_text(app) == "A cup holds [tea]")
        await pilot.hover(HelpLine)
        await until(pilot, lambda: help_text(app) == "A shelf has room")
        await pilot.hover("#plain")
        app.screen.query_one(Cup).focus()
        await until(pilot, lambda: help_text(app) == "A cup holds [tea]")
        await pilot.resize_terminal(14, 20)
        await until(pilot, lambda: line.render_line(0).text.rstrip().endswith("…"))
        assert line.size.height == 1


def test_help_of_every_part_fits_a_terminal_of_80_columns():
    texts = [getattr(node_type, "HELP_LINE", "") for node_type, _ in iter_binding_tables()]
    texts += [*footer.HELP_LINES.values(), *first_steps.HINTS.values(), MOUSE_HELP]
    assert len(set(texts)) > 20
    assert [text for text in texts if cell_len(text) > 78] == []
