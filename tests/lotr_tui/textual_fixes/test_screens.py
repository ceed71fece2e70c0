"""What every screen of ours does otherwise than Textual's."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from textual.events import MouseDown, Resize
from textual.geometry import Offset, Size
from textual.messages import Update
from textual.screen import Screen
from textual.widgets import Input
from textual.widgets._toast import Toast

from lotr_tui.app import LotrApp
from lotr_tui.commands import Palette
from lotr_tui.screens.memorization.screen import MemorisedScreen
from lotr_tui.screens.memorization.text import PassageText
from lotr_tui.textual_fixes.line_box import MOST_CHARACTERS
from lotr_tui.widgets.keys_footer import KeysFooter
from lotr_tui.widgets.prompt import Prompt
from tests.lotr_tui.screens.session.test_session_screen import until

MakeApp = Callable[..., LotrApp]
HERE, THERE = Size(80, 24), Size(100, 30)


async def test_a_size_that_the_terminal_has_no_more_is_not_laid_out(make_app: MakeApp) -> None:
    app = make_app()
    laid_out: list[Size] = []
    resized = Screen._screen_resized

    def counted(self: Screen[Any], size: Size) -> None:
        laid_out.append(size)
        resized(self, size)

    async with app.run_test(size=HERE) as pilot:
        await until(pilot, lambda: app.screen.query_one(KeysFooter).shown_keys())
        await pilot.press("f1")  # what is below is seen beside it, and laid out with it
        await pilot.pause()
        below = app.screen_stack[0]
        with patch.object(Screen, "_screen_resized", counted):
            app.post_message(Resize(THERE, THERE))
            await pilot.pause(0.1)
            for size in (HERE, THERE):
                below.post_message(Resize(size, size))
                below.post_message(Update(below.query_one(Prompt)))  # between them: what follows at once replaces it
            await pilot.pause(0.5)
        assert laid_out
        assert set(laid_out) == {THERE}
        assert len(laid_out) < 20
        assert [screen.size for screen in app.screen_stack] == [THERE, THERE]


async def test_a_press_on_a_notice_that_was_just_taken_away(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=HERE, notifications=True) as pilot:
        await until(pilot, lambda: app.screen.query_one(KeysFooter).shown_keys())
        app.notify("[a notice]", markup=False)
        await until(pilot, lambda: app.screen.query(Toast) and app.screen.query_one(Toast).region.area)
        toast = app.screen.query_one(Toast)
        x, y = toast.region.offset + Offset(2, 1)
        assert app.screen.get_widget_and_offset_at(x, y)[0] is toast
        parent = toast.parent
        assert parent is not None
        toast._detach()  # as it is until the screen is drawn without it
        try:
            app.screen._forward_event(MouseDown(None, x, y, 0, 0, 1, False, False, False))
        finally:
            toast._attach(parent)


async def test_a_key_for_a_part_that_is_gone(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=HERE) as pilot:
        await until(pilot, lambda: app.screen.query_one(KeysFooter).shown_keys())
        await pilot.press("f9")
        await until(pilot, lambda: isinstance(app.screen, MemorisedScreen))
        text = app.screen.query_one(PassageText)
        assert await app.run_action("tab(1)", text)
        app.screen.dismiss()
        await until(pilot, lambda: not text.is_attached)
        assert not await app.run_action("tab(1)", text)


async def test_a_book_pasted_into_the_palette_is_not_taken(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=HERE) as pilot:
        await until(pilot, lambda: app.screen.query_one(KeysFooter).shown_keys())
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, Palette) and app.screen.query(Input))
        box = app.screen.query_one(Input)
        box.insert_text_at_cursor("theme")
        box.insert_text_at_cursor("the lamp " * 10_000)
        assert box.value == "theme"
        box.insert_text_at_cursor("x" * (MOST_CHARACTERS - len("theme")))
        assert len(box.value) == MOST_CHARACTERS


def test_every_line_to_type_in_has_a_bound() -> None:
    """`Input` has none, and a slow screen is seen only by whoever pastes much."""
    from lotr_tui import app

    files = [path for path in app.HERE.rglob("*.py") if path.name not in ("line_box.py", "subjects.py")]
    assert not [str(path) for path in files if " Input(" in path.read_text(encoding="utf-8")]
