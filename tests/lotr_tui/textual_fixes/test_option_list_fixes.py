"""Tests of the workarounds that concern option lists."""

from collections.abc import Awaitable, Callable

import pytest
from rich.style import Style
from textual.app import App, ComposeResult
from textual.events import Click
from textual.widgets import OptionList

from lotr_tui.textual_fixes.option_list import RobustCommandList, RobustOptionList
from tests.support.textual_defects import expect_defect

LISTS = [RobustOptionList, RobustCommandList]


class ListApp(App[None]):
    """App with an empty list."""

    def __init__(self, list_type: type[OptionList]) -> None:
        super().__init__()
        self._list_type = list_type
        self.selected: list[int] = []

    def compose(self) -> ComposeResult:
        yield self._list_type()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.selected.append(event.option_index)


def click_on(row: int) -> Click:
    """Return a click on a painted row."""
    return Click(None, 1, row, 0, 0, 1, False, False, False, 1, row, Style(meta={"option": row}))


@pytest.mark.parametrize("list_type", LISTS)
async def test_click_on_a_removed_row_does_nothing(list_type: type[OptionList]) -> None:
    app = ListApp(list_type)
    async with app.run_test() as pilot:
        options = app.query_one(OptionList).add_options(["one", "two"])
        options.post_message(click_on(2))
        await pilot.pause()
        assert (app.selected, app._exception) == ([], None)
        options.post_message(click_on(1))
        await pilot.pause()
        assert options.highlighted == 1
        assert app.selected == [1]


@pytest.mark.parametrize("list_type", LISTS)
async def test_page_keys_in_a_list_without_height(list_type: type[OptionList]) -> None:
    app = ListApp(list_type)
    async with app.run_test() as pilot:
        options = app.query_one(OptionList).add_options(["one", "two"])
        options.highlighted = 0
        options.styles.height = 0
        options.styles.border = ("none", "red")
        await pilot.pause()
        options.action_page_down()
        options.action_page_up()
        assert options.highlighted == 0


@pytest.mark.parametrize(
    ("check", "error"),
    [(test_click_on_a_removed_row_does_nothing, IndexError), (test_page_keys_in_a_list_without_height, KeyError)],
)
async def test_workaround_is_still_needed(
    check: Callable[[type[OptionList]], Awaitable[None]], error: type[BaseException]
) -> None:
    with expect_defect(error):
        await check(OptionList)


def test_palette_uses_the_robust_list() -> None:
    from textual import command

    import lotr_tui.commands  # noqa: F401

    assert command.CommandList is RobustCommandList
