"""Status bar: what is left out where a line is too short."""

import pytest
from textual.app import ComposeResult
from textual.content import Content

from lotr_tui.widgets.status_bar import StatusBar
from tests.support.app import ThemedApp
from tests.support.pilot import text_of


class BarApp(ThemedApp):
    def compose(self) -> ComposeResult:
        yield StatusBar()


@pytest.mark.parametrize(
    ("width", "right", "line"),
    [
        (56, "", "lotr-tui  a-long-name · 1 layer · valid 6.5 (counts 9)"),
        (55, "", "lotr-tui  a-long-name · 1 layer · valid 6.5 …"),
        (48, "", "lotr-tui  a-long-name · 1 layer · valid 6.5 …"),
        (40, "", "lotr-tui  a-long-name · 1 layer …"),
        (24, "", "lotr-tui  a-long-name"),
        (20, "", "lotr-tui  a-long-…"),
        (40, "epoch 3/9", "lotr-tui  a-long-name …      epoch 3/9"),
        (20, "training epoch 3/9 · 1:02 left", "training epoch 3/…"),
        (1, "epoch", ""),
    ],
)
async def test_line_loses_whole_items_before_letters_and_says_so(width: int, right: str, line: str) -> None:
    app = BarApp()
    async with app.run_test(size=(width, 3)) as pilot:
        bar = app.query_one(StatusBar)
        bar.show(Content("lotr-tui  a-long-name · 1 layer · valid 6.5 (counts 9)"), Content(right))
        await pilot.pause()
        assert text_of(bar).rstrip() == line
