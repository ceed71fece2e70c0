"""Short trainings that a chapter runs while the student watches, and the prepared one without regularization."""

import json
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.analysis.evaluation import evaluate
from engine.config import Config, DataConfig, ModelConfig, TrainingConfig
from engine.data.dataset import Dataset
from engine.errors import CorpusError, InvalidInputError, RunError
from engine.events import Evaluated
from engine.models.base import LanguageModel
from engine.runtime.process import Cancellation
from engine.storage.files import decode, parse_json, read_limited, write_atomically
from lotr_tui.learn.class_models import class_models_dir, follow_training
from lotr_tui.monitor.local_training import LocalTraining, TrainingUpdate
from lotr_tui.monitor.training_view import TrainingView

if TYPE_CHECKING:
    from engine.training.job import TrainingJob

TEMPORARY_PREFIX, RUN_NAME = "lotr-tui-class-", "live"
MIN_TRAIN_TOKENS = 2000
MAX_TRAIN_TOKENS, MAX_VALID_TOKENS = 120_000, 14_000  # a live training ends within half a minute
# Pieces of the training text that `train_perplexity` scores. A step reads the same place of 20 rows, so the pieces lie
# at different places of their rows: otherwise, they would all have been read just now, or all long ago.
NUM_PIECES, PIECE_LENGTH = 7, 600
MAX_EPOCHS = 60
OVERFITTING_FILE, MAX_FILE_BYTES = "overfitting.json", 1_000_000
# A perplexity this many times the lowest one before is a jump; other text alone may make it 1.6 times as high.
JUMP_RATIO = 3.0
SLOW_FRACTION = 0.4  # a network that predicts worse than word frequencies after this part of the training is too slow


def live_config(
    data: DataConfig, num_train_tokens: int, *, epochs: int, evaluations_per_epoch: int, model: ModelConfig, lr: float
) -> Config:
    """Return the configuration of a live training with a constant learning rate.

    `epochs` and `evaluations_per_epoch` are for a text of `MAX_TRAIN_TOKENS`; a shorter one is read more often, so that
    there are as many steps. The lines keep their order, so that the place of each window is known, and one thread
    trains: two are hardly faster for a network of this size, and much slower where another program needs the second.
    """
    training = TrainingConfig(
        batch_size=20, bptt=25, shuffle_lines=False, schedule="constant", lr=lr, weight_decay=0.01, averaging="none",
        max_eval_tokens=MAX_VALID_TOKENS, checkpoint_seconds=0.0, keep_epoch_checkpoints=False, device="cpu",
        precision="fp32", threads=1,
    )  # fmt: skip
    steps = max(1, steps_per_epoch(num_train_tokens, training))
    repeats = max(1, round(steps_per_epoch(MAX_TRAIN_TOKENS, training) / steps))
    training = replace(
        training,
        epochs=min(epochs * repeats, MAX_EPOCHS),
        eval_every_steps=math.ceil(steps * repeats / evaluations_per_epoch),
    )
    return Config("class-live", data, model, training)


class RowWindow(NamedTuple):
    """Part of a row of the batch that a training step reads: first position, end, and the length of the row."""

    begin: int
    end: int
    row_length: int


def steps_per_epoch(num_tokens: int, options: TrainingConfig) -> int:
    """Return the number of windows into which an epoch of `num_tokens` training tokens is cut."""
    return math.ceil((num_tokens // options.batch_size - 1) / options.bptt)


def window_of_step(step: int, num_tokens: int, options: TrainingConfig) -> RowWindow:
    """Return the window that a step reads, counted from 1, of lines in their order and windows of equal length."""
    row_length = num_tokens // options.batch_size
    begin = (step - 1) % steps_per_epoch(num_tokens, options) * options.bptt
    # The last token of a row is only a target.
    return RowWindow(begin, min(begin + options.bptt, row_length - 1), row_length)


def limit_dataset(dataset: Dataset) -> Dataset:
    """Return the part of a corpus that a live training uses; raises a CorpusError if the text is too short."""
    if len(dataset.train) < MIN_TRAIN_TOKENS:
        raise CorpusError(
            f"the training text has {len(dataset.train):,} words, and a training that shows something needs "
            f"{MIN_TRAIN_TOKENS:,}; use a longer text, or `lotr-tui learn` without one"
        )
    return replace(dataset, train=dataset.train[:MAX_TRAIN_TOKENS], valid=dataset.valid[:MAX_VALID_TOKENS])


def train_perplexity(model: LanguageModel, dataset: Dataset) -> float:
    """Return the perplexity of a model on evenly spaced pieces of the training text, without dropout."""
    starts = [number * len(dataset.train) // NUM_PIECES for number in range(NUM_PIECES)]
    length = min(PIECE_LENGTH, len(dataset.train) // NUM_PIECES)
    return evaluate(model, np.concatenate([dataset.train[start : start + length] for start in starts])).perplexity


@dataclass(frozen=True)
class TrainScore:
    """Perplexity on the training text, scored at an evaluation."""

    step: int
    epoch: float
    train_perplexity: float


class TemporaryTraining(LocalTraining):
    """Training in a thread whose run directory is in a temporary folder, which the thread removes when it ends."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.train_scores: list[TrainScore] = []  # one for each evaluation in `view`, or one more
        self._stack = ExitStack()
        super().__init__(self._prepare)

    def _generate_updates(self, cancellation: Cancellation) -> Iterator[TrainingUpdate]:
        with self._stack:
            for update in super()._generate_updates(cancellation):
                if isinstance(update, Evaluated) and update.model is not None:
                    assert self._job is not None
                    score = train_perplexity(update.model, self._job.dataset)
                    self.train_scores.append(TrainScore(update.step, update.epoch, score))
                yield update

    def _prepare(self) -> "TrainingJob":
        from engine.training.job import TrainingJob, prepare_job

        try:
            folder = self._stack.enter_context(temporary_folder())
        except OSError as error:
            raise RunError(f"cannot write a temporary folder: {error.strerror}; free some space") from error
        job = prepare_job(self.config, RUN_NAME, Path(folder))
        if isinstance(job, TrainingJob) and len(job.dataset.train) > MAX_TRAIN_TOKENS:
            job.dataset = limit_dataset(job.dataset)
        return job


def temporary_folder() -> "TemporaryDirectory[str]":
    """Return a folder that is removed when its context ends, or else when the process ends."""
    return TemporaryDirectory(prefix=TEMPORARY_PREFIX, ignore_cleanup_errors=True)


class Verdict(NamedTuple):
    """What the events of a training show so far."""

    is_too_slow: bool = False  # worse than the unigram model after `SLOW_FRACTION` of the training, without a jump
    has_jumped: bool = False
    beats_ngram: bool = False  # an evaluation was better than the 5-gram model


def judge(view: TrainingView) -> Verdict:
    """Return the verdict on the events of a training so far."""
    started, evaluations = view.started, view.evaluations
    if started is None or not evaluations:
        return Verdict()
    perplexities = view.steps.column("train_perplexity")
    # Before the first step, the training text is as hard as the validation text.
    before = np.concatenate([[evaluations[0].valid_perplexity], perplexities])[:-1]
    has_jumped = bool((~(perplexities <= JUMP_RATIO * np.fmin.accumulate(before))).any())
    has_jumped |= view.failure.startswith("the loss is")
    last, is_too_slow = view.steps.last, False
    late = [event for event in evaluations if event.epoch >= SLOW_FRACTION * started.epochs]
    if late and last is not None and not has_jumped:
        best = min(event.valid_perplexity for event in evaluations if event.epoch <= late[0].epoch)
        # A network that has learned a short text by heart is not slow, although it predicts other text badly.
        is_too_slow = min(best, last.train_perplexity) > started.unigram_perplexity
    beats_ngram = any(event.valid_perplexity < started.kneser_ney_perplexity for event in evaluations)
    return Verdict(is_too_slow, has_jumped, beats_ngram)


@dataclass(frozen=True)
class Regularization:
    """Settings that the student changes; the dropout is that of the inputs and of the outputs."""

    dropout: float = 0.0
    weight_drop: float = 0.0
    tie_weights: bool = False


@dataclass(frozen=True)
class RunCurves:
    """Perplexities of a training at its evaluations, after the one before the first step, without dropout."""

    epochs: tuple[float, ...] = ()
    train: tuple[float, ...] = ()  # on a part of the training text
    valid: tuple[float, ...] = ()  # on the held-out text

    @property
    def best(self) -> float:
        """Lowest perplexity on the held-out text."""
        return min(self.valid)

    @classmethod
    def from_evaluations(cls, evaluations: Sequence[Evaluated], scores: Sequence[TrainScore]) -> "RunCurves":
        """Combine the evaluations of a training with the scores of the training text at the same steps."""
        by_step = {score.step: score.train_perplexity for score in scores}
        shown = [event for event in evaluations if event.step and event.step in by_step]
        rows = [(event.epoch, by_step[event.step], event.valid_perplexity) for event in shown]
        return cls(*map(tuple, zip(*rows, strict=True)))


def overfitting_config(data: DataConfig, num_train_tokens: int, setting: Regularization) -> Config:
    model = ModelConfig(
        embedding_size=128, hidden_size=128, embedding_dropout=0.0, input_dropout=setting.dropout,
        output_dropout=setting.dropout, weight_drop=setting.weight_drop, tie_weights=setting.tie_weights,
        subword_embeddings=False, unigram_bias=False,
    )  # fmt: skip
    return live_config(data, num_train_tokens, epochs=6, evaluations_per_epoch=3, model=model, lr=0.01)


def load_overfitting_run(
    data: DataConfig, dataset: Dataset, cancelled: Callable[[], bool]
) -> Generator[str, None, RunCurves]:
    """Read the run without regularization for a corpus, which is trained first if that was not done before.

    Raises:
        InvalidInputError: If the corpus is too small, or the run cannot be stored.
        RunError: If the training was cancelled.
    """
    path = class_models_dir(data, dataset.corpus.sha256) / OVERFITTING_FILE
    config = overfitting_config(data, len(limit_dataset(dataset).train), Regularization())
    try:
        record = parse_json(read_limited(path, MAX_FILE_BYTES).decode())
        if isinstance(record, dict) and record.pop("config", None) == json.loads(config.to_json()):
            return decode(RunCurves, record)
    except (OSError, ValueError, InvalidInputError):
        pass  # missing, or damaged: it is trained again
    return (yield from train_overfitting_run(config, path, cancelled))


def train_overfitting_run(config: Config, path: Path, cancelled: Callable[[], bool]) -> Generator[str, None, RunCurves]:
    """Train the run without regularization, and write what the chapter reads of it to `path`."""
    from engine.training.job import prepare_job  # training is rare, and imports much

    events: list[Evaluated] = []
    scores: list[TrainScore] = []

    def keep(event: Evaluated) -> None:
        if event.model is not None:
            events.append(event)
            scores.append(TrainScore(event.step, event.epoch, train_perplexity(event.model, job.dataset)))

    try:
        with temporary_folder() as temporary:
            job = prepare_job(config, RUN_NAME, Path(temporary))
            job.dataset = limit_dataset(job.dataset)
            yield from follow_training(job, "a network without regularization", cancelled, on_evaluated=keep)
        curves = RunCurves.from_evaluations(events, scores)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"config": json.loads(config.to_json()), **asdict(curves)}
        write_atomically(path, f"{json.dumps(record)}\n".encode())
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; free some space") from error
    return curves
