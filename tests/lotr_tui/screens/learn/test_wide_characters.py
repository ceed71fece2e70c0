"""Texts of a corpus whose characters take two cells each."""

from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.widget import Widget

from engine.models.ngram import Backoff, BackoffLevel
from lotr_tui.screens.learn.figures.counting.backoff_table import BackoffTable, ExplainedWord
from lotr_tui.screens.learn.sample_rows import Sample, SampleRows
from tests.support.pilot import lines_of

WORDS = "霍比特人 在 很久 以前 住在 一个 洞里 然后 他们 走了"


class WidgetApp(App[None]):
    """App with one widget."""

    def __init__(self, widget: Widget) -> None:
        super().__init__()
        self._widget = widget

    def compose(self) -> ComposeResult:
        """Yield the widget."""
        yield self._widget


async def test_sampled_texts_are_wrapped_at_the_width_of_the_view() -> None:
    rows = SampleRows(id="samples")
    rows.styles.height = 7
    async with WidgetApp(rows).run_test(size=(40, 10)) as pilot:
        rows.show("heading", [Sample(f"order {order}", WORDS, order == 2) for order in (1, 2, 3)])
        await pilot.pause()
        painted = lines_of(rows).splitlines()
        assert [line[1:8] for line in painted[1::2]] == ["order 1", "order 2", "order 3"]
        for number in (1, 3, 5):
            text = " ".join(painted[number][8:].split() + painted[number + 1].split())
            assert text == WORDS


async def test_end_of_a_long_context_is_visible() -> None:
    context = WORDS.rpartition(" ")[0]
    backoff = Backoff((BackoffLevel((1, 2), 1, 1, False, 0.5, 0.5),), 0.1)
    table = BackoffTable(id="backoff")
    async with WidgetApp(table).run_test(size=(60, 10)) as pilot:
        table.show(ExplainedWord("走了", (context,), backoff, 1))
        await pilot.pause()
        row = next(line for line in lines_of(table).splitlines() if "1×" in line)
        shown = row.strip().split("  ")[0].strip()
        assert shown.startswith("…")
        assert context.endswith(shown.removeprefix("…"))
        assert 6 <= cell_len(shown) < cell_len(context)
