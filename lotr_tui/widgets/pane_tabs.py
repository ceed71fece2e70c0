"""Tabs for the panes of a screen, of which a narrow terminal shows one at a time."""

from collections.abc import Mapping

from textual import events
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from lotr_tui.messages import PaneSelected
from lotr_tui.theme import MUTED


class PaneTabs(Widget):
    """Line with the names of the panes, the visible one in brackets; a click selects a pane."""

    HELP_LINE = "A click or tab shows another pane"
    DEFAULT_CSS = "PaneTabs { height: 1; padding: 0 1; }"

    pane: reactive[str] = reactive("")

    def __init__(self, panes: Mapping[str, str], *, id: str | None = None) -> None:
        """Show the first pane of `panes`, which maps the id of each pane to its label."""
        super().__init__(id=id)
        self._panes = panes
        self.set_reactive(PaneTabs.pane, next(iter(panes)))

    def render(self) -> Content:
        """Return the labels; the brackets mark the visible pane on terminals without colour, too."""
        parts: list[tuple[str, str]] = []
        for pane, label in self._panes.items():
            parts.append((f"[{label}]", "bold $accent") if pane == self.pane else (f" {label} ", MUTED))
            parts.append(("  ", ""))
        return Content.assemble(*parts[:-1]).truncate(self.content_size.width, ellipsis=True)

    def on_click(self, event: events.Click) -> None:
        """Select the pane under the pointer."""
        start = 1
        for pane, label in self._panes.items():
            if start <= event.x < start + len(label) + 2:
                self.post_message(PaneSelected(pane))
            start += len(label) + 4
