"""Footer: which keys are shown, and clicks on them."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Static

from lotr_tui.widgets.keys import KEY_GAP, FooterKey, KeyFooter
from tests.support.app import ThemedApp
from tests.support.pilot import text_of, until

KEYS = "^a apples  ^b bread  c,d cheese"
KEYS_AT_RIGHT = "^p palette  ^q quit  f1 help"
ALL_KEYS = f"{KEYS}  {KEYS_AT_RIGHT}"
assert KEY_GAP == 2


class PantryApp(ThemedApp):
    """App with bindings, one of them hidden, that records the items taken."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+z", "take('apples')", "hidden", show=False),
        Binding("ctrl+a", "take('apples')", "apples", id="pantry.apples", tooltip="Take an apple"),
        Binding("ctrl+b", "take('bread')", "bread"),
        Binding("c,d", "take('cheese')", "cheese", key_display="c,d"),
        Binding("e", "take('eggs')", "eggs", id="pantry.eggs", show=False),
        Binding("f1", "toggle_help", "help"),
        Binding("ctrl+q", "quit", "quit"),
        Binding("ctrl+p", "command_palette", "palette"),
    ]

    def __init__(self, keys=None):
        super().__init__()
        self._keys = keys
        self.taken: list[str] = []
        self.num_bells = 0
        self.sold_out = ""

    def compose(self):
        yield Static("a shelf")
        yield KeyFooter(None if self._keys is None else lambda: self._keys or ())

    def action_take(self, item):
        self.taken.append(item)

    def check_action(self, action, parameters):
        return None if parameters == (self.sold_out,) else True

    def bell(self):
        self.num_bells += 1


def footer_text(app):
    return text_of(app.screen.query_one(KeyFooter)).rstrip()


async def test_no_key_is_cut_off_and_help_quit_and_palette_are_at_the_right_edge():
    app = PantryApp()
    async with app.run_test(size=(100, 10)) as pilot:
        for width, keys, keys_at_right in [
            (len(ALL_KEYS) + 2, KEYS, KEYS_AT_RIGHT),
            (len(ALL_KEYS) + 1, "^a apples  ^b bread", KEYS_AT_RIGHT),
            (40, "", KEYS_AT_RIGHT),
            (28, "", "^q quit  f1 help"),
            (12, "", "f1 help"),
        ]:
            await pilot.resize_terminal(width, 10)
            gap = " " * (width - 2 - len(keys) - len(keys_at_right))
            await until(pilot, lambda: footer_text(app) == keys + gap + keys_at_right)  # noqa: B023


async def test_screen_chooses_the_keys_of_its_state():
    keys = [FooterKey("pantry.eggs", "an egg", "e-f"), FooterKey("pantry.jam"), FooterKey("pantry.apples")]
    app = PantryApp(keys)
    async with app.run_test(size=(80, 10)) as pilot:
        await until(pilot, lambda: footer_text(app).startswith("e-f an egg  ^a apples   "))
        assert footer_text(app).endswith(KEYS_AT_RIGHT)
        await pilot.click(KeyFooter, offset=(1, 0))
        assert app.taken == ["eggs"]


async def test_a_click_presses_a_key_unless_it_is_disabled():
    app = PantryApp()
    async with app.run_test(size=(len(ALL_KEYS) + 2, 10)) as pilot:
        await until(pilot, lambda: footer_text(app) == ALL_KEYS)
        footer = app.screen.query_one(KeyFooter)
        positions = [ALL_KEYS.index("^a"), ALL_KEYS.index("bread") + 4, ALL_KEYS.index("c,d")]
        for x in (*positions, ALL_KEYS.index("^b") - 1):  # the last one is between two keys
            await pilot.click(KeyFooter, offset=(1 + x, 0))
        assert app.taken == ["apples", "bread", "cheese"]
        app.sold_out = "bread"
        app.screen.refresh_bindings()
        enabled = [True, False, True, True, True, True]
        await until(pilot, lambda: [hint.enabled for side in footer.visible_keys() for hint in side] == enabled)
        await pilot.click(KeyFooter, offset=(1 + ALL_KEYS.index("bread"), 0))
        assert (app.taken[3:], app.num_bells) == ([], 1)
