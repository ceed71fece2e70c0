"""What happened in a training, latest last."""

import textwrap
from typing import ClassVar

from rich.segment import Segment
from textual.strip import Strip

from lotr_tui.formatting import duration
from lotr_tui.monitor.log_lines import Kind, LogLine
from lotr_tui.widgets.line_list import LineList

TIME_WIDTH = 7
MARKS: dict[Kind, str] = {"plain": " ", "evaluation": " ", "asked": "›", "warning": "!", "error": "✗"}
"""So that warnings stand out without colour too."""


class LogPane(LineList, can_focus=False):
    """Lines with their time; follows the end unless one has gone up to read."""

    DEFAULT_CSS = """
    LogPane { height: 1fr; }
    LogPane > .log--time { color: $foreground 60%; }
    LogPane > .log--plain { color: $foreground 75%; }
    LogPane > .log--evaluation { color: $foreground; }
    LogPane > .log--asked { color: $accent; }
    LogPane > .log--warning { color: $text-warning; text-style: bold; }
    LogPane > .log--error { color: $text-error; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--time", *(f"log--{kind}" for kind in MARKS)}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._log: list[LogLine] = []
        self._painted: list[tuple[LogLine, str, bool]] = []
        """For each line of the screen what it is of, its text, and whether it is the first of that."""
        self._at_end = True

    def show(self, log: list[LogLine]) -> None:
        """Show `log`; what stands already stays."""
        if self._take(log):
            self.measure()
            self.refresh()
            self._follow()

    def line_count(self) -> int:
        """Lines of the screen."""
        return len(self._painted)

    def action_step(self, lines: int) -> None:
        """So many lines down, or up."""
        self.scroll_to(y=self.scroll_offset.y + lines, animate=False)

    def on_resize(self) -> None:
        """Long lines are broken elsewhere."""
        log, self._log, self._painted = self._log, [], []
        self._take(log)
        super().on_resize()
        self._follow()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Whether one reads the end: a scroll tells, another size does not."""
        super().watch_scroll_y(old_value, new_value)
        self._at_end = new_value >= self.max_scroll_y

    def _follow(self) -> None:
        if self._at_end and self._painted:
            self.bring_into_sight(self.line_count() - 1)

    def render_line(self, y: int) -> Strip:
        """A line of the screen."""
        width, number = self.size.width, self.scroll_offset.y + y
        if number >= len(self._painted):
            return Strip.blank(width, self.rich_style)
        line, text, first = self._painted[number]
        when = f"{duration(line.seconds):>{TIME_WIDTH}} {MARKS[line.kind]} " if first else " " * (TIME_WIDTH + 3)
        segments = [
            Segment(when, self.get_component_rich_style("log--time")),
            Segment(text, self.get_component_rich_style(f"log--{line.kind}")),
        ]
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _take(self, log: list[LogLine]) -> bool:
        """Break what is new into lines of the screen; tells whether there was any."""
        same = min(len(log), len(self._log))
        while same and log[same - 1] is not self._log[same - 1]:
            same -= 1
        if same == len(log) == len(self._log):
            return False
        while self._painted and (len(self._log) > same):
            gone = self._log.pop()
            while self._painted and self._painted[-1][0] is gone:
                self._painted.pop()
        room = max(10, self.size.width - TIME_WIDTH - 3)
        for line in log[same:]:
            parts = [line.text] if len(line.text) <= room else textwrap.wrap(line.text, room)
            self._painted += [(line, part, number == 0) for number, part in enumerate(parts)]
            self._log.append(line)
        return True
