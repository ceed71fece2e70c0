"""Log of a training."""

import textwrap
from typing import ClassVar, NamedTuple

from rich.segment import Segment

from lotr_tui.formatting import format_duration
from lotr_tui.monitor.log_lines import LogKind, LogLine
from lotr_tui.widgets.line_list import LineList

TIME_WIDTH = 7
KIND_MARKS: dict[LogKind, str] = {"plain": " ", "evaluation": " ", "command": "›", "warning": "!", "error": "✗"}
"""Mark of each kind of line, which also shows on terminals without colour."""


class _WrappedLine(NamedTuple):
    """One line of the screen."""

    source: LogLine
    text: str
    is_first: bool
    """True for the first of the lines into which `source` is wrapped."""


class LogPane(LineList, can_focus=False):
    """Log lines with their time, latest last. The pane follows the end unless the user has scrolled up."""

    DEFAULT_CSS = """
    LogPane { height: 1fr; }
    LogPane > .log--time { color: $muted; text-style: $muted-style; }
    LogPane > .log--plain { color: $foreground 75%; }
    LogPane > .log--evaluation { color: $foreground; }
    LogPane > .log--command { color: $accent; }
    LogPane > .log--warning { color: $text-warning; text-style: bold; }
    LogPane > .log--error { color: $text-error; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--time", *(f"log--{kind}" for kind in KIND_MARKS)}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._log: list[LogLine] = []
        self._wrapped_lines: list[_WrappedLine] = []
        self._at_end = True

    def show(self, log: list[LogLine]) -> None:
        """Show a log; only lines that differ from the previous log are wrapped."""
        if self._update_lines(log):
            self.update_virtual_size()
            self.refresh()
            self._follow_end()

    def line_count(self) -> int:
        """Return the number of lines of the screen."""
        return len(self._wrapped_lines)

    def line_segments(self, line: int) -> list[Segment]:
        """Return the time, the mark and the text of a line."""
        source, text, is_first = self._wrapped_lines[line]
        prefix = f"{format_duration(source.seconds):>{TIME_WIDTH}} {KIND_MARKS[source.kind]} "
        return [
            Segment(prefix if is_first else " " * len(prefix), self.get_component_rich_style("log--time")),
            Segment(text, self.get_component_rich_style(f"log--{source.kind}")),
        ]

    def action_step(self, offset: int) -> None:
        """Scroll down by `offset` lines, or up if `offset` is negative."""
        self.scroll_to(y=self.scroll_offset.y + offset, animate=False)

    def on_resize(self) -> None:
        """Wrap all lines for the new width."""
        log, self._log, self._wrapped_lines = self._log, [], []
        self._update_lines(log)
        self.update_virtual_size()
        self._follow_end()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Remember if the end is visible. A change of the size does not call this method, and so keeps following."""
        super().watch_scroll_y(old_value, new_value)
        self._at_end = new_value >= self.max_scroll_y

    def _follow_end(self) -> None:
        if self._at_end and self._wrapped_lines:
            self.scroll_to_line(self.line_count() - 1)

    def _update_lines(self, log: list[LogLine]) -> bool:
        """Wrap the lines that are new, and return True if anything has changed."""
        num_kept = min(len(log), len(self._log))
        while num_kept and log[num_kept - 1] is not self._log[num_kept - 1]:
            num_kept -= 1
        if num_kept == len(log) == len(self._log):
            return False
        while len(self._log) > num_kept:
            removed = self._log.pop()
            while self._wrapped_lines and self._wrapped_lines[-1].source is removed:
                self._wrapped_lines.pop()
        width = max(10, self.scrollable_content_region.width - TIME_WIDTH - 3)
        for line in log[num_kept:]:
            parts = [line.text] if len(line.text) <= width else textwrap.wrap(line.text, width)
            self._wrapped_lines += [_WrappedLine(line, part, number == 0) for number, part in enumerate(parts)]
            self._log.append(line)
        return True
