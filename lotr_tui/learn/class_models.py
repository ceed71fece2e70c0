"""Small models of the class: bundled ones for the bundled dialogues, and others that are trained when first needed."""

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from engine.config import LSTM, Config, DataConfig
from engine.errors import RunError
from engine.events import Evaluated, Finished, Preparing, Step
from engine.presets import get_preset
from engine.runs.directory import read_config, resolve_run
from engine.storage.files import FileLock, app_home, assets_dir
from lotr_tui.formatting import format_perplexity

ClassModelName = Literal["lstm", "transformer"]
LABELS: dict[ClassModelName, str] = {"lstm": "LSTM", "transformer": "Transformer"}
LOCK_FILE, TRAINING_DIR = "training.lock", "training"
"""Lock of the process that trains, and the folder in which it trains; both are in the folder of all corpora."""
MAX_TRAINED_TOKENS: dict[ClassModelName, int] = {"lstm": 1_500_000, "transformer": 3_500_000}
"""Tokens that a training reads at most, in whole epochs and at least in one: a minute or two on two cores."""
MAX_TRAINING_SECONDS = 180.0
"""Time after which the training on a very large corpus ends, and its best model is kept."""
STEPS_BETWEEN_EVALUATIONS, MAX_EVALUATED_TOKENS = 200, 20_000
"""Settings of a training of a single epoch."""
SECONDS_UNIT = 5
"""Seconds to which the remaining time is rounded up."""
LOCK_INTERVAL = 0.2
"""Seconds between two attempts to take the lock."""


def class_data_config(data: DataConfig) -> DataConfig:
    """Return the configuration of a corpus as the class reads it: its words, line by line, with the same split."""
    tokenizer = data.tokenizer if data.tokenizer in ("words", "whitespace") else "words"
    return replace(data, tokenizer=tokenizer, mode="line")


def bundled_data_config() -> DataConfig:
    """Return the configuration of the bundled dialogues, with the split of the bundled LSTM."""
    return class_data_config(read_config(resolve_run(LSTM)).data)


def class_model_config(name: ClassModelName, data: DataConfig) -> Config:
    """Return the configuration of a small model that is trained within a minute on two cores."""
    config = get_preset("tiny").with_values(epochs=10) if name == "lstm" else get_preset("gpt-tiny")
    if name == "transformer":
        config = config.with_values(embedding_size=96, num_layers=3, context_size=32, bptt=32, epochs=30)
    return replace(config, preset=f"class-{name}", data=data)


def fit_to_corpus(config: Config, name: ClassModelName, num_tokens: int) -> Config:
    """Return the configuration with fewer epochs for a large corpus, and with evaluations during a single epoch."""
    epochs = max(1, min(config.training.epochs, MAX_TRAINED_TOKENS[name] // max(1, num_tokens)))
    config = config.with_values(epochs=epochs)
    if epochs > 1:
        return config
    return config.with_values(eval_every_steps=STEPS_BETWEEN_EVALUATIONS, max_eval_tokens=MAX_EVALUATED_TOKENS)


def class_models_dir(data: DataConfig, corpus_sha256: str) -> Path:
    """Return the folder of the small models for a corpus; it may not exist yet."""
    if data == bundled_data_config():
        return assets_dir() / "class"
    described = f"{corpus_sha256} {class_data_config(data)} {[class_model_config(name, data) for name in LABELS]}"
    return app_home() / "class" / hashlib.sha256(described.encode()).hexdigest()[:16]


def train_class_model(
    name: ClassModelName, data: DataConfig, corpus_sha256: str, num_tokens: int, cancelled: Callable[[], bool]
) -> Generator[str, None, Path]:
    """Train a small model on a corpus unless that was done before.

    One process trains at a time; others wait for it, and find its model if it is the one they need.

    Args:
        name: Kind of the model.
        data: Configuration of the corpus.
        corpus_sha256: SHA-256 of the corpus.
        num_tokens: Number of tokens of the training split.
        cancelled: Function that returns True once the training is to stop.

    Yields:
        Lines of progress.

    Returns:
        The run directory.

    Raises:
        InvalidInputError: If the corpus is too small, or the model cannot be stored.
        RunError: If the training was cancelled.
    """
    run = class_models_dir(data, corpus_sha256) / name
    if run.is_dir():
        return run
    folder = app_home() / "class"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        while not lock.acquire():
            if cancelled():
                raise _stopped(name)
            yield "waiting for a training in another window …"
            time.sleep(LOCK_INTERVAL)
        try:
            if not run.is_dir():  # the other process may have trained it
                config = fit_to_corpus(class_model_config(name, data), name, num_tokens)
                yield from train_small_model(name, config, folder / TRAINING_DIR, run, cancelled)
        finally:
            shutil.rmtree(folder / TRAINING_DIR, ignore_errors=True)
            lock.release()
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; free some space") from error
    return run


def train_small_model(
    name: ClassModelName, config: Config, temporary: Path, run: Path, cancelled: Callable[[], bool]
) -> Generator[str, None, None]:
    """Train a model in the folder `temporary`, and move it to `run` once it is complete.

    Yields:
        Lines of progress.

    Raises:
        InvalidInputError: If the corpus is too small.
        RunError: If the training was cancelled.
    """
    from engine.training.job import prepare_job  # training is rare, and imports much

    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    job = prepare_job(config, config.preset, temporary)
    ends_at = time.monotonic() + MAX_TRAINING_SECONDS
    is_done = False
    line = ""
    for event in job.events(lambda: cancelled() or time.monotonic() > ends_at):
        if isinstance(event, Preparing):
            yield f"preparing a small {LABELS[name]} for this corpus: {event.message} …"
        elif isinstance(event, Evaluated):
            line = (
                f"training a small {LABELS[name]} on this corpus, once: epoch {event.epoch:.0f} of "
                f"{job.config.training.epochs}, perplexity {format_perplexity(event.valid_perplexity)}"
            )
            yield f"{line} …"
        elif isinstance(event, Step) and line:
            left = min(estimate_seconds_left(event, job.config.training.epochs), ends_at - time.monotonic())
            yield f"{line}, {describe_seconds_left(left)} …"
        is_done = isinstance(event, Finished) and (event.reason == "done" or not cancelled())
    if not is_done:
        raise _stopped(name)
    run.parent.mkdir(parents=True, exist_ok=True)
    job.run.path.replace(run)


def estimate_seconds_left(step: Step, num_epochs: int) -> float:
    """Return the seconds that a training of `num_epochs` epochs needs after `step`, as fast as before it."""
    return step.seconds / step.epoch * max(0.0, num_epochs - step.epoch) if step.epoch else math.inf


def describe_seconds_left(seconds: float) -> str:
    """Return a rough time, which does not change with each step."""
    return f"about {max(1, math.ceil(seconds / SECONDS_UNIT)) * SECONDS_UNIT} s left"


def _stopped(name: ClassModelName) -> RunError:
    return RunError(f"the training of the small {LABELS[name]} was stopped; open the chapter again")
