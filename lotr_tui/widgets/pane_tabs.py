"""On a narrow terminal: which of the panes is seen."""

from collections.abc import Mapping

from textual import events
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from lotr_tui.messages import PaneChosen
from lotr_tui.theme import MUTED

PANES = {"transcript": "transcript", "next": "next word", "training": "training"}


class PaneTabs(Widget):
    """Names of the panes on one line, the seen one marked; a click chooses."""

    DEFAULT_CSS = "PaneTabs { height: 1; padding: 0 1; }"

    pane: reactive[str] = reactive("transcript")

    def __init__(self, panes: Mapping[str, str] = PANES, *, id: str | None = None) -> None:
        """`panes` by what they are called here and on the screen; the first is seen."""
        super().__init__(id=id)
        self._panes = panes
        self.set_reactive(PaneTabs.pane, next(iter(panes)))

    def render(self) -> Content:
        """The seen pane in brackets, so that it shows without colour too."""
        parts: list[tuple[str, str]] = []
        for pane, name in self._panes.items():
            parts.append((f"[{name}]", "bold $accent") if pane == self.pane else (f" {name} ", MUTED))
            parts.append(("  ", ""))
        return Content.assemble(*parts)

    def on_click(self, event: events.Click) -> None:
        """Choose the pane under the pointer."""
        place = 1
        for pane, name in self._panes.items():
            if place <= event.x < place + len(name) + 2:
                self.post_message(PaneChosen(pane))
            place += len(name) + 4
