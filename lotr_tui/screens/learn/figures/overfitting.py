"""Figure of the chapter on overfitting: a prepared run without regularization, and a live training with some."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from engine.config import DataConfig
from engine.data.dataset import Dataset
from engine.events import TrainingEvent
from engine.runtime.worker import Cancellation
from lotr_tui.formatting import format_perplexity
from lotr_tui.learn.live_training import TemporaryTraining, limit_dataset
from lotr_tui.learn.overfitting_run import Regularization, RunCurves, load_overfitting_run, overfitting_config
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.learn.curve_chart import OTHER_TRAIN, OTHER_VALID, TRAIN, VALID, ChartData, Curve, CurveChart
from lotr_tui.screens.learn.live_figure import LiveTrainingFigure, TrainLine
from lotr_tui.theme import MUTED
from lotr_tui.widgets.slider import Slider

FRACTIONS = tuple(number / 10 for number in range(9))
"""Values of the sliders for dropout and weight drop."""
LABEL_WIDTH = 23
NARROW = 66
"""Columns of the figure below which the sliders are one above the other."""
NAME_WIDTH = 8
NAMES = ("without", "yours")
"""Names of the prepared run and of the live one."""


@dataclass(frozen=True)
class PreparedRun:
    """Corpus of the trainings, and the curves of the one without regularization."""

    data: DataConfig
    dataset: Dataset
    curves: RunCurves
    num_epochs: int


class OverfittingFigure(LiveTrainingFigure[PreparedRun]):
    """Curves of the training and the held-out text for two runs, and the gap between them."""

    DEFAULT_CSS = """
    OverfittingFigure #settings { layout: horizontal; height: 1; padding: 0 1; }
    OverfittingFigure #settings Slider { min-width: 16; margin-right: 2; }
    OverfittingFigure #settings #tie { margin-right: 0; }
    OverfittingFigure.-narrow #settings { layout: vertical; height: 3; }
    OverfittingFigure #gaps { height: 3; padding: 0 1; }
    """

    def compose_figure(self) -> ComposeResult:
        """Yield the settings, the line of the training, the curves and the gaps."""
        texts = [f"{fraction:.1f}" for fraction in FRACTIONS]
        with Container(id="settings"):
            yield Slider(
                "dropout",
                texts,
                help_line="Fraction of inputs and outputs hidden at each step of the next training",
                id="dropout",
            )
            yield Slider(
                "weight drop",
                texts,
                help_line="Fraction of recurrent weights hidden at each step of the next training",
                id="weight-drop",
            )
            yield Slider(
                "tied",
                ["no", "yes"],
                help_line="One matrix for the first and the last layer of the next training",
                id="tie",
            )
        yield TrainLine(id="train-line")
        yield CurveChart(LABEL_WIDTH, id="curves")
        yield Static(id="gaps", markup=False)

    def load(self, cancelled: Cancellation) -> Generator[str, None, PreparedRun]:
        """Read the run without regularization, or train it."""
        dataset = limit_dataset((yield from self.material.words()))
        data = self.material.data
        # In the background, so that a training on the user's corpus continues if the chapter is left.
        load = partial(load_overfitting_run, data, dataset)
        curves = yield from self.material.jobs.wait_for("overfitting", load, cancelled)
        epochs = overfitting_config(data, len(dataset.train), Regularization()).training.epochs
        return PreparedRun(data, dataset, curves, epochs)

    def show_data(self, data: PreparedRun) -> None:
        """Show the prepared run."""
        self.show_train_line()
        self.show_training([])

    def on_resize(self) -> None:
        """Lay out the sliders for the new width."""
        self.set_class(self.size.width < NARROW, "-narrow")
        if self.data is not None:
            self.query_one("#gaps", Static).update(self._describe_gaps())

    # Training

    @property
    def setting(self) -> Regularization:
        """Regularization that the sliders choose."""
        dropout, weight_drop, tie = (
            self.query_one(name, Slider).index for name in ("#dropout", "#weight-drop", "#tie")
        )
        return Regularization(FRACTIONS[dropout], FRACTIONS[weight_drop], bool(tie))

    @property
    def idle_text(self) -> str:
        """Text of the line before the first training."""
        if self.setting == Regularization():
            return "the same run once more; regularize it first"
        return "about 25 seconds, with these settings"

    @on(Slider.Changed)
    def _show_setting(self) -> None:
        """Say that the settings count from the next start on."""
        if self.data is not None:
            self.show_train_line()

    def make_training(self) -> TemporaryTraining:
        """Train from the same random numbers as the prepared run, with the settings of the sliders."""
        assert self.data is not None
        config = overfitting_config(self.data.data, len(self.data.dataset.train), self.setting)
        return self.start_thread(config, scores_train=True)

    @property
    def live_curves(self) -> RunCurves:
        """Curves of the current training, or the last one."""
        if self.training is None:
            return RunCurves((), (), ())
        return RunCurves.from_evaluations(self.training.view.evaluations, self.training.train_scores)

    def show_training(self, new_events: Sequence[TrainingEvent]) -> None:
        """Show the curves and the gaps, and report when the task is done."""
        assert self.data is not None
        live = self.live_curves
        self.query_one(CurveChart).show(chart_data(self.data, live))
        self.query_one("#gaps", Static).update(self._describe_gaps())
        if live.valid and live.best < self.data.curves.best:
            self.finish_part(0)

    def _describe_gaps(self) -> Content:
        assert self.data is not None
        return describe_gaps(self.data.curves, self.live_curves, self.trained_setting, self.size.width - 2)

    @property
    def trained_setting(self) -> Regularization | None:
        """Regularization of the current training, or the last one; None before the first one."""
        if self.training is None:
            return None
        model = self.training.config.model
        return Regularization(model.output_dropout, model.weight_drop, model.tie_weights)

    @property
    def next_action(self) -> str:
        """Action of enter after a training."""
        return "trains again" if self.trained_setting == self.setting else "trains these settings"

    def describe_result(self, view: TrainingView) -> str:
        """Return the best perplexity, and whether it is better than the best one of the prepared run."""
        live = self.live_curves
        if self.data is None or not live.valid:
            return view.failure
        below = live.best < self.data.curves.best
        return f"best {format_perplexity(live.best)}: {'better' if below else 'no better'} than without"


def chart_data(prepared: PreparedRun, live: RunCurves) -> ChartData:
    """Return the curves of both runs, the prepared run below the live one."""
    curves: list[Curve] = []
    styles = ((OTHER_TRAIN, OTHER_VALID), (TRAIN, VALID))
    for name, run, (train_style, valid_style) in zip(NAMES, (prepared.curves, live), styles, strict=True):
        if run.epochs:
            curves.append(Curve(f"{name} train", train_style, run.epochs, run.train))
            curves.append(Curve(f"{name} held-out", valid_style, run.epochs, run.valid))
    y_range = (0.85 * min(prepared.curves.train), 1.8 * max(prepared.curves.best, prepared.curves.valid[-1]))
    return ChartData(tuple(curves), (), prepared.num_epochs, y_range)


def describe_gaps(prepared: RunCurves, live: RunCurves, setting: Regularization | None, width: int) -> Content:
    """Return a table with the perplexities of both runs at the end, their gap, the best one, and their settings.

    Args:
        prepared: The run without regularization.
        live: The live run.
        setting: Setting of the live run; None before the first one.
        width: Columns of the table; the last columns are left out where they do not fit.
    """
    columns = ("train", "held-out", "gap", "best", "  dropout", "  weight drop", "  tied")
    widths = [max(9, len(column)) for column in columns[:4]] + [len(column) for column in columns[4:]]
    while NAME_WIDTH + sum(widths) > width and len(widths) > 4:
        widths.pop()
    rows = zip(NAMES, (prepared, live), (Regularization(), setting), strict=True)
    lines = [Content.styled(" " * NAME_WIDTH + _align(columns, widths), MUTED)]
    for name, run, regularization in rows:
        texts = ["·"] * len(columns)
        if run.epochs:
            train, valid = run.train[-1], run.valid[-1]
            texts[:4] = [format_perplexity(value) for value in (train, valid, valid - train, run.best)]
        if regularization is not None:
            dropout, weight_drop = f"{regularization.dropout:.1f}", f"{regularization.weight_drop:.1f}"
            texts[4:] = [dropout, weight_drop, "yes" if regularization.tie_weights else "no"]
        lines.append(
            Content.assemble(
                (f"{name:{NAME_WIDTH}}", "$accent" if run is live else ""),
                _align(texts[:2], widths[:2]),
                (_align(texts[2:3], widths[2:3]), "bold"),
                _align(texts[3:4], widths[3:4]),
                (_align(texts[4:], widths[4:]), MUTED),
            )
        )
    return Content("\n").join(lines)


def _align(texts: Sequence[str], widths: Sequence[int]) -> str:
    """Return texts in columns, aligned at the right; texts without a width are left out."""
    return "".join(text.rjust(width) for text, width in zip(texts, widths, strict=False))
