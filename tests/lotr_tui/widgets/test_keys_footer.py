"""The line of keys: which are shown, and that the mouse can press them."""

from typing import Any, ClassVar

import pytest
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from lotr_tui.theme import SHIRE
from lotr_tui.widgets.keys_footer import BETWEEN, KeysFooter
from tests.lotr_tui.screens.session.test_session_screen import text_of, until

WHOLE = "^a apples  ^b bread  c,d cheese  f1 help"
assert BETWEEN == 2


class Larder(App[None]):
    """Something of everything."""

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
        self.bells = 0
        self.sold_out = ""
        self.register_theme(SHIRE)
        self.theme = SHIRE.name

    def compose(self) -> ComposeResult:
        yield Static("a shelf")
        yield KeysFooter()

    def action_take(self, what: str) -> None:
        self.taken.append(what)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return None if parameters == (self.sold_out,) else True

    def bell(self) -> None:
        self.bells += 1


def line(app: App[Any]) -> str:
    return text_of(app.screen.query_one(KeysFooter)).rstrip()


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (80, WHOLE),
        (len(WHOLE) + 2, WHOLE),
        (len(WHOLE) + 1, "^a apples  ^b bread  f1 help"),
        (30, "^a apples  ^b bread  f1 help"),
        (29, "^a apples  f1 help"),
        (12, "f1 help"),
    ],
)
async def test_none_is_cut_off_and_help_is_always_there(width: int, expected: str) -> None:
    app = Larder()
    async with app.run_test(size=(width, 10)) as pilot:
        await until(pilot, lambda: line(app) == expected)
        await pilot.resize_terminal(80, 10)
        await until(pilot, lambda: line(app) == WHOLE)


async def test_a_click_presses_the_key_under_it() -> None:
    app = Larder()
    async with app.run_test(size=(80, 10)) as pilot:
        await until(pilot, lambda: line(app) == WHOLE)
        for x in (WHOLE.index("^a"), WHOLE.index("bread") + 4, WHOLE.index("c,d"), WHOLE.index("^b") - 1, 70):
            await pilot.click(KeysFooter, offset=(1 + x, 0))
        assert app.taken == ["apples", "bread", "cheese"]


async def test_what_cannot_be_done_now_is_dim_and_rings() -> None:
    app = Larder()
    async with app.run_test(size=(80, 10)) as pilot:
        await until(pilot, lambda: line(app) == WHOLE)
        app.sold_out = "bread"
        app.screen.refresh_bindings()
        footer = app.screen.query_one(KeysFooter)
        await until(pilot, lambda: [shown.enabled for shown in footer.shown_keys()] == [True, False, True, True])
        await pilot.click(KeysFooter, offset=(1 + WHOLE.index("bread"), 0))
        assert (app.taken, app.bells) == ([], 1)
        dim = {span.style.dim for span in footer.render().spans}  # type: ignore[union-attr]
        assert True in dim
        assert len(dim) > 1


async def test_the_key_under_the_pointer_is_told() -> None:
    app = Larder()
    async with app.run_test(size=(80, 10)) as pilot:
        await until(pilot, lambda: line(app) == WHOLE)
        footer = app.screen.query_one(KeysFooter)
        usual = footer.render()
        await pilot.hover(KeysFooter, offset=(2, 0))
        assert footer.tooltip == "Take an apple"
        assert footer.render().spans[0] != usual.spans[0]
        assert footer.render().spans[2:] == usual.spans[2:]
        await pilot.hover(KeysFooter, offset=(1 + WHOLE.index("bread"), 0))
        assert footer.tooltip is None
        await pilot.hover(Static)
        assert footer.render() == usual


async def test_a_widget_that_has_the_focus_adds_its_keys() -> None:
    class Shelf(Static, can_focus=True):
        BINDINGS: ClassVar[list[BindingType]] = [Binding("f2", "dust", "dust")]

    class Shelved(Larder):
        AUTO_FOCUS = None

        def compose(self) -> ComposeResult:
            yield Shelf()
            yield KeysFooter()

    app = Shelved()
    async with app.run_test(size=(80, 10)) as pilot:
        await until(pilot, lambda: line(app) == WHOLE)
        await pilot.press("tab")
        await until(pilot, lambda: "f2 dust" in line(app))
        app.set_focus(None)
        await until(pilot, lambda: line(app) == WHOLE)
