"""Footer: which keys are shown, and clicks on them."""

from typing import Any, ClassVar

import pytest
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from lotr_tui.theme import SHIRE
from lotr_tui.widgets.key_footer import KEY_GAP, KeyFooter
from tests.support.pilot import text_of, until

ALL_KEYS = "^a apples  ^b bread  c,d cheese  f1 help"
assert KEY_GAP == 2


class PantryApp(App[None]):
    """App with bindings, one of them hidden, that records the items taken."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+a", "take('apples')", "apples", tooltip="Take an apple"),
        Binding("ctrl+b", "take('bread')", "bread"),
        Binding("c,d", "take('cheese')", "cheese", key_display="c,d"),
        Binding("e", "take('eggs')", "eggs", show=False),
        Binding("f1", "toggle_help", "help"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[str] = []
        self.num_bells = 0
        self.sold_out = ""
        self.register_theme(SHIRE)
        self.theme = SHIRE.name

    def compose(self) -> ComposeResult:
        yield Static("a shelf")
        yield KeyFooter()

    def action_take(self, item: str) -> None:
        self.taken.append(item)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return None if parameters == (self.sold_out,) else True

    def bell(self) -> None:
        self.num_bells += 1


def footer_text(app: App[Any]) -> str:
    return text_of(app.screen.query_one(KeyFooter)).rstrip()


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (80, ALL_KEYS),
        (len(ALL_KEYS) + 2, ALL_KEYS),
        (len(ALL_KEYS) + 1, "^a apples  ^b bread  f1 help"),
        (30, "^a apples  ^b bread  f1 help"),
        (29, "^a apples  f1 help"),
        (12, "f1 help"),
    ],
)
async def test_no_key_is_cut_off_and_help_is_always_shown(width: int, expected: str) -> None:
    app = PantryApp()
    async with app.run_test(size=(width, 10)) as pilot:
        await until(pilot, lambda: footer_text(app) == expected)
        await pilot.resize_terminal(80, 10)
        await until(pilot, lambda: footer_text(app) == ALL_KEYS)


async def test_click_presses_the_key_under_the_pointer() -> None:
    app = PantryApp()
    async with app.run_test(size=(80, 10)) as pilot:
        await until(pilot, lambda: footer_text(app) == ALL_KEYS)
        positions = [ALL_KEYS.index("^a"), ALL_KEYS.index("bread") + 4, ALL_KEYS.index("c,d")]
        for x in (*positions, ALL_KEYS.index("^b") - 1, 70):  # the last two are between and after the keys
            await pilot.click(KeyFooter, offset=(1 + x, 0))
        assert app.taken == ["apples", "bread", "cheese"]


async def test_disabled_key_is_dim_and_rings_the_bell() -> None:
    app = PantryApp()
    async with app.run_test(size=(80, 10)) as pilot:
        await until(pilot, lambda: footer_text(app) == ALL_KEYS)
        app.sold_out = "bread"
        app.screen.refresh_bindings()
        footer = app.screen.query_one(KeyFooter)
        await until(pilot, lambda: [hint.enabled for hint in footer.visible_keys()] == [True, False, True, True])
        await pilot.click(KeyFooter, offset=(1 + ALL_KEYS.index("bread"), 0))
        assert (app.taken, app.num_bells) == ([], 1)
        dim = {span.style.dim for span in footer.render().spans}  # type: ignore[union-attr]
        assert True in dim
        assert len(dim) > 1


async def test_key_under_the_pointer_is_highlighted_and_has_a_tooltip() -> None:
    app = PantryApp()
    async with app.run_test(size=(80, 10)) as pilot:
        await until(pilot, lambda: footer_text(app) == ALL_KEYS)
        footer = app.screen.query_one(KeyFooter)
        plain = footer.render()
        await pilot.hover(KeyFooter, offset=(2, 0))
        assert footer.tooltip == "Take an apple"
        assert footer.render().spans[0] != plain.spans[0]
        assert footer.render().spans[2:] == plain.spans[2:]
        await pilot.hover(KeyFooter, offset=(1 + ALL_KEYS.index("bread"), 0))
        assert footer.tooltip is None
        await pilot.hover(Static)
        assert footer.render() == plain


async def test_keys_of_the_focused_widget_are_shown() -> None:
    class Shelf(Static, can_focus=True):
        BINDINGS: ClassVar[list[BindingType]] = [Binding("f2", "dust", "dust")]

    class ShelfApp(PantryApp):
        AUTO_FOCUS = None

        def compose(self) -> ComposeResult:
            yield Shelf()
            yield KeyFooter()

    app = ShelfApp()
    async with app.run_test(size=(80, 10)) as pilot:
        await until(pilot, lambda: footer_text(app) == ALL_KEYS)
        await pilot.press("tab")
        await until(pilot, lambda: "f2 dust" in footer_text(app))
        app.set_focus(None)
        await until(pilot, lambda: footer_text(app) == ALL_KEYS)
