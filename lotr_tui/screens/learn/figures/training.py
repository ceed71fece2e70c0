"""Figures with a live training: the learning rate beside the counting models, and dropout beside a run without."""

import asyncio
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.strip import Strip

from engine.analysis.evaluation import evaluate
from engine.config import Config, DataConfig, ModelConfig
from engine.control import ControlCommand
from engine.data.dataset import Dataset
from engine.models.ngram import KneserNey, Unigram
from engine.runtime.process import Cancellation
from lotr_tui.formatting import displayable, format_perplexity, truncate
from lotr_tui.learn.live_training import (
    MAX_TRAIN_TOKENS,
    Regularization,
    RunCurves,
    TemporaryTraining,
    Verdict,
    judge,
    limit_dataset,
    live_config,
    load_overfitting_run,
    overfitting_config,
)
from lotr_tui.learn.material import Material
from lotr_tui.monitor.training_view import TrainingView, log10_or_nan
from lotr_tui.screens.learn.figure import ChapterFigure, Drawing
from lotr_tui.theme import MUTED
from lotr_tui.widgets.charts import Y_LABEL_WIDTH, Plot
from lotr_tui.widgets.drawing import StripWidget
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.slider import Slider

DataT = TypeVar("DataT")
POLL_INTERVAL = 0.05
CLOSE_TIMEOUT = 1.0  # seconds to wait for the end of the training, after its current step, when the chapter is left
MAX_SECONDS = 60.0  # of training on a slow computer
# A small LSTM that begins with equally likely words, and not with their frequencies. On two cores, the five epochs take
# 14 seconds. Measured on the bundled dialogues, up to 0.0001 is worse than the unigram model after two epochs, 0.0003
# and 0.001 end between the counting models, 0.003 to 0.03 pass the 5-gram model, and 0.3 and 1 make the loss jump.
MODEL = ModelConfig(
    embedding_size=128, hidden_size=128, embedding_dropout=0.0, input_dropout=0.0, output_dropout=0.0, weight_drop=0.0,
    subword_embeddings=False, unigram_bias=False,
)  # fmt: skip
EPOCHS = 5
# The highest rate is the one of the configuration, which commands scale down.
LEARNING_RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
FIRST_RATE = LEARNING_RATES.index(1e-3)
FRACTIONS = tuple(number / 10 for number in range(9))  # of dropout and weight drop
NARROW = 66  # columns of the figure below which its sliders are one above the other
LABEL_WIDTH, MIN_PLOT_COLUMNS = 23, 16
VALID, TRAIN, OTHER_VALID, OTHER_TRAIN = "chart--valid", "chart--train", "chart--other-valid", "chart--other-train"
TALL, VERY_TALL = 30, 42  # rows of the terminal from which three samples, and six, are shown


class Curve(NamedTuple):
    """Perplexities over the epochs, none or more."""

    name: str
    style: str
    epochs: Sequence[float]
    perplexities: Sequence[float]


class CurveChart(StripWidget):
    """Curves with their names at the right, over a logarithmic y axis that stays while a curve grows."""

    DEFAULT_CSS = """
    CurveChart { height: 1fr; min-height: 4; padding: 0 1; }
    CurveChart > .chart--valid { color: $accent; text-style: bold; }
    CurveChart > .chart--train { color: $accent 70%; }
    CurveChart > .chart--other-valid { color: $foreground 80%; text-style: bold; }
    CurveChart > .chart--other-train { color: $foreground 60%; }
    CurveChart > .chart--baseline { color: $secondary; }
    CurveChart > .chart--axis { color: $muted; text-style: $muted-style; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        VALID, TRAIN, OTHER_VALID, OTHER_TRAIN, "chart--baseline", "chart--axis",
    }  # fmt: skip

    _curves: tuple[Curve, ...] | None = None

    def show(
        self,
        curves: Sequence[Curve],
        baselines: Sequence[tuple[str, float]],
        num_epochs: float,
        y_range: tuple[float, float],
    ) -> None:
        """Draw curves, and horizontal lines with names; a curve outside of `y_range` runs along its edge."""
        self._curves = tuple(curve for curve in curves if curve.epochs)
        self._baselines = [(f"{name} {format_perplexity(value)}", value) for name, value in baselines]
        self._num_epochs, self._y_range = num_epochs, y_range
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        columns = width - Y_LABEL_WIDTH
        if self._curves is None or height < 3 or columns < MIN_PLOT_COLUMNS:
            return []
        margin = LABEL_WIDTH if columns - LABEL_WIDTH >= MIN_PLOT_COLUMNS else 0
        plot = Plot(width, height, (0.0, self._num_epochs), self._y_range, margin=margin)
        clipped = [(np.clip(np.array(each.perplexities, float), *self._y_range), each) for each in self._curves]
        lines = {each.style: (np.array(each.epochs, float), log10_or_nan(values)) for values, each in clipped}
        plot.draw(lines, self._baselines)
        ends = [(float(values[-1]), each) for values, each in clipped if not math.isnan(values[-1])]
        free_row = 0
        for place, (end, curve) in enumerate(sorted(ends, key=lambda end: -end[0]) if margin else ()):
            row = min(max(plot.row_at(end), free_row), plot.rows - (len(ends) - place))
            if row >= free_row:
                text = f"{curve.name} {format_perplexity(curve.perplexities[-1])}"
                plot.draw_text(row, columns - margin + 1, text.ljust(LABEL_WIDTH - 1), curve.style)
                free_row = row + 1
        return plot.lines(self.component_styles())


class LiveTrainingFigure(ChapterFigure[DataT]):
    """Figure with a training that enter starts and stops, and a drawing `train-line` that says so."""

    DEFAULT_CSS = "LiveTrainingFigure #train-line { height: 1; }"
    BINDING_GROUP_TITLE = "Live training"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-live", "train | enter | toggle_training | train | Start or stop the training", show=True
    )

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.training: TemporaryTraining | None = None  # the current one or the last one
        self.is_training = False
        self._end_note = ""  # why the training was ended before its last epoch

    # Parts that a subclass implements

    def idle_text(self) -> str:
        """Return a note on the training before the first one."""
        raise NotImplementedError

    def make_config(self) -> Config:
        """Return the configuration of a training with the values of the controls."""
        raise NotImplementedError

    def show_training(self) -> None:
        raise NotImplementedError

    def describe_result(self, view: TrainingView) -> str:
        """Return the result of a training that has ended."""
        raise NotImplementedError

    def send_controls(self) -> None:
        """Send the values of controls that change a running training."""

    def make_training(self) -> TemporaryTraining:
        config = self.make_config()
        # The number of threads for matrix products belongs to the process: a training of the session keeps its own.
        return TemporaryTraining(config.with_values(threads=0) if self._session_trains else config)

    @property
    def view(self) -> TrainingView:
        return TrainingView() if self.training is None else self.training.view

    @property
    def _session_trains(self) -> bool:
        is_training: bool = self.app.state.is_training  # type: ignore[attr-defined]
        return is_training

    @property
    def work_in_progress(self) -> str:
        return "training" if self.is_training else ""

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self.is_training

    @on(events.Mount)
    def _create_timer(self) -> None:
        self._poll_timer = self.set_interval(POLL_INTERVAL, self._poll, pause=True)

    @on(Drawing.Clicked, "#train-line")
    def action_toggle_training(self) -> None:
        if self.data is None:
            return
        if self.is_training:
            self._end_training("stopped")
        else:
            self._end_note = ""
            self.training, self.is_training = self.make_training(), True
            self.send_controls()
            if self._session_trains:
                self.show_note("The training of the session runs too, so both are slower.")
            self._poll_timer.resume()
            self.show_training()
        self.show_train_line()

    def _end_training(self, note: str) -> None:
        if self.training is not None and not self._end_note:
            self._end_note = note
            self.training.stop()

    def _poll(self) -> None:
        if self.training is None or not self.is_training:
            return
        new_events, has_ended = self.training.poll()
        if self.training.view.seconds > MAX_SECONDS:
            self._end_training(f"ended after {MAX_SECONDS:.0f} s")
        if has_ended:
            self.is_training = False
            self._poll_timer.pause()
        if new_events or has_ended:
            self.show_training()
            self.show_train_line()

    def show_train_line(self) -> None:
        view = self.view
        if self.is_training:
            valid = view.evaluations[-1].valid_perplexity if view.evaluations else None
            progress = f"epoch {view.epoch:.2f} of {view.epochs}"
            state = f"{progress} · held-out {format_perplexity(valid)} · {view.seconds:.0f} s"
            if view.started is None:
                state = f"{view.activity} … (PyTorch takes 1 to 3 seconds)"
            action = "■ enter", " stops"
        elif self.training is None:
            action, state = ("▶ enter", " trains"), self.idle_text()
        else:
            action = "▶ enter", " trains again"
            state = " · ".join(filter(None, (self._end_note, self.describe_result(view))))
        content = Content.assemble((action[0], "bold $accent"), action[1], (" · ", MUTED), state)
        self.query_one("#train-line", Drawing).show(lambda *_: content)

    @on(events.Unmount)
    async def _close_training(self) -> None:
        self.is_training = False
        if self.training is not None:
            self.training.stop()
            await asyncio.to_thread(self.training.join, CLOSE_TIMEOUT)


@dataclass(frozen=True)
class Baselines:
    """Corpus of the training, and the perplexities of the unigram and the 5-gram model on its held-out text."""

    data: DataConfig
    dataset: Dataset
    unigram: float
    ngram: float


def training_config(data: DataConfig, num_train_tokens: int) -> Config:
    """Return the configuration of the live training; its learning rate is the highest one."""
    return live_config(
        data, num_train_tokens, epochs=EPOCHS, evaluations_per_epoch=4, model=MODEL, lr=LEARNING_RATES[-1]
    )


class TrainingFigure(LiveTrainingFigure[Baselines]):
    """Curve of a live training beside the counting models, and a sample of each evaluation."""

    DEFAULT_CSS = "TrainingFigure Slider { margin: 0 1; max-width: 100%; }"

    def compose_figure(self) -> ComposeResult:
        texts = [f"{rate:.6f}".rstrip("0").rstrip(".") for rate in LEARNING_RATES]
        help_line = "How far each step moves the weights; ← → change it, even while it trains"
        yield Slider("learning rate", texts, FIRST_RATE, help_line=help_line, id="rate")
        yield Drawing("train-line", "Enter or a click starts and stops the training")
        yield CurveChart(id="curves")
        yield Drawing("samples", "What the network writes after each evaluation, always with the same seed")

    def load(self, cancelled: Cancellation) -> Generator[str, None, Baselines]:
        dataset = limit_dataset((yield from self.material.words()))
        yield f"scoring the counting models on {self.material.corpus_name} …"
        unigram = evaluate(Unigram(dataset.train, dataset.tokenizer), dataset.valid).perplexity
        ngram = evaluate(KneserNey(dataset.train, dataset.tokenizer, 5), dataset.valid).perplexity
        return Baselines(self.material.data, dataset, unigram, ngram)

    def show_data(self, data: Baselines) -> None:
        if len(data.dataset.train) == MAX_TRAIN_TOKENS:
            self.show_note(f"The training reads the first {MAX_TRAIN_TOKENS:,} words of {self.material.corpus_name}.")
        self.show_train_line()
        self.show_training()

    def idle_text(self) -> str:
        return "about 20 s; move the rate meanwhile"

    def make_config(self) -> Config:
        assert self.data is not None
        return training_config(self.data.data, len(self.data.dataset.train))

    @on(Slider.Changed)
    def send_controls(self) -> None:
        if self.training is not None and self.is_training:
            rate = LEARNING_RATES[self.query_one(Slider).index]
            self.training.send_command(ControlCommand("lr", f"{rate / LEARNING_RATES[-1]:g}"))

    def show_training(self) -> None:
        assert self.data is not None
        view = self.view
        unigram, ngram, num_epochs = self.data.unigram, self.data.ngram, self.make_config().training.epochs
        if (started := view.started) is not None:
            unigram, ngram, num_epochs = started.unigram_perplexity, started.kneser_ney_perplexity, started.epochs
        evaluations, scores = view.evaluations, {} if self.training is None else self.training.train_scores
        scored = [each for each in evaluations if each.step in scores]
        # The training text is scored like the held-out text, so that their curves can be compared.
        curves = (
            Curve("train", TRAIN, [each.epoch for each in scored], [scores[each.step] for each in scored]),
            Curve("held-out", VALID, [e.epoch for e in evaluations], [e.valid_perplexity for e in evaluations]),
        )
        y_range = 0.75 * min(unigram, ngram), 3 * max(unigram, ngram)
        baselines = ("unigram", unigram), ("5-gram", ngram)
        self.query_one(CurveChart).show(curves, baselines, num_epochs, y_range)
        samples = view.samples

        def paint_samples(width: int, _: int) -> Content:
            height = self.app.size.height
            num_lines = 6 if height >= VERY_TALL else 3 if height >= TALL else 1
            lines = [] if samples else [Content.styled("writes   a sentence after each evaluation", MUTED)]
            for sample in samples[-num_lines:]:
                text = " ".join(displayable(f"{sample.prompt} {sample.text}").split())
                lines.append(Content.assemble((f"{sample.epoch:6.2f}   ", MUTED), truncate(text, width - 9)))
            return Content("\n").join([*lines, *[Content("")] * (num_lines - len(lines))])  # some are to come

        self.query_one("#samples", Drawing).show(paint_samples)
        for part, is_done in enumerate(judge(view)):
            if is_done:
                self.finish_part(part)

    def describe_result(self, view: TrainingView) -> str:
        if view.best is None:
            return view.failure
        best = f"best {format_perplexity(view.best.valid_perplexity)}"
        match judge(view):
            case Verdict(has_jumped=True, beats_ngram=True):
                return f"{best} before the loss jumped"
            case Verdict(has_jumped=True):
                return "too fast: the loss has jumped"
            case Verdict(is_too_slow=True):
                return "too slow: still above the unigram model"
            case Verdict(beats_ngram=True):
                return f"{best}: below the 5-gram model"
        before, last = ([math.inf] + [event.valid_perplexity for event in view.evaluations])[-2:]
        is_falling = math.isfinite(before) and last < 0.99 * before
        return f"{best}{', falling' if is_falling else ''}: above the 5-gram model"


class PreparedRun(NamedTuple):
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
    """

    def compose_figure(self) -> ComposeResult:
        texts, what = [f"{fraction:.1f}" for fraction in FRACTIONS], "hidden at each step of the next training"
        with Container(id="settings"):
            yield Slider("dropout", texts, help_line=f"Fraction of inputs and outputs {what}", id="dropout")
            yield Slider("weight drop", texts, help_line=f"Fraction of recurrent weights {what}", id="weight-drop")
            help_line = "One matrix for the first and the last layer of the next training"
            yield Slider("tied", ["no", "yes"], help_line=help_line, id="tie")
        yield Drawing("train-line", "Enter or a click starts and stops the training")
        yield CurveChart(id="curves")
        yield Drawing("gaps")

    def load(self, cancelled: Cancellation) -> Generator[str, None, PreparedRun]:
        dataset, data = limit_dataset((yield from self.material.words())), self.material.data
        curves = yield from load_overfitting_run(data, dataset, cancelled)
        epochs = overfitting_config(data, len(dataset.train), Regularization()).training.epochs
        return PreparedRun(data, dataset, curves, epochs)

    def show_data(self, data: PreparedRun) -> None:
        self.show_train_line()
        self.show_training()

    def on_resize(self) -> None:
        self.set_class(self.size.width < NARROW, "-narrow")

    @property
    def setting(self) -> Regularization:
        index = {str(slider.id): slider.index for slider in self.query(Slider)}
        return Regularization(FRACTIONS[index["dropout"]], FRACTIONS[index["weight-drop"]], bool(index["tie"]))

    @on(Slider.Changed)
    def _show_setting(self) -> None:
        if self.data is not None:
            self.show_train_line()

    def idle_text(self) -> str:
        is_same = self.setting == Regularization()
        return "the same run once more; regularize it first" if is_same else "about 25 seconds, with these settings"

    def make_config(self) -> Config:
        assert self.data is not None
        return overfitting_config(self.data.data, len(self.data.dataset.train), self.setting)

    def show_training(self) -> None:
        assert self.data is not None
        prepared, live, setting = self.data.curves, RunCurves(), None
        if self.training is not None:
            model = self.training.config.model
            live = RunCurves.from_evaluations(self.view.evaluations, self.training.train_scores)
            setting = Regularization(model.output_dropout, model.weight_drop, model.tie_weights)
        curves = []
        for name, run, styles in (("without", prepared, (OTHER_TRAIN, OTHER_VALID)), ("yours", live, (TRAIN, VALID))):
            curves.append(Curve(f"{name} train", styles[0], run.epochs, run.train))
            curves.append(Curve(f"{name} held-out", styles[1], run.epochs, run.valid))
        y_range = 0.85 * min(prepared.train), 1.8 * max(prepared.best, prepared.valid[-1])
        self.query_one(CurveChart).show(curves, (), self.data.num_epochs, y_range)
        self.query_one("#gaps", Drawing).show(lambda width, _: describe_gaps(prepared, live, setting, width))
        if live.valid and live.best < prepared.best:
            self.finish_part(0)

    def describe_result(self, view: TrainingView) -> str:
        assert self.data is not None
        assert self.training is not None
        live = RunCurves.from_evaluations(view.evaluations, self.training.train_scores)
        if not live.valid:
            return view.failure
        verdict = "better" if live.best < self.data.curves.best else "no better"
        return f"best {format_perplexity(live.best)}: {verdict} than without"


def describe_gaps(prepared: RunCurves, live: RunCurves, setting: Regularization | None, width: int) -> Content:
    """Return a table with the perplexities of both runs at the end, their gap, the best one, and their settings.

    `setting` is the one of the live run, None before the first one. The last columns are left out if need be.
    """
    columns = ("train", "held-out", "gap", "best", "dropout", "weight drop", "tied")
    widths = [9] * 4 + [len(column) + 2 for column in columns[4:]]
    while 8 + sum(widths) > width and len(widths) > 4:
        widths.pop()

    def row(name: str, texts: Sequence[str], styles: Sequence[str]) -> Content:
        cells = [text.rjust(cell_width) for text, cell_width in zip(texts, widths, strict=False)]
        return Content.assemble((f"{name:8}", styles[-1]), *zip(cells, styles, strict=False))

    lines = [row("", columns, [MUTED] * 8)]
    for name, run, used in (("without", prepared, Regularization()), ("yours", live, setting)):
        texts = ["·"] * len(columns)
        if run.epochs:
            train, valid = run.train[-1], run.valid[-1]
            texts[:4] = [format_perplexity(value) for value in (train, valid, valid - train, run.best)]
        if used is not None:
            texts[4:] = [f"{used.dropout:.1f}", f"{used.weight_drop:.1f}", "yes" if used.tie_weights else "no"]
        lines.append(row(name, texts, ["", "", "bold", "", MUTED, MUTED, MUTED, "$accent" if run is live else ""]))
    return Content("\n").join(lines)
