"""Parts of the dashboard that show text: progress and figures, samples and the log."""

import math
import textwrap
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import ClassVar, NamedTuple

from rich.segment import Segment
from textual.content import Content
from textual.strip import Strip
from textual.widget import Widget

from engine.errors import printable
from engine.events import Sampled
from lotr_tui.formatting import format_duration
from lotr_tui.monitor.training_view import LogKind, LogLine, TrainingView, describe_training_end
from lotr_tui.theme import MUTED
from lotr_tui.widgets.drawing import StripWidget, fit_groups
from lotr_tui.widgets.line_list import LineList

TIME_WIDTH = 7
# Mark of each kind of line, which also shows on terminals without colour
KIND_MARKS: dict[LogKind, str] = {"plain": " ", "evaluation": " ", "command": "›", "warning": "!", "error": "✗"}
SAMPLES_TEXT = "After every evaluation, the model continues the same prompt with the same seed."
get_step = attrgetter("step")


class TrainingMetrics(StripWidget):
    """Progress bar, and below it as many figures as fit; the metric tiles show the other measurements."""

    DEFAULT_CSS = """
    TrainingMetrics { height: 2; padding: 0 1; }
    TrainingMetrics > .training-metrics--done { color: $accent; }
    TrainingMetrics > .training-metrics--name { color: $muted; text-style: $muted-style; }
    TrainingMetrics > .training-metrics--state { text-style: bold; }
    TrainingMetrics > .training-metrics--failed { color: $text-error; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"training-metrics--{name}" for name in ("done", "name", "state", "failed")
    }

    def __init__(self, view: TrainingView, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view = view

    def show(self, view: TrainingView) -> None:
        self._view = view
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        view, styles = self._view, self.component_styles()
        name_style, step, best, unit = styles["training-metrics--name"], view.steps.last, view.best, view.unit
        if view.phase == "preparing":
            text = f" {printable(view.activity)} …"
        elif view.phase == "failed":
            text = f" failed: {printable(view.failure)}"
        elif view.finished:
            text = f" {describe_training_end(view.finished)} after {format_duration(view.finished.seconds)}"
        else:
            left = format_duration(step.eta_seconds) if step else "-"
            text = f" epoch {view.epoch:.1f}/{view.epochs} · " + ("paused" if view.paused else f"{left} left")
            longest = f" epoch {view.epochs}.0/{view.epochs} · 0:00:00 left"
            text = f"{text:<{len(longest)}}"  # the bar then keeps its length
        bar_width = max(5, width - len(text))
        done_width = round(min(max(view.epoch / view.epochs if view.epochs else 0.0, 0.0), 1.0) * bar_width)
        if bar_width + len(text) > width:
            text = text[: max(0, width - bar_width - 1)] + "…"
        progress = [
            Segment("━" * done_width, styles["training-metrics--done"]),
            Segment("─" * (bar_width - done_width), name_style),
            Segment(text, styles[f"training-metrics--{'failed' if view.phase == 'failed' else 'state'}"]),
        ]
        figures = [  # with fixed widths, so that the line does not move
            ("train", unit.format(step.train_perplexity if step else None), 6),
            ("valid", unit.format(view.evaluations[-1].valid_perplexity if view.evaluations else None), 6),
            ("best", unit.format(best.valid_perplexity if best else None), 6),
        ]
        if view.finished:
            test = view.finished.test_perplexity
            figures.append(("test", "not read" if math.isnan(test) else unit.format(test), 8))
        if view.evaluations and not math.isnan(printed := view.evaluations[-1].notebook_perplexity):
            figures.append(("the notebook prints", f"{printed:.3f}", 6))
        figures += [("step", f"{view.step:,}", 7), ("elapsed", format_duration(view.seconds), 7)]
        groups = (
            [Segment(f"{name} ", name_style), Segment(f"{value:<{value_width}}", styles[""])]
            for name, value, value_width in figures
        )
        return [Strip(progress), fit_groups(groups, width, styles[""], gap=2)]


class SampleTimeline(Widget):
    """One sample with its position among all samples, and below it the samples before."""

    DEFAULT_CSS = "SampleTimeline { padding: 0 1; height: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view = TrainingView()
        self._cursor: int | None = None  # update up to which the last sample is shown; None follows the latest one
        self._last_shown: tuple[object, ...] = ()

    def show(self, view: TrainingView, cursor: int | None) -> None:
        """Show the last sample of `view` up to an update; None follows the latest sample."""
        self._view, self._cursor = view, cursor
        shown = (self._index(), view.samples[-1:], len(view.samples))
        if shown != self._last_shown:
            self._last_shown = shown
            self.refresh()

    def adjacent_sample_step(self, offset: int) -> int | None:
        """Return the update of the sample `offset` samples after the cursor; None for the latest sample or later."""
        samples, index = self._view.samples, self._index() + offset
        if self._cursor is not None and offset < 0:
            index = bisect_left(samples, self._cursor, key=get_step) + offset
        return samples[max(0, index)].step if samples and index < len(samples) - 1 else None

    def _index(self) -> int:
        """Return the index of the sample at the cursor; -1 without samples."""
        samples = self._view.samples
        if self._cursor is None or not samples:
            return len(samples) - 1
        return max(0, bisect_right(samples, self._cursor, key=get_step) - 1)

    def render(self) -> Content:
        samples, index, (width, height) = self._view.samples, self._index(), self.content_size
        if not samples:
            return Content.styled(SAMPLES_TEXT, MUTED)
        sample, width = samples[index], max(3, width)
        position = "latest" if self._cursor is None else f"{index + 1} of {len(samples)}"
        dot = round(index / (len(samples) - 1) * (width - 1)) if len(samples) > 1 else width - 1
        lines = [
            Content.assemble((self._heading(sample), "bold"), (f"  {position}", MUTED)),
            Content.assemble(("─" * dot, MUTED), ("●", "$accent"), ("─" * (width - 1 - dot), MUTED)),
            Content.assemble((printable(sample.prompt), "bold"), " ", printable(sample.text)),
            Content.styled(f"seed {sample.seed} · temperature {sample.temperature:g}", MUTED),
        ]
        for earlier in samples[max(0, index - height) : index][::-1]:
            prompt = "" if earlier.prompt == sample.prompt else f"{printable(earlier.prompt)} … "
            text = f"{prompt}{printable(earlier.text)}"
            lines += [Content(""), Content.styled(self._heading(earlier), MUTED), Content.styled(text, MUTED)]
        return Content("\n").join(lines)

    def _heading(self, sample: Sampled) -> str:
        evaluations = self._view.evaluations
        index = bisect_left(evaluations, sample.step, key=get_step)
        if index == len(evaluations) or evaluations[index].step != sample.step:
            return f"epoch {sample.epoch:.1f}"
        best = " · best" if evaluations[index] is self._view.best else ""
        valid = self._view.unit.format(evaluations[index].valid_perplexity)
        return f"epoch {sample.epoch:.1f} · valid {valid}{best}"


class _WrappedLine(NamedTuple):
    source: LogLine
    text: str
    is_first: bool  # of the lines into which `source` is wrapped


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

    def show(self, log: Sequence[LogLine]) -> None:
        """Show a log; only lines that differ from the previous log are wrapped."""
        num_kept = min(len(log), len(self._log))
        while num_kept and log[num_kept - 1] is not self._log[num_kept - 1]:
            num_kept -= 1
        if num_kept == len(log) == len(self._log):
            return
        for removed in reversed(self._log[num_kept:]):
            while self._wrapped_lines and self._wrapped_lines[-1].source is removed:
                self._wrapped_lines.pop()
        self._log[num_kept:] = log[num_kept:]
        width = max(10, self.scrollable_content_region.width - TIME_WIDTH - 3)
        for line in log[num_kept:]:
            parts = [line.text] if len(line.text) <= width else textwrap.wrap(line.text, width)
            self._wrapped_lines += [_WrappedLine(line, part, number == 0) for number, part in enumerate(parts)]
        self.update_virtual_size()
        self.refresh()
        if self._at_end and self._wrapped_lines:
            self.scroll_to_line(self.line_count() - 1)

    def line_count(self) -> int:
        return len(self._wrapped_lines)

    def line_segments(self, line: int) -> list[Segment]:
        source, text, is_first = self._wrapped_lines[line]
        prefix = f"{format_duration(source.seconds):>{TIME_WIDTH}} {KIND_MARKS[source.kind]} "
        return [
            Segment(prefix if is_first else " " * len(prefix), self.get_component_rich_style("log--time")),
            Segment(text, self.get_component_rich_style(f"log--{source.kind}")),
        ]

    def action_step(self, offset: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + offset, animate=False)

    def on_resize(self) -> None:
        """Wrap all lines for the new width."""
        log, self._log, self._wrapped_lines = self._log, [], []
        self.show(log)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Remember if the end is visible. A change of the size does not call this method, and so keeps following."""
        super().watch_scroll_y(old_value, new_value)
        self._at_end = new_value >= self.max_scroll_y
