"""Table of the settings that differ between runs, and of their results."""

from collections.abc import Sequence

from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from lotr_tui.monitor.comparison_layout import layout_comparison
from lotr_tui.monitor.run_comparison import RunComparison
from lotr_tui.monitor.text_table import Role
from lotr_tui.theme import MUTED

STYLES: dict[Role, str] = {
    "plain": "",
    "heading": "bold",
    "best": "bold $success",
    "better": "$success",
    "worse": "$error",
    "muted": MUTED,
}


class DifferenceTable(Widget):
    """Comparison of runs with a baseline, laid out for the width of the widget; a text while there is none."""

    DEFAULT_CSS = """
    DifferenceTable { height: auto; text-wrap: nowrap; }
    DifferenceTable.-message { text-wrap: wrap; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._comparison: RunComparison | None = None
        self._names: list[str] = []
        self._message = ""

    def show_message(self, message: str) -> None:
        """Show a text instead of a table."""
        self._comparison, self._message = None, message
        self.add_class("-message")
        self.refresh(layout=True)

    def show(self, comparison: RunComparison, names: Sequence[str]) -> None:
        """Show a comparison; `names` are the headings of its runs."""
        self._comparison, self._names = comparison, list(names)
        self.remove_class("-message")
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the number of lines for a width."""
        if self._comparison is None:
            return super().get_content_height(container, viewport, width)
        return len(layout_comparison(self._comparison, self._names, width))

    def render(self) -> Content:
        """Return the lines for the width of the widget."""
        if self._comparison is None:
            return Content(self._message)
        lines = layout_comparison(self._comparison, self._names, self.size.width)
        return Content("\n").join(Content.assemble(*((text, STYLES[role]) for text, role in line)) for line in lines)
