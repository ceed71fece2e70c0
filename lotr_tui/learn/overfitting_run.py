"""Run without regularization for the chapter on overfitting: bundled, or trained when it is first needed."""

import json
import shutil
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.config import Config, DataConfig, ModelConfig
from engine.data.dataset import Dataset
from engine.errors import InvalidInputError, RunError
from engine.events import Evaluated, Finished, Preparing, Step, event_to_dict
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, read_config
from engine.storage.files import read_limited, write_atomically
from engine.storage.schema import decode_json
from lotr_tui.formatting import format_perplexity
from lotr_tui.learn.class_models import class_models_dir, describe_seconds_left, estimate_seconds_left
from lotr_tui.learn.live_training import (
    RUN_NAME,
    TrainScore,
    limit_dataset,
    live_config,
    temporary_folder,
    train_perplexity,
)
from lotr_tui.monitor.training_view import TrainingView

NAME = "overfitting"
"""Name of the folder of the run."""
TRAIN_FILE = "train.jsonl"
"""File with the perplexity of the training text at each evaluation, without dropout."""
MAX_FILE_BYTES = 1_000_000
EPOCHS = 6
EVALUATIONS_PER_EPOCH = 3
LR = 0.01


@dataclass(frozen=True)
class Regularization:
    """Settings that the student changes."""

    dropout: float = 0.0
    """Dropout of the inputs and of the outputs."""
    weight_drop: float = 0.0
    tie_weights: bool = False


@dataclass(frozen=True)
class RunCurves:
    """Perplexities of a training at its evaluations, after the one before the first step."""

    epochs: tuple[float, ...]
    train: tuple[float, ...]
    """Perplexity on a part of the training text, without dropout."""
    valid: tuple[float, ...]
    """Perplexity on the held-out text."""

    @property
    def best(self) -> float:
        """Lowest perplexity on the held-out text."""
        return min(self.valid)

    @classmethod
    def from_evaluations(cls, evaluations: Sequence[Evaluated], scores: Sequence[TrainScore]) -> "RunCurves":
        """Combine the evaluations of a training with the scores of the training text at the same steps."""
        by_step = {score.step: score.train_perplexity for score in scores}
        rows = [
            (event.epoch, by_step[event.step], event.valid_perplexity)
            for event in evaluations
            if event.step and event.step in by_step
        ]
        return cls(*map(tuple, zip(*rows, strict=True))) if rows else cls((), (), ())


def overfitting_config(data: DataConfig, num_train_tokens: int, setting: Regularization) -> Config:
    """Return the configuration of a training of the chapter."""
    model = ModelConfig(
        embedding_size=128, hidden_size=128, embedding_dropout=0.0, input_dropout=setting.dropout,
        output_dropout=setting.dropout, weight_drop=setting.weight_drop, tie_weights=setting.tie_weights,
        subword_embeddings=False, unigram_bias=False,
    )  # fmt: skip
    return live_config(
        data, num_train_tokens, epochs=EPOCHS, evaluations_per_epoch=EVALUATIONS_PER_EPOCH, model=model, lr=LR
    )


def load_overfitting_run(
    data: DataConfig, dataset: Dataset, cancelled: Callable[[], bool]
) -> Generator[str, None, RunCurves]:
    """Read the run without regularization for a corpus, which is trained first if that was not done before.

    Args:
        data: Corpus, read as words.
        dataset: The corpus, loaded.
        cancelled: Returns True once the training should stop.

    Yields:
        Lines of progress.

    Raises:
        InvalidInputError: If the corpus is too small, or the run cannot be stored.
        RunError: If the training was cancelled.
    """
    folder = class_models_dir(data, dataset.corpus.sha256) / NAME
    config = overfitting_config(data, len(limit_dataset(dataset).train), Regularization())
    try:
        if read_config(folder) == config:
            return read_curves(folder)
    except InvalidInputError:
        pass  # missing, damaged or of another version
    yield from train_overfitting_run(config, folder, cancelled)
    return read_curves(folder)


def train_overfitting_run(config: Config, folder: Path, cancelled: Callable[[], bool]) -> Generator[str, None, None]:
    """Train the run without regularization, and write what the chapter reads of it to `folder`.

    Yields:
        Lines of progress.

    Raises:
        InvalidInputError: If the folder cannot be written.
        RunError: If the training was cancelled.
    """
    from engine.training.job import prepare_job  # training is rare, and imports much

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder() as temporary:
            job = prepare_job(config, RUN_NAME, temporary)
            job.dataset = limit_dataset(job.dataset)
            events: list[Evaluated] = []
            scores: list[TrainScore] = []
            is_done = False
            line = ""
            for event in job.events(cancelled):
                if isinstance(event, Preparing):
                    yield f"preparing the run without regularization: {event.message} …"
                elif isinstance(event, Evaluated) and event.model is not None:
                    events.append(event)
                    scores.append(TrainScore(event.step, event.epoch, train_perplexity(event.model, job.dataset)))
                    line = (
                        f"training without regularization on this corpus, once: epoch {event.epoch:.1f} of "
                        f"{config.training.epochs}, held-out perplexity {format_perplexity(event.valid_perplexity)}"
                    )
                    yield f"{line} …"
                elif isinstance(event, Step) and line:
                    left = estimate_seconds_left(event, config.training.epochs)
                    yield f"{line}, {describe_seconds_left(left)} …"
                is_done = isinstance(event, Finished) and event.reason == "done"
            if not is_done:
                raise RunError("the training of the run without regularization was stopped; open the chapter again")
        _write_run(folder, config, events, scores)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; free some space") from error


def _write_run(folder: Path, config: Config, events: Sequence[Evaluated], scores: Sequence[TrainScore]) -> None:
    """Write the configuration last, which makes the run complete."""
    if folder.exists() and not (folder / CONFIG_FILE).is_file():
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    for name, rows in ((METRICS_FILE, map(event_to_dict, events)), (TRAIN_FILE, map(asdict, scores))):
        write_atomically(folder / name, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    write_atomically(folder / CONFIG_FILE, f"{config.to_json()}\n".encode())


def read_curves(folder: Path) -> RunCurves:
    """Read the curves of a run.

    Raises:
        RunError: If a file is missing or damaged.
    """
    try:
        lines = read_limited(folder / TRAIN_FILE, MAX_FILE_BYTES).decode().splitlines()
        scores = [decode_json(TrainScore, line) for line in lines]
    except OSError as error:
        raise RunError(f"{folder / TRAIN_FILE} cannot be read: {error.strerror}; remove {folder}") from error
    except (ValueError, InvalidInputError) as error:
        raise RunError(f"{folder / TRAIN_FILE} is damaged: {error}; remove {folder}") from error
    curves = RunCurves.from_evaluations(TrainingView.from_run(folder).evaluations, scores)
    if not curves.epochs:
        raise RunError(f"{folder} has no evaluation; remove it")
    return curves
