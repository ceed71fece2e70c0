"""Figures with a live training: the learning rate beside the counting models, and dropout beside a run without."""

import asyncio
import math
from collections.abc import Generator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.strip import Strip

from engine.analysis.evaluation import evaluate
from engine.config import Config, ModelConfig
from engine.errors import LotrError, describe_error
from engine.events import Failed
from engine.models.ngram import KneserNey, Unigram
from engine.runtime.process import Cancellation
from lotr_tui.app_state import OpenSession
from lotr_tui.background_task import run_in_thread
from lotr_tui.formatting import MISSING, bar, displayable, fit_cells, format_percent, format_perplexity, truncate
from lotr_tui.learn import live_training
from lotr_tui.learn.live_training import STRENGTHS, Character, Regularization, RunCurves, Verdict
from lotr_tui.monitor.training_view import TrainingView, log10_or_nan
from lotr_tui.screens.learn.figure import ChapterFigure, DataT, Drawing
from lotr_tui.theme import MUTED
from lotr_tui.widgets.charts import Y_LABEL_WIDTH, Plot
from lotr_tui.widgets.drawing import StripWidget
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.slider import Slider

Range = tuple[float, float]
CLOSE_TIMEOUT = 1.0  # seconds to wait for the end of the training, after its current step, when the chapter is left
MAX_SECONDS = 60.0  # of training on a slow computer
# A small LSTM that begins with equally likely words, and not with their frequencies. On two cores, the five epochs take
# 14 seconds. Measured on the bundled dialogues, up to 0.0001 is worse than the unigram model after two epochs, 0.0003
# and 0.001 end between the counting models, 0.003 to 0.03 pass the 5-gram model, and 0.3 and 1 make the loss jump.
MODEL = ModelConfig(
    embedding_size=128, hidden_size=128, embedding_dropout=0.0, input_dropout=0.0, output_dropout=0.0, weight_drop=0.0,
    subword_embeddings=False, unigram_bias=False,
)  # fmt: skip
LEARNING_RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
FIRST_RATE = LEARNING_RATES.index(1e-3)
# With 0.001 and two epochs, strengths of 1 and 1.25 were measured to reach the goal: 0.73 and 0.79, 34 and 37 % more.
ADAPTER_RATES = (0.0002, 0.001, 0.004)
MIN_LIKENESS, MAX_RISE = 0.5, 0.4  # goal: probability of the character, and rise of the bits
FRACTIONS = tuple(number / 10 for number in range(9))  # of dropout and weight drop
LABEL_WIDTH, MIN_PLOT_COLUMNS = 23, 16
VALID, TRAIN, OTHER_VALID, OTHER_TRAIN = "chart--valid", "chart--train", "chart--other-valid", "chart--other-train"


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
    COMPONENT_CLASSES: ClassVar = {VALID, TRAIN, OTHER_VALID, OTHER_TRAIN, "chart--baseline", "chart--axis"}
    _curves: tuple[Curve, ...] | None = None

    def show(
        self, curves: Sequence[Curve], baselines: Sequence[tuple[str, float]], num_epochs: float, y_range: Range
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

    DEFAULT_CSS = """
    LiveTrainingFigure #train-line { height: 1; }
    LiveTrainingFigure #settings { layout: vertical; height: 3; padding: 0 1; }
    LiveTrainingFigure #settings Slider { min-width: 16; margin-right: 2; }
    LiveTrainingFigure #settings Slider:last-child { margin-right: 0; }
    LiveTrainingFigure.-wide #settings { layout: horizontal; height: 1; }
    """
    LAYOUTS: ClassVar = {"-wide": (66, 0)}
    BINDING_GROUP_TITLE = "Live training"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-live",
        """
        train | enter         | toggle_training | train | Start or stop the training
        stop  | escape,ctrl+c | stop_training   | stop  | Stop the training
        play  | p             | play            | play  | Keep the model as a run, and talk to it in a session
        """,
        show=True,
    )
    POLL_INTERVAL: ClassVar[float] = 0.05
    training: live_training.LiveTraining | None = None  # the current one or the last one
    character: Character | None = None  # who is learned, once it is loaded; None for a corpus
    _end_note = ""  # why the training was ended before its last epoch

    # Parts that a subclass implements

    def make_config(self) -> Config:
        """Return the configuration of a training with the values of the controls."""
        raise NotImplementedError

    def show_training(self, view: TrainingView) -> str:
        """Show a training; return its result once it has ended, or a note before the first one."""
        raise NotImplementedError

    @property
    def is_training(self) -> bool:
        return self.is_loaded and self.work.is_running

    @on(events.Click, "#train-line")
    def action_toggle_training(self) -> None:
        if self.is_training:
            self.action_stop_training()
            return
        config = self.make_config()
        if self.app.state.is_training:  # type: ignore[attr-defined]
            # The number of threads for matrix products belongs to the process: that training keeps its own.
            config = config.with_values(threads=0)
            self.show_note("The training of the session runs too, so both are slower.")
        self.training, self._end_note = live_training.LiveTraining(config, self.character), ""
        self.work.start(self.training.events)
        self.show_view()
        self.screen.refresh_bindings()

    def action_stop_training(self, note: str = "stopped") -> None:
        self._end_note = self._end_note or note
        self.work.stop()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "play":
            return self.training is not None and self.training.has_model and not self.is_training
        return self.is_training if action == "stop_training" else self.is_loaded

    @work(exclusive=True, group="play")
    async def action_play(self) -> None:
        assert self.training is not None
        runs_dir = self.app.state.runs_dir  # type: ignore[attr-defined]
        try:
            model = await run_in_thread(self.training.save, runs_dir)
        except LotrError as error:
            self.notify(str(error), severity="error", markup=False)
        else:
            for slider in self.query("#strength").results(Slider):
                model = model.with_strengths(dict.fromkeys(model.strengths, STRENGTHS[slider.index]))
            self.post_message(OpenSession(model))

    def receive(self, items: list[Any]) -> None:
        assert self.training is not None
        for event in items:
            self.training.view.apply(event)
        if self.training.view.seconds > MAX_SECONDS:
            self.action_stop_training(f"ended after {MAX_SECONDS:.0f} s")
        self.show_view()

    def show_failure(self, error: BaseException) -> None:
        if self.training is None:
            super().show_failure(error)
        else:
            self.receive([Failed(describe_error(error))])

    def show_view(self) -> None:
        view = TrainingView() if self.training is None else self.training.view
        result = self.show_training(view)
        if self.is_training:
            valid = view.evaluations[-1].valid_perplexity if view.evaluations else None
            progress = f"epoch {view.epoch:.2f} of {view.epochs}"
            result = f"{progress} · held-out perplexity {format_perplexity(valid)} · {view.seconds:.0f} s"
            if view.started is None:
                result = f"{view.activity} … (PyTorch takes 1 to 3 seconds)"
            action = "■ enter", " stops"
        else:
            action = "▶ enter", " trains" if self.training is None else " trains again"
            result = " · ".join(filter(None, (self._end_note, result)))
        content = Content.assemble((action[0], "bold $accent"), action[1], (" · ", MUTED), result)
        self.query_one("#train-line", Drawing).show(content)

    @on(events.Unmount)
    async def _close_training(self) -> None:
        self.work.cancel()
        if self.training is not None:
            await asyncio.to_thread(self.training.has_ended.wait, CLOSE_TIMEOUT)


class Baselines(NamedTuple):
    num_train_tokens: int
    unigram: float  # perplexities on the held-out text
    ngram: float


class TrainingFigure(LiveTrainingFigure[Baselines]):
    """Curve of a live training beside the counting models, and a sample of each evaluation."""

    DEFAULT_CSS = """
    TrainingFigure Slider { margin: 0 1; max-width: 100%; }
    TrainingFigure #samples { height: 1; }
    TrainingFigure.-tall #samples { height: 3; }
    TrainingFigure.-taller #samples { height: 6; }
    """
    LAYOUTS: ClassVar = {"-tall": (0, 24), "-taller": (0, 36)}

    def compose_figure(self) -> ComposeResult:
        texts = [f"{rate:.6f}".rstrip("0").rstrip(".") for rate in LEARNING_RATES]
        help_line = "How far each step moves the weights; ← → change it, even while it trains"
        yield Slider("learning rate", texts, FIRST_RATE, help_line=help_line, id="rate")
        yield Drawing(id="train-line")
        yield CurveChart(id="curves")
        yield Drawing(id="samples")

    def load(self, cancelled: Cancellation) -> Generator[str, None, Baselines]:
        dataset = live_training.limit_dataset((yield from self.material.words()))
        yield f"scoring the counting models on {self.material.corpus_name} …"
        unigram = evaluate(Unigram(dataset.train, dataset.tokenizer), dataset.valid).perplexity
        ngram = evaluate(KneserNey(dataset.train, dataset.tokenizer, 5), dataset.valid).perplexity
        return Baselines(len(dataset.train), unigram, ngram)

    def set_up(self) -> None:
        most = live_training.MAX_TRAIN_TOKENS
        if self.data.num_train_tokens == most:
            self.show_note(f"The training reads the first {most:,} words of {self.material.corpus_name}.")

    def make_config(self) -> Config:
        """Return the configuration with the highest learning rate, which commands scale down."""
        return live_training.live_config(
            self.material.data, self.data.num_train_tokens, epochs=5, evaluations_per_epoch=4, model=MODEL,
            lr=LEARNING_RATES[-1],
        )  # fmt: skip

    def show_training(self, view: TrainingView) -> str:
        unigram, ngram, num_epochs = self.data.unigram, self.data.ngram, self.make_config().training.epochs
        scores = self.training.train_scores if self.training else {}
        if self.training and self.is_training:
            self.training.scale_lr(LEARNING_RATES[self.query_one(Slider).index] / LEARNING_RATES[-1])
        if (started := view.started) is not None:
            unigram, ngram, num_epochs = started.unigram_perplexity, started.kneser_ney_perplexity, started.epochs
        evaluations, samples = view.evaluations, view.samples
        scored = [each for each in evaluations if each.step in scores]
        # The training text is scored like the held-out text, so that their curves can be compared.
        curves = (
            Curve("train", TRAIN, [each.epoch for each in scored], [scores[each.step] for each in scored]),
            Curve("held-out", VALID, [e.epoch for e in evaluations], [e.valid_perplexity for e in evaluations]),
        )
        y_range = 0.75 * min(unigram, ngram), 3 * max(unigram, ngram)
        baselines = ("unigram", unigram), ("5-gram", ngram)
        self.query_one(CurveChart).show(curves, baselines, num_epochs, y_range)

        def paint_samples(width: int, height: int) -> Content:
            lines = [] if samples else [Content.styled("writes   a sentence after each evaluation", MUTED)]
            for sample in samples[-height:]:
                text = " ".join(displayable(f"{sample.prompt} {sample.text}").split())
                lines.append(Content.assemble((f"{sample.epoch:6.2f}   ", MUTED), truncate(text, width - 9)))
            return Content("\n").join(lines)

        self.query_one("#samples", Drawing).show(paint_samples)
        verdict = live_training.judge(view)
        for part, is_done in enumerate(verdict):
            if is_done:
                self.finish_part(part)
        if view.best is None:
            return view.failure if self.training else "about 20 s; move the rate meanwhile"
        best = f"best {format_perplexity(view.best.valid_perplexity)}"
        match verdict:
            case Verdict(has_jumped=True, beats_ngram=True):
                return f"{best} before the loss jumped"
            case Verdict(has_jumped=True):
                return "too fast: the loss has jumped"
            case Verdict(is_too_slow=True):
                return "too slow: still above the unigram model"
            case Verdict(beats_ngram=True):
                return f"{best}: below the 5-gram model"
        before, last = ([math.inf] + [event.valid_perplexity for event in evaluations])[-2:]
        is_falling = math.isfinite(before) and last < 0.99 * before
        return f"{best}{', falling' if is_falling else ''}: above the 5-gram model"


class FineTuningFigure(LiveTrainingFigure[Character]):
    """Likeness of answers to a character at each strength of an adapter, and the answers at one."""

    DEFAULT_CSS = """
    FineTuningFigure #answers { height: 1fr; }
    FineTuningFigure.-wide #rate { width: 28fr; }
    FineTuningFigure.-wide #epochs { width: 18fr; }
    FineTuningFigure.-wide #strength { width: 22fr; }
    """
    LAYOUTS: ClassVar = {"-wide": (74, 0)}

    def compose_figure(self) -> ComposeResult:
        rates, strengths = [f"{rate:g}" for rate in ADAPTER_RATES], [f"{strength:.2f}" for strength in STRENGTHS]
        with Container(id="settings"):
            yield Slider("learning rate", rates, help_line="Learning rate of the next training; ← → set it", id="rate")
            yield Slider("epochs", list("1234"), help_line="Times that the next training reads the lines", id="epochs")
            yield Slider("strength", strengths, 4, help_line="How much of the adapter; ← → set it", id="strength")
        yield Drawing(id="train-line")
        yield Drawing(id="answers")

    def load(self, cancelled: Cancellation) -> Generator[str, None, Character]:
        self.character = yield from live_training.load_character()
        return self.character

    def make_config(self) -> Config:
        rate, epochs = (self.query_one(f"#{name}", Slider).index for name in ("rate", "epochs"))
        return self.data.config.with_values(lr=ADAPTER_RATES[rate], epochs=epochs + 1, eval_every_epochs=epochs + 1)

    def show_training(self, view: TrainingView) -> str:
        answers, chosen = self.training.answers if self.training else [], self.query_one("#strength", Slider).index
        rises = [each.bits_per_character / answers[0].bits_per_character - 1 for each in answers]

        def paint(width: int, height: int) -> Content:
            room, lines = max(4, width - 42), list[Content]()
            for index, (each, rise) in enumerate(zip(answers, rises, strict=True)):
                like = f"{fit_cells(bar(each.likeness, room), room)}{format_percent(each.likeness):>8}"
                mark, style = ("▸", "bold $accent") if index == chosen else (" ", "")
                text = f"{mark}{STRENGTHS[index]:8.2f}  {like}{each.bits_per_character:12.2f}{rise:+9.0%}"
                lines.append(Content.styled(text, style))
            lines.insert(0, Content.styled(f" strength  {'like Gollum':<{room + 8}}   bits/character", MUTED))
            if is_low := height < 2 * len(STRENGTHS):  # no room for rows: a column for each
                columns = [f"{'▸' if index == chosen else ' '}{each:.2f}" for index, each in enumerate(STRENGTHS)]
                likeness = [format_percent(each.likeness) for each in answers]
                bits = [f"{each.bits_per_character:.2f}" for each in answers]
                changes = [f"{rise:+.0%}" for rise in rises]
                rows = ("strength", columns), ("like Gollum", likeness), ("bits/char", bits), ("", changes)
                lines = [Content(f" {name:<11}{''.join(map('{:>7}'.format, row))}") for name, row in rows]
            for each in answers[chosen : chosen + 1]:
                pairs = zip(live_training.QUESTIONS, map(displayable, each.texts), strict=True)
                said = [Content.assemble((question, MUTED), text) for question, text in pairs]
                wrapped = [part.wrap(width) for part in ([Content("  ").join(said)] if is_low else said)]
                free = max(0, height - len(lines) - len(wrapped))
                for parts in wrapped:  # a cut answer ends with an ellipsis: its last line is too long
                    shown, free = min(len(parts), free + 1), max(0, free + 1 - len(parts))
                    lines += [*parts[: shown - 1], Content(" ").join(parts[shown - 1 :])]
            return Content("\n").join(lines[:height])

        self.query_one("#answers", Drawing).show(paint)
        if chosen >= len(answers):
            return view.failure if self.training else "10 to 20 seconds for each epoch"
        is_like, holds = answers[chosen].likeness >= MIN_LIKENESS, rises[chosen] <= MAX_RISE
        if is_like and holds:
            self.finish_part(0)
        return f"{'Gollum' if is_like else 'hardly Gollum'}, {'and the language holds' if holds else 'broken language'}"


class PreparedRun(NamedTuple):
    num_train_tokens: int
    curves: RunCurves


class OverfittingFigure(LiveTrainingFigure[PreparedRun]):
    """Curves of the training and the held-out text for two runs, and the gap between them."""

    def compose_figure(self) -> ComposeResult:
        texts, what = [f"{fraction:.1f}" for fraction in FRACTIONS], "hidden at each step of the next training"
        with Container(id="settings"):
            yield Slider("dropout", texts, help_line=f"Fraction of inputs and outputs {what}", id="dropout")
            yield Slider("weight drop", texts, help_line=f"Fraction of recurrent weights {what}", id="weight-drop")
            help_line = "One matrix for the first and the last layer of the next training"
            yield Slider("tied", ["no", "yes"], help_line=help_line, id="tie")
        yield Drawing(id="train-line")
        yield CurveChart(id="curves")
        yield Drawing(id="gaps")

    def load(self, cancelled: Cancellation) -> Generator[str, None, PreparedRun]:
        dataset = live_training.limit_dataset((yield from self.material.words()))
        curves = yield from live_training.load_overfitting_run(self.material.data, dataset, cancelled)
        return PreparedRun(len(dataset.train), curves)

    @property
    def setting(self) -> Regularization:
        index = {str(slider.id): slider.index for slider in self.query(Slider)}
        return Regularization(FRACTIONS[index["dropout"]], FRACTIONS[index["weight-drop"]], bool(index["tie"]))

    def make_config(self) -> Config:
        return live_training.overfitting_config(self.material.data, self.data.num_train_tokens, self.setting)

    def show_training(self, view: TrainingView) -> str:
        prepared, live, used = self.data.curves, RunCurves(), None
        if self.training is not None:
            model = self.training.config.model
            live = RunCurves.from_evaluations(view.evaluations, self.training.train_scores)
            used = Regularization(model.output_dropout, model.weight_drop, model.tie_weights)
        curves = []
        for name, run, styles in (("without", prepared, (OTHER_TRAIN, OTHER_VALID)), ("yours", live, (TRAIN, VALID))):
            curves.append(Curve(f"{name} train", styles[0], run.epochs, run.train))
            curves.append(Curve(f"{name} held-out", styles[1], run.epochs, run.valid))
        y_range = 0.85 * min(prepared.train), 1.8 * max(prepared.best, prepared.valid[-1])
        self.query_one(CurveChart).show(curves, (), self.make_config().training.epochs, y_range)
        table = gap_table([("without", prepared, Regularization()), ("yours", live, used)])
        self.query_one("#gaps", Drawing).show(table)
        is_better = bool(live.valid) and live.best < prepared.best
        if is_better:
            self.finish_part(0)
        if self.training is None:
            is_same = self.setting == Regularization()
            return "the same run once more; regularize it first" if is_same else "about 25 seconds, with these settings"
        verdict = "better" if is_better else "no better"
        return f"best {format_perplexity(live.best)}: {verdict} than without" if live.valid else view.failure


def gap_table(rows: Sequence[tuple[str, RunCurves, Regularization | None]]) -> Content:
    """Return the perplexities of runs at their end, the gap, and the best one, and the setting if the run has begun."""
    widths = {"train": 9, "held-out": 9, "gap": 9, "best": 9, "dropout": 9, "weight drop": 13, "tied": 6}
    lines = [Content.styled(" " * 8 + "".join(name.rjust(width) for name, width in widths.items()), MUTED)]
    for name, run, used in rows:
        texts = [MISSING] * len(widths)
        if run.epochs:
            train, valid = run.train[-1], run.valid[-1]
            texts[:4] = [format_perplexity(value) for value in (train, valid, valid - train, run.best)]
        if used is not None:
            texts[4:] = [f"{used.dropout:.1f}", f"{used.weight_drop:.1f}", "yes" if used.tie_weights else "no"]
        cells = [text.rjust(width) for text, width in zip(texts, widths.values(), strict=True)]
        name_style = "$accent" if name == "yours" else ""
        lines.append(Content.assemble((f"{name:8}", name_style), *cells[:2], (cells[2], "bold"), *cells[3:]))
    return Content("\n").join(lines)
