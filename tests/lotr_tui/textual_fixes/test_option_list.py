"""Lists that become shorter between what is seen and what is clicked."""

import pytest
from textual.app import App, ComposeResult
from textual.events import Click
from textual.widgets import OptionList

from lotr_tui.textual_fixes.rows import FoundCommands, Rows


class Listed(App[None]):
    """One list of three rows."""

    def __init__(self, kind: type[OptionList]) -> None:
        super().__init__()
        self._kind = kind
        self.chosen: list[int] = []

    def compose(self) -> ComposeResult:
        yield self._kind("one", "two", "three") if self._kind is Rows else self._kind()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.chosen.append(event.option_index)


def click(row: int) -> Click:
    """On a row, as it was painted."""
    from rich.style import Style as RichStyle

    return Click(None, 1, row, 0, 0, 1, False, False, False, 1, row, RichStyle(meta={"option": row}))


@pytest.mark.parametrize("kind", [Rows, FoundCommands])
async def test_a_click_on_a_row_that_is_gone_does_nothing(kind: type[OptionList]) -> None:
    app = Listed(kind)
    async with app.run_test() as pilot:
        rows = app.query_one(OptionList)
        rows.clear_options().add_options(["one", "two"])
        rows.post_message(click(2))
        await pilot.pause()
        assert (app.chosen, app._exception) == ([], None)
        rows.post_message(click(1))
        await pilot.pause()
        assert rows.highlighted == 1
        assert app.chosen == [1]


def test_the_palette_has_such_a_list() -> None:
    from textual import command

    import lotr_tui.commands  # noqa: F401

    assert command.CommandList is FoundCommands
