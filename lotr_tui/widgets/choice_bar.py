"""A choice between a few options on one line, by key or click."""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table

MARKS = ("○", "●")
"""Mark before an option that is not chosen, and before the chosen one."""
GAP = "  "


class ChoiceBar(Widget, can_focus=True):
    """A label and a few options, of which one is chosen. Posts `Changed` when another one is chosen."""

    DEFAULT_CSS = """
    ChoiceBar { height: 1; width: auto; }
    ChoiceBar:focus { background: $panel; }
    """
    ALLOW_SELECT = False
    BINDING_GROUP_TITLE = "Choice"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "choice-bar",
        """
        next     | space,enter,right | step(1)  | next option     | The next option
        previous | left              | step(-1) | previous option | The previous option
        """,
    )

    index: reactive[int] = reactive(0)
    """Index of the chosen option."""

    class Changed(Message):
        """Posted when another option was chosen."""

        def __init__(self, choice_bar: "ChoiceBar") -> None:
            super().__init__()
            self.choice_bar = choice_bar

        @property
        def control(self) -> "ChoiceBar":
            """The widget, for `on` with a selector."""
            return self.choice_bar

    def __init__(self, label: str, options: Sequence[str], *, help_line: str = "", id: str) -> None:
        """Create a choice between `options`; the first one is chosen."""
        super().__init__(id=id)
        self._label, self._options, self._help_line = label, tuple(options), help_line

    def get_help_line(self) -> str:
        """Return the line that explains the choice."""
        return self._help_line

    def render(self) -> Content:
        """Return `label ● option  ○ option`."""
        parts = [(f"{self._label} ", MUTED)]
        for index, option in enumerate(self._options):
            is_chosen = index == self.index
            style = ("bold" if self.has_focus else "") if is_chosen else MUTED
            parts += [(f"{MARKS[is_chosen]} ", "$accent" if is_chosen else MUTED), (f"{option}{GAP}", style)]
        return Content.assemble(*parts)

    def watch_index(self) -> None:
        """Post `Changed`."""
        self.post_message(self.Changed(self))

    def action_step(self, steps: int) -> None:
        """Choose the option some steps further; the first one follows the last one."""
        self.index = (self.index + steps) % len(self._options)

    def on_click(self, event: events.Click) -> None:
        """Choose the clicked option."""
        end = cell_len(f"{self._label} ")
        for index, option in enumerate(self._options):
            start, end = end, end + cell_len(f"{MARKS[0]} {option}{GAP}")
            if start <= event.x < end:
                self.index = index
