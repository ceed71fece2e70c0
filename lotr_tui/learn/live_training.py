"""Short trainings that a chapter runs while the student watches, in a temporary folder."""

import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.analysis.evaluation import evaluate
from engine.config import Config, DataConfig, ModelConfig, TrainingConfig
from engine.data.dataset import Dataset
from engine.errors import CorpusError, RunError
from engine.events import Evaluated
from engine.models.base import LanguageModel
from engine.runs.directory import is_locked
from engine.runtime.worker import Cancellation
from lotr_tui.learn.bptt_window import steps_per_epoch
from lotr_tui.monitor.local_training import LocalTraining, TrainingUpdate

if TYPE_CHECKING:
    from engine.training.job import TrainingJob

TEMPORARY_PREFIX = "lotr-tui-class-"
"""Start of the names of the temporary folders."""
RUN_NAME = "live"
ABANDONED_AFTER = 3600.0
"""Seconds after which a temporary folder that no process holds is removed."""
MIN_TRAIN_TOKENS = 2000
MAX_TRAIN_TOKENS = 120_000
"""Tokens of the training text that a live training reads, so that it ends within half a minute."""
MAX_VALID_TOKENS = 14_000
NUM_PIECES, PIECE_LENGTH = 7, 600
"""Pieces of the training text that `train_perplexity` scores, and tokens in each.

A step reads the same place of 20 rows, so the pieces lie at different places of their rows: otherwise, they would all
have been read just now, or all long ago.
"""
MAX_EPOCHS = 60


def live_config(
    data: DataConfig, num_train_tokens: int, *, epochs: int, evaluations_per_epoch: int, model: ModelConfig, lr: float
) -> Config:
    """Return the configuration of a live training.

    The lines keep their order, so that the place of each window is known, and one thread trains: two are hardly faster
    for a network of this size, and much slower where another program needs the second core. A text that is shorter than
    the bundled dialogues is read more often, so that there are as many steps.

    Args:
        data: Corpus, read as words.
        num_train_tokens: Length of the training text, at most `MAX_TRAIN_TOKENS`.
        epochs: Passes over a text of `MAX_TRAIN_TOKENS`.
        evaluations_per_epoch: Evaluations in each of them.
        model: Sizes and regularization.
        lr: Learning rate, which is constant.
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


def limit_dataset(dataset: Dataset) -> Dataset:
    """Return the part of a corpus that a live training uses.

    Raises:
        CorpusError: If the training text is too short.
    """
    if len(dataset.train) < MIN_TRAIN_TOKENS:
        raise CorpusError(
            f"the training text has {len(dataset.train):,} words, and a training that shows something needs "
            f"{MIN_TRAIN_TOKENS:,}; use a longer text, or `lotr-tui learn` without one"
        )
    return replace(dataset, train=dataset.train[:MAX_TRAIN_TOKENS], valid=dataset.valid[:MAX_VALID_TOKENS])


def train_perplexity(model: LanguageModel, dataset: Dataset) -> float:
    """Return the perplexity of a model on a part of the training text: evenly spaced pieces, one after the other.

    Nothing is dropped, as on the validation text, so that the two perplexities can be compared. The perplexity that a
    training reports for its own steps contains the dropout.
    """
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

    def __init__(self, config: Config, *, scores_train: bool = False) -> None:
        """Start the thread.

        Args:
            config: Configuration of the training.
            scores_train: True to score the training text at each evaluation too.
        """
        self.config = config
        self.train_scores: list[TrainScore] = []
        """Scores of the training text, one for each evaluation in `view`, or one more."""
        self._scores_train = scores_train
        self._stack = ExitStack()
        super().__init__(self._prepare)

    def _generate_updates(self, cancellation: Cancellation) -> Iterator[TrainingUpdate]:
        with self._stack:
            for update in super()._generate_updates(cancellation):
                if self._scores_train and isinstance(update, Evaluated) and update.model is not None:
                    assert self._job is not None
                    score = train_perplexity(update.model, self._job.dataset)
                    self.train_scores.append(TrainScore(update.step, update.epoch, score))
                yield update

    def _prepare(self) -> "TrainingJob":
        from engine.training.job import TrainingJob, prepare_job

        job = prepare_job(self.config, RUN_NAME, self._stack.enter_context(temporary_folder()))
        if isinstance(job, TrainingJob) and len(job.dataset.train) > MAX_TRAIN_TOKENS:
            job.dataset = limit_dataset(job.dataset)
        return job


_folders: set[Path] = set()
"""Temporary folders of the trainings of this process."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a folder for a training, and remove it at the end.

    Raises:
        RunError: If no folder can be created.
    """
    remove_abandoned()
    try:
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
    except OSError as error:
        raise RunError(f"cannot write a temporary folder: {error.strerror}; free some space") from error
    _folders.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _folders.discard(folder)


def remove_temporary_folders(timeout: float) -> None:
    """Wait until cancelled trainings have removed their folders, at most `timeout` seconds, and remove the others.

    A process that exits does not wait for its threads.
    """
    end = time.monotonic() + timeout
    while _folders and time.monotonic() < end:
        time.sleep(0.01)
    for folder in list(_folders):
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove the temporary folders that killed processes have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > ABANDONED_AFTER and not is_locked(folder / RUN_NAME):
                shutil.rmtree(folder, ignore_errors=True)
