"""Figure of the chapter on training: a live training with a learning rate to move, and the window that it reads."""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult

from engine.analysis.evaluation import evaluate
from engine.config import Config, DataConfig, ModelConfig
from engine.control import ControlCommand
from engine.data.dataset import Dataset
from engine.events import TrainingEvent
from engine.models.ngram import KneserNey, Unigram
from engine.runtime.worker import Cancellation
from lotr_tui.formatting import format_perplexity
from lotr_tui.learn.live_training import MAX_TRAIN_TOKENS, TemporaryTraining, TrainScore, limit_dataset, live_config
from lotr_tui.learn.material import Material
from lotr_tui.learn.training_verdict import Verdict, judge
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.learn.curve_chart import TRAIN, VALID, ChartData, Curve, CurveChart
from lotr_tui.screens.learn.live_figure import LiveTrainingFigure, TrainLine
from lotr_tui.screens.learn.window_text import SampleLines, WindowText
from lotr_tui.widgets.slider import Slider

MODEL = ModelConfig(
    embedding_size=128, hidden_size=128, embedding_dropout=0.0, input_dropout=0.0, output_dropout=0.0, weight_drop=0.0,
    subword_embeddings=False, unigram_bias=False,
)  # fmt: skip
"""A small LSTM that begins with equally likely words, and not with their frequencies.

On two cores, the five epochs take 14 seconds. Measured on the bundled dialogues, up to 0.0001 is worse than the unigram
model after two epochs, 0.0003 and 0.001 end between the counting models, 0.003 to 0.03 pass the 5-gram model, 0.1 stays
above it, and 0.3 and 1 make the loss jump in the first steps.
"""
EPOCHS = 5
EVALUATIONS_PER_EPOCH = 4
LEARNING_RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Learning rates of the slider. The highest one is the rate of the configuration, which commands scale down."""
FIRST_RATE = LEARNING_RATES.index(1e-3)
ORDER = 5
FALL_RATIO = 0.99
"""A curve below this ratio of the evaluation before is falling."""
LABEL_WIDTH = 17


@dataclass(frozen=True)
class Baselines:
    """Corpus of the training, and the counting models that it is compared with."""

    data: DataConfig
    dataset: Dataset
    unigram: float
    """Perplexity of the unigram model on the held-out text."""
    ngram: float
    """Perplexity of the 5-gram Kneser-Ney model on it."""


def training_config(data: DataConfig, num_train_tokens: int) -> Config:
    """Return the configuration of the live training; its learning rate is the highest one."""
    return live_config(
        data, num_train_tokens, epochs=EPOCHS, evaluations_per_epoch=EVALUATIONS_PER_EPOCH, model=MODEL,
        lr=LEARNING_RATES[-1],
    )  # fmt: skip


class TrainingFigure(LiveTrainingFigure[Baselines]):
    """Curve of a live training beside the counting models, a sample of each evaluation, and the current window."""

    DEFAULT_CSS = """
    TrainingFigure Slider { margin: 0 1; max-width: 100%; }
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._sent_rate = -1
        """Index of the learning rate that was sent to the training last; -1 before the first one."""

    def compose_figure(self) -> ComposeResult:
        """Yield the learning rate, the line of the training, the curve, the samples and the window."""
        yield Slider(
            "learning rate",
            [format_rate(rate) for rate in LEARNING_RATES],
            FIRST_RATE,
            help_line="How far each step moves the weights; ← → change it, even while it trains",
            id="rate",
        )
        yield TrainLine(id="train-line")
        yield CurveChart(LABEL_WIDTH, id="curves")
        yield SampleLines(id="samples")
        yield WindowText(id="window")

    def load(self, cancelled: Cancellation) -> Generator[str, None, Baselines]:
        """Score the counting models on the held-out text."""
        words = yield from self.material.words()
        dataset = limit_dataset(words)
        yield f"scoring the counting models on {self.material.corpus_name} …"
        unigram = evaluate(Unigram(dataset.train, dataset.tokenizer), dataset.valid).perplexity
        if len(dataset.train) == len(words.train):
            kneser_ney = yield from self.material.counts(ORDER)
        else:
            kneser_ney = KneserNey(dataset.train, dataset.tokenizer, ORDER)
        return Baselines(self.material.data, dataset, unigram, evaluate(kneser_ney, dataset.valid).perplexity)

    def show_data(self, data: Baselines) -> None:
        """Show the counting models and the first window."""
        if len(data.dataset.train) == MAX_TRAIN_TOKENS:
            self.show_note(f"The training reads the first {MAX_TRAIN_TOKENS:,} words of {self.material.corpus_name}.")
        self.show_train_line()
        self.show_training([])

    # Training

    @property
    def idle_text(self) -> str:
        """Text of the line before the first training."""
        return "about 20 s; move the rate meanwhile"

    def make_training(self) -> TemporaryTraining:
        """Train from random weights with the learning rate of the slider."""
        assert self.data is not None
        self._sent_rate = -1
        training = self.start_thread(training_config(self.data.data, len(self.data.dataset.train)), scores_train=True)
        self._send_rate(training)
        return training

    def _send_rate(self, training: TemporaryTraining) -> None:
        """Send the learning rate of the slider to a training, which uses it from its next step on."""
        index = self.query_one(Slider).index
        if index != self._sent_rate:
            self._sent_rate = index
            training.send_command(ControlCommand("lr", f"{LEARNING_RATES[index] / LEARNING_RATES[-1]:g}"))

    @on(Slider.Changed)
    def _change_rate(self) -> None:
        """Change the learning rate of a training that runs."""
        if self.training is not None and self.is_training:
            self._send_rate(self.training)

    @property
    def verdict(self) -> Verdict:
        """Verdict on the current training, or on the last one."""
        return Verdict() if self.training is None else judge(self.training.view)

    def show_training(self, new_events: Sequence[TrainingEvent]) -> None:
        """Show curve, sample and window, and report which part of the task the training has done."""
        assert self.data is not None
        data = self.data
        view = TrainingView() if self.training is None else self.training.view
        train_scores = () if self.training is None else self.training.train_scores
        config = training_config(data.data, len(data.dataset.train))
        self.query_one(CurveChart).show(chart_data(view, train_scores, data, config.training.epochs))
        self.query_one(SampleLines).show(view.samples)
        self.query_one(WindowText).show(data.dataset, config.training, max(1, view.step))
        verdict = self.verdict
        for part, is_done in enumerate((verdict.is_too_slow, verdict.has_jumped, verdict.beats_ngram)):
            if is_done:
                self.finish_part(part)
        if verdict.is_hopeless:
            self.end_training("")

    def describe_result(self, view: TrainingView) -> str:
        """Return the best perplexity, and why the training is too fast, too slow or good."""
        if view.best is None:
            return view.failure
        verdict, best = self.verdict, format_perplexity(view.best.valid_perplexity)
        ended = "ended, since " if verdict.is_hopeless else ""
        if verdict.has_jumped:
            has_been_good = verdict.beats_ngram
            return f"best {best} before the loss jumped" if has_been_good else f"{ended}too fast: the loss has jumped"
        if verdict.is_too_slow:
            return f"{ended}too slow: still above the unigram model"
        if verdict.beats_ngram:
            return f"best {best}: below the 5-gram model"
        before, last = ([math.inf] + [event.valid_perplexity for event in view.evaluations])[-2:]
        is_falling = math.isfinite(before) and last < FALL_RATIO * before
        return f"best {best}{', falling' if is_falling else ''}: above the 5-gram model"


def chart_data(view: TrainingView, train_scores: Sequence[TrainScore], data: Baselines, num_epochs: int) -> ChartData:
    """Return the curves of a training and the lines of the counting models.

    The training text is scored like the held-out text, so that their curves can be compared: the loss of a few steps
    depends more on their text.
    """
    unigram, ngram = data.unigram, data.ngram
    if view.started is not None:
        unigram, ngram, num_epochs = (
            view.started.unigram_perplexity, view.started.kneser_ney_perplexity, view.started.epochs,
        )  # fmt: skip
    curves = [
        Curve(
            "train", TRAIN, [score.epoch for score in train_scores],
            [score.train_perplexity for score in train_scores],
        ),
        Curve(
            "held-out", VALID, [event.epoch for event in view.evaluations],
            [event.valid_perplexity for event in view.evaluations],
        ),
    ]  # fmt: skip
    y_range = (0.75 * min(unigram, ngram), 3 * max(unigram, ngram))
    return ChartData(
        tuple(curve for curve in curves if curve.epochs), (("unigram", unigram), ("5-gram", ngram)), num_epochs, y_range
    )


def format_rate(rate: float) -> str:
    """Return a learning rate without an exponent, such as 0.003."""
    return f"{rate:.6f}".rstrip("0").rstrip(".")
