"""Panes of the dashboard: progress and figures, metrics with their last minute, curves, samples and the log."""

import math
import textwrap
import time
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import ClassVar, NamedTuple

import numpy as np
from rich.segment import Segment
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from engine.analysis.speakers import WORD
from engine.data.arrays import Float64Array
from engine.errors import printable
from engine.events import Sampled
from engine.runtime.process import POLL_INTERVAL, MachineStats, poll_machine_stats
from lotr_tui.background_task import BackgroundTask
from lotr_tui.formatting import displayable, format_bytes, format_count, format_duration, sparkline, truncate
from lotr_tui.monitor.training_view import LogKind, LogLine, TrainingView, describe_training_end
from lotr_tui.screens.inspect.heat_strip import DIFFERENCE_SHADING
from lotr_tui.screens.inspect.text_view import Page, TextView
from lotr_tui.theme import MUTED
from lotr_tui.widgets import charts
from lotr_tui.widgets.drawing import StripWidget, fit_groups
from lotr_tui.widgets.line_list import LineList

TIME_WIDTH = 7
# Mark of each kind of line, which also shows on terminals without colour
KIND_MARKS: dict[LogKind, str] = {"plain": " ", "evaluation": " ", "command": "›", "warning": "!", "error": "✗"}
MAX_LOG_LINES = 1000  # that are shown, the latest ones
SAMPLES_TEXT = "After every evaluation, the model continues the same prompt with the same seed."
WINDOW_SECONDS = 60.0  # of a history
MIN_SPARKLINE_WIDTH, MAX_SPARKLINE_WIDTH = 8, 60
TILE_GAP = 3
MAX_TILE_LINES = 8  # a machine with many GPUs shows only the first ones
MIN_VISIBLE_STEPS = 8  # in the smallest visible range, about


class TrainingMetrics(StripWidget):
    """Progress bar, and below it as many figures as fit; the metric tiles show the other measurements."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"training-metrics--{name}" for name in ("done", "name", "state", "failed")
    }
    view = TrainingView()

    def show(self, view: TrainingView) -> None:
        self.view = view
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        view, styles = self.view, self.component_styles()
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
            text = text.ljust(len(f" epoch {view.epochs}.0/{view.epochs} · 0:00:00 left"))  # the bar keeps its length
        bar_width = max(5, width - len(text))
        done_width = round(min(max(view.epoch / view.epochs if view.epochs else 0.0, 0.0), 1.0) * bar_width)
        text = truncate(text, width - bar_width)
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


class MetricTile(NamedTuple):
    """Current value of a metric and its recent history."""

    group: str  # device, as "GPU 0"; "" for the training and its process
    name: str
    value: str
    value_width: int  # cells reserved for the value, so that the layout stays still
    times: Float64Array  # [sample], in seconds
    history: Float64Array  # [sample]; NaN if unknown
    max_value: float | None = None  # upper end of the scale; None for the maximum of the history

    def resample(self, num_bins: int) -> list[float]:
        """Return the mean of the last minute in `num_bins` equal intervals.

        An interval without values has the value before it, and NaN before the first one. Intervals start at multiples
        of their length, so that the chart moves by whole intervals.
        """
        means = [math.nan] * num_bins
        if not len(self.times) or not math.isfinite(self.times[-1]):
            return means
        intervals = np.floor(self.times / (WINDOW_SECONDS / num_bins))
        bins = np.where(np.isfinite(self.history), intervals - intervals[-1] + num_bins - 1, -1)
        for index in range(num_bins):
            in_bin = self.history[bins == index]
            means[index] = float(in_bin.mean()) if len(in_bin) else means[max(0, index - 1)]
        return means


def training_tiles(view: TrainingView) -> list[MetricTile]:
    """Return one tile per training metric with its history of the last minute."""
    last, seconds = view.steps.last, view.steps.column("seconds")
    recent = slice(int(np.searchsorted(seconds, seconds[-1] - WINDOW_SECONDS)) if len(seconds) else 0, None)
    figures = [
        ("lr", "lr", f"{last.lr:.3g}" if last else "-", 8),
        ("gradient", "gradient_norm", f"{last.gradient_norm:.3g}" if last else "-", 6),
        ("tokens/s", "tokens_per_second", format_count(last.tokens_per_second) if last else "-", 7),
        ("time left", "eta_seconds", format_duration(last.eta_seconds) if last else "-", 7),
    ]
    return [
        MetricTile("", name, value, width, seconds[recent], view.steps.column(field)[recent])
        for name, field, value, width in figures
        if view.is_active or name != "time left"
    ]


def machine_tiles(readings: Sequence[tuple[float, MachineStats]]) -> list[MetricTile]:
    """Return one tile per metric that can be read, from readings with their times, or tiles without values."""
    if not readings:
        empty = np.empty(0)
        return [MetricTile("", name, "-", width, empty, empty) for name, width in (("memory", 8), ("CPU", 11))]
    times, stats = np.array([seconds for seconds, _ in readings]), [reading for _, reading in readings]
    tiles: list[MetricTile] = []

    def add(name: str, value: str, width: int, field: str, scale: float | None = None, gpu: int = -1) -> None:
        sources = stats if gpu < 0 else [each.gpus[gpu] if gpu < len(each.gpus) else None for each in stats]
        history = np.array([getattr(source, field, None) for source in sources], float)  # None becomes NaN
        tiles.append(MetricTile("" if gpu < 0 else f"GPU {gpu}", name, value, width, times, history, scale))

    latest = stats[-1]
    add("memory", format_bytes(latest.memory_used, binary=True), 8, "memory_used")
    add("CPU", f"{latest.cpu_cores_used:.1f} of {latest.cpu_cores}", 11, "cpu_cores_used", latest.cpu_cores)
    for index, gpu in enumerate(latest.gpus):
        if gpu.utilization is not None:
            add("use", f"{gpu.utilization:.0%}", 4, "utilization", 1.0, index)
        if gpu.memory_used is not None and gpu.memory_total:
            text = f"{gpu.memory_used / 2**30:.1f} of {format_bytes(gpu.memory_total, binary=True)}"
            add("memory", text, 18, "memory_used", float(gpu.memory_total), index)
    return tiles


class MetricTiles(StripWidget):
    """Metrics of a training, and of this machine while it trains, each with a sparkline of the last minute."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"metric-tiles--name", "metric-tiles--history"}
    view = TrainingView()

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._readings: list[tuple[float, MachineStats]] | None = None  # until this process trains
        self._num_lines = 0
        self._machine_reader: BackgroundTask[MachineStats] = BackgroundTask(
            self,
            "machine",
            on_items=self._add_readings,
            on_error=lambda error: self.log.warning(f"the machine is no longer monitored: {error}"),
            interval=POLL_INTERVAL,
        )

    def show(self, view: TrainingView) -> None:
        self.view = view
        if len(self._rows(self.size.width)) == self._num_lines:
            self.redraw_changes()
        else:
            self._lines = []
            self.refresh(layout=True)

    @property
    def is_monitoring(self) -> bool:
        return self._machine_reader.is_running

    def set_machine_monitoring(self, enabled: bool) -> None:
        if enabled and not self.is_monitoring:
            self._readings = self._readings or []
            self._machine_reader.start(poll_machine_stats)
        elif not enabled:
            self._machine_reader.cancel()

    def on_unmount(self) -> None:
        self._machine_reader.cancel()

    def _add_readings(self, readings: list[MachineStats]) -> None:
        now = time.monotonic()
        kept = [each for each in self._readings or () if each[0] >= now - WINDOW_SECONDS]
        self._readings = [*kept, *((now, reading) for reading in readings)]
        self.show(self.view)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self._num_lines = len(self._rows(width))
        return self._num_lines

    def draw(self, width: int, height: int) -> list[Strip]:
        styles = self.component_styles()
        name_style, history_style = styles["metric-tiles--name"], styles["metric-tiles--history"]
        lines = []
        for columns, row in self._rows(width)[:height]:
            group = f"{row[0].group} " if row[0].group else ""
            segments = [Segment(group, name_style)]
            cell = (width - len(group) + TILE_GAP) // columns - TILE_GAP
            for tile in row:
                room = cell - len(tile.name) - tile.value_width - 2
                history = sparkline(tile.resample(min(MAX_SPARKLINE_WIDTH, max(1, room))), tile.max_value)
                segments += [
                    Segment(f"{tile.name} ", name_style),
                    Segment(f"{tile.value:>{tile.value_width}} ", styles[""]),
                    Segment(history, history_style),
                    Segment(" " * (max(0, room - MAX_SPARKLINE_WIDTH) + TILE_GAP), styles[""]),
                ]
            lines.append(Strip(segments[:-1]))
        return lines

    def _rows(self, width: int) -> list[tuple[int, list[MetricTile]]]:
        """Return the tiles of each line and their columns; the tiles of each GPU are on lines of their own."""
        tiles = [*training_tiles(self.view), *(machine_tiles(self._readings) if self._readings is not None else [])]
        rows = []
        for group, members in groupby(tiles, key=lambda tile: tile.group):
            same = list(members)
            widest = max(len(tile.name) + tile.value_width for tile in same) + 2 + MIN_SPARKLINE_WIDTH + TILE_GAP
            fitting = max(1, (width - len(group) + TILE_GAP) // widest)
            columns = math.ceil(len(same) / math.ceil(len(same) / fitting))  # the lines are about equally long
            rows += [(columns, same[start : start + columns]) for start in range(0, len(same), columns)]
        return rows[:MAX_TILE_LINES]


class TrainingChart(charts.PerplexityChart):
    """Perplexity chart that can be zoomed, and has a cursor at an epoch, which a click moves."""

    def set_cursor(self, epoch: float | None) -> None:
        self.cursor = None if epoch is None else min(epoch, self._view.epoch)  # records may have any
        self.redraw_changes()

    def zoom(self, factor: float) -> None:
        """Multiply the visible width by `factor`; 0.5 zooms in, and 0 shows the whole curve."""
        left, right = self.x_range
        smallest = self.x_end * min(1, MIN_VISIBLE_STEPS / max(1, len(self._view.steps)))
        width = max((right - left) * factor, smallest)
        self.visible_epochs = width if factor and width < self.x_end else None
        self.redraw_changes()

    def epoch_beside(self, columns: int) -> float | None:
        """Return the epoch some columns from the cursor; None for the latest one."""
        left, right = self.x_range
        epoch = self._view.epoch if self.cursor is None else self.cursor
        epoch += columns * (right - left) / max(1, self.size.width - charts.Y_LABEL_WIDTH)
        return max(0.0, epoch) if epoch < self._view.epoch else None

    async def on_click(self, event: events.Click) -> None:
        if (offset := event.get_content_offset(self)) is not None and self._view.evaluations:
            left, right = self.x_range
            columns = max(1, self.size.width - charts.Y_LABEL_WIDTH - 1)
            epoch = max(0.0, left + (offset.x - charts.Y_LABEL_WIDTH) / columns * (right - left))
            await self.run_action(f"screen.select_epoch({epoch if epoch < self._view.epoch else None})")

    def _y_range(self, curves: Mapping[str, charts.LogCurve]) -> tuple[float, float]:
        """Return the range, rounded outwards so that it changes rarely; after a zoom, all visible values fit."""
        visible = [bound for curve in curves.values() for bound in charts.perplexity_bounds(curve)]
        (low, high), steps_per_decade = super()._y_range(curves), 40
        if self.visible_epochs is not None and visible:
            low, high, steps_per_decade = min(visible), max(visible), 200
        return (
            10 ** (math.floor(math.log10(low) * steps_per_decade) / steps_per_decade),
            10 ** (math.ceil(math.log10(high) * steps_per_decade) / steps_per_decade),
        )

    def _empty_lines(self) -> list[Strip]:
        view = self._view
        texts = {"preparing": f"{printable(view.activity)} …", "failed": printable(view.failure)}
        text = texts.get(view.phase, "The curve starts with the first validation.")
        return [Strip([]), Strip([Segment(text, self.get_component_rich_style("chart--axis"))])]

    def _label_curves(self, plot: charts.Plot, cells_by_style: Mapping[str, charts.BrailleCells]) -> None:
        """Draw the name of each curve near its end, for terminals without colour."""
        for name in ("valid", "train"):
            cells = cells_by_style[f"chart--{name}"]
            for column in np.flatnonzero(cells.any(axis=0))[-1:].tolist():
                row, after, before = int(np.flatnonzero(cells[:, column])[0]), column + 2, column - len(name) + 1
                places = ((row, after), (row - 1, before), (row + 1, before), (row - 2, before), (row + 2, before))
                free = (place for place in places if plot.is_free(place[0], place[1] - 1, len(name) + 1))
                if place := next(free, None):
                    plot.draw_text(*place, name, f"chart--{name}")

    def _legend(self) -> list[tuple[str, str, str]]:
        if (cursor := self.cursor) is None:
            return super()._legend()
        steps, unit = self._view.steps, self._view.unit
        count = int(np.searchsorted(steps.column("epoch"), cursor, "right"))
        evaluation = next((event for event in reversed(self._view.evaluations) if event.epoch <= cursor), None)
        step, seconds, train, lr = 0.0, 0.0, math.nan, "-"
        if count:
            step, seconds = (float(steps.column(name)[count - 1]) for name in ("step", "seconds"))
            train = 10.0 ** float(self._smoothed_train.compute(steps)[count - 1])
            lr = f"{steps.column('lr')[count - 1]:.3g}"
        return [
            ("chart--cursor", "│ epoch", f"{cursor:.2f}"),
            ("chart--valid", "━ valid", unit.format(evaluation.valid_perplexity if evaluation else None)),
            ("chart--train", "━ train", unit.format(train)),
            ("chart--axis", "lr", lr),
            ("chart--axis", "step", f"{step:,.0f}"),
            ("chart--axis", "time", format_duration(seconds)),
        ]


class SampleTimeline(Widget):
    """One sample with its position among all samples, and below it the samples before."""

    view = TrainingView()
    cursor: float | None = None  # epoch up to which the last sample is shown; None follows the latest one
    _shown: tuple[object, ...] = ()

    def show(self, view: TrainingView, cursor: float | None) -> None:
        self.view, self.cursor = view, cursor
        shown = (self.sample_index, cursor is None, view.samples[-1:], len(view.samples))
        if shown != self._shown:
            self._shown = shown
            self.refresh()

    @property
    def sample_index(self) -> int:
        """Index of the sample at the cursor; -1 without samples."""
        if self.cursor is None or not self.view.samples:
            return len(self.view.samples) - 1
        return max(0, bisect_right(self.view.samples, self.cursor, key=attrgetter("epoch")) - 1)

    def render(self) -> Content:
        samples, index, (width, height) = self.view.samples, self.sample_index, self.content_size
        if not samples:
            return Content.styled(SAMPLES_TEXT, MUTED)
        sample, width = samples[index], max(3, width)
        position = "latest" if self.cursor is None else f"{index + 1} of {len(samples)}"
        dot = round(index / (len(samples) - 1) * (width - 1)) if len(samples) > 1 else width - 1
        lines = [
            Content.assemble((self._heading(sample), "bold"), (f"  {position}", MUTED)),
            Content.assemble(("─" * dot, MUTED), ("●", "$accent"), ("─" * (width - 1 - dot), MUTED)),
            Content.assemble((displayable(sample.prompt), "bold"), " ", printable(sample.text)),
            Content.styled(f"seed {sample.seed} · temperature {sample.temperature:g}", MUTED),
        ]
        # The pre-trained model itself comes next, to be compared, then the others, latest first.
        first = samples[: index and 1] if self.view.num_lines else []
        for earlier in [*first, *samples[max(len(first), index - height) : index][::-1]]:
            prompt = "" if earlier.prompt == sample.prompt else f"{displayable(earlier.prompt)} … "
            text = f"{self._heading(earlier)}\n{prompt}{printable(earlier.text)}"
            lines += [Content(""), Content.styled(text, MUTED)]
        return Content("\n").join(lines)

    def _heading(self, sample: Sampled) -> str:
        evaluations = self.view.evaluations
        index = bisect_left(evaluations, sample.step, key=attrgetter("step"))
        if index == len(evaluations) or evaluations[index].step != sample.step:
            return f"epoch {sample.epoch:.1f}"
        best = " · best" if evaluations[index] is self.view.best else ""
        valid = self.view.unit.format(evaluations[index].valid_perplexity)
        name = "as it came" if self.view.num_lines and not sample.step else f"epoch {sample.epoch:.1f}"
        return f"{name} · valid {valid}{best}"


class ChangedWords(Vertical):
    """A held-out line, whose words are shaded by what the training of an adapter has changed in their probabilities."""

    line = 0

    def compose(self) -> ComposeResult:
        yield Static(id="line-heading")
        words = TextView("", "", lambda index: (DIFFERENCE_SHADING.style_of(self._gains[index]),), id="line-words")
        words.can_focus = False
        yield words
        yield Static(id="line-changes")

    @on(events.Show)
    @on(events.Hide)
    def _update_footer(self) -> None:
        self.screen.refresh_bindings()  # `n` is for the lines that are seen

    def show(self, view: TrainingView, cursor: float | None) -> None:
        """Show a line at the latest evaluation up to the epoch `cursor`."""
        self.set_class(view.num_lines > 0, "-shown")
        if not view.num_lines:
            return
        self.line %= view.num_lines
        (speaker, names, before, after), words = view.line_change(self.line, cursor), self.query_one(TextView)
        place, bits = f"held-out line {self.line + 1}/{view.num_lines}", f"{before.mean():.2f} → {after.mean():.2f}"
        heading = Content.assemble((place, "bold"), (" (n)", "$accent"), (f" · {bits} bits/word", MUTED))
        self.query_one("#line-heading", Static).update(heading)
        head, self._gains = f"{speaker}: " if speaker else "", before - after
        text = head + " ".join(names)
        words.show(Page.plain(text, [match.span() for match in WORD.finditer(text, len(head))]))
        order = np.argsort(-self._gains, kind="stable").tolist()
        most = [index for index in dict.fromkeys([*order[:3], *order[:-3:-1]]) if abs(self._gains[index]) >= 0.05]
        changes = " · ".join(f"{names[index]} {self._gains[index]:+.1f}" for index in most)
        legend = words.legend(DIFFERENCE_SHADING.legend, DIFFERENCE_SHADING.styles)
        self.query_one("#line-changes", Static).update(Content(changes or "no change yet") + "\n" + legend)


class LogPane(LineList, can_focus=False):
    """Log lines with their time, latest last. The pane follows the end unless the user has scrolled up."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--time", *(f"log--{kind}" for kind in KIND_MARKS)}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._log: list[LogLine] = []
        self._wrapped: list[tuple[str, str, LogKind]] = []  # time and mark, a part of the text, and its kind
        self._at_end = True

    def show(self, log: Sequence[LogLine]) -> None:
        if (shown := list(log[-MAX_LOG_LINES:])) != self._log:
            self._log = shown
            self._wrap()

    def _wrap(self) -> None:
        width = max(10, self.scrollable_content_region.width - TIME_WIDTH - 3)
        self._wrapped = []
        for line in self._log:
            prefix = f"{format_duration(line.seconds):>{TIME_WIDTH}} {KIND_MARKS[line.kind]} "
            for part in [line.text] if len(line.text) <= width else textwrap.wrap(line.text, width):
                self._wrapped.append((prefix, part, line.kind))
                prefix = " " * len(prefix)
        self.update_virtual_size()
        self.refresh()
        if self._at_end and self._wrapped:
            self.scroll_to_line(self.line_count() - 1)

    def line_count(self) -> int:
        return len(self._wrapped)

    def line_segments(self, line: int) -> list[Segment]:
        prefix, text, kind = self._wrapped[line]
        time_style, style = (self.get_component_rich_style(f"log--{name}") for name in ("time", kind))
        return [Segment(prefix, time_style), Segment(text, style)]

    def action_step(self, offset: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + offset, animate=False)

    def on_resize(self) -> None:
        self._wrap()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Remember if the end is visible. A change of the size does not call this method, and so keeps following."""
        super().watch_scroll_y(old_value, new_value)
        self._at_end = new_value >= self.max_scroll_y
