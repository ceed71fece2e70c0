"""Small models of the class: bundled ones for the bundled dialogues, and others that are trained when first needed."""

import hashlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from engine.config import LSTM, Config, DataConfig
from engine.errors import RunError
from engine.events import Evaluated, Finished, Preparing, Step
from engine.presets import PRESETS
from engine.runs.directory import read_config, resolve_run
from engine.storage.files import app_home, assets_dir
from lotr_tui.formatting import format_perplexity

if TYPE_CHECKING:
    from engine.training.job import TrainingJob

ClassModelName = Literal["lstm", "transformer"]
LABELS: dict[ClassModelName, str] = {"lstm": "LSTM", "transformer": "Transformer"}
# Tokens that a training reads at most, in whole epochs and at least in one: a minute or two on two cores.
MAX_TRAINED_TOKENS: dict[ClassModelName, int] = {"lstm": 1_500_000, "transformer": 3_500_000}
MAX_TRAINING_SECONDS = 180.0  # the training on a very large corpus ends then, and its best model is kept


def class_data_config(data: DataConfig) -> DataConfig:
    """Return the configuration of a corpus as the class reads it: its words, line by line, with the same split."""
    tokenizer = data.tokenizer if data.tokenizer in ("words", "whitespace") else "words"
    return replace(data, tokenizer=tokenizer, mode="line")


def bundled_data_config() -> DataConfig:
    """Return the configuration of the bundled dialogues, with the split of the bundled LSTM."""
    return class_data_config(read_config(resolve_run(LSTM)).data)


def class_model_config(name: ClassModelName, data: DataConfig) -> Config:
    config = PRESETS["tiny"].with_values(epochs=10) if name == "lstm" else PRESETS["gpt-tiny"]
    if name == "transformer":
        config = config.with_values(embedding_size=96, num_layers=3, context_size=32, bptt=32, epochs=30)
    return replace(config, preset=f"class-{name}", data=data)


def class_models_dir(data: DataConfig, corpus_sha256: str) -> Path:
    """Return the folder of the small models for a corpus; it may not exist yet."""
    if data == bundled_data_config():
        return assets_dir() / "class"
    described = f"{corpus_sha256} {class_data_config(data)} {[class_model_config(name, data) for name in LABELS]}"
    return app_home() / "class" / hashlib.sha256(described.encode()).hexdigest()[:16]


def train_class_model(
    name: ClassModelName, data: DataConfig, corpus_sha256: str, num_tokens: int, cancelled: Callable[[], bool]
) -> Generator[str, None, Path]:
    """Train a small model on a corpus unless that was done before; yield lines of progress, return the run directory.

    Raises:
        InvalidInputError: If the corpus is too small, or the model cannot be stored.
        RunError: If the training was cancelled.
    """
    run = class_models_dir(data, corpus_sha256) / name
    if run.is_dir():
        return run
    config = class_model_config(name, data)
    epochs = max(1, min(config.training.epochs, MAX_TRAINED_TOKENS[name] // max(1, num_tokens)))
    config = config.with_values(epochs=epochs)
    if epochs == 1:
        config = config.with_values(eval_every_steps=200, max_eval_tokens=20_000)
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        yield from train_small_model(name, config, run, cancelled)
    except OSError as error:
        raise RunError(f"cannot write {run.parent}: {error.strerror}; free some space") from error
    return run


def train_small_model(
    name: ClassModelName, config: Config, run: Path, cancelled: Callable[[], bool]
) -> Generator[str, None, None]:
    """Train a model in a temporary folder beside `run`, and move it there once it is complete."""
    from engine.training.job import prepare_job  # training is rare, and imports much

    with TemporaryDirectory(prefix=".training-", dir=run.parent, ignore_cleanup_errors=True) as folder:
        job = prepare_job(config, config.preset, Path(folder))
        yield from follow_training(job, f"a small {LABELS[name]}", cancelled, MAX_TRAINING_SECONDS)
        if not run.is_dir():  # another session may have trained it meanwhile
            job.run.path.replace(run)


def follow_training(
    job: "TrainingJob",
    name: str,
    cancelled: Callable[[], bool],
    max_seconds: float = math.inf,
    on_evaluated: Callable[[Evaluated], None] = lambda event: None,
) -> Generator[str, None, None]:
    """Run a training to its end or for `max_seconds`; yield lines of progress with the time that is left.

    Raises:
        RunError: If the training was cancelled.
    """
    ends_at, num_epochs = time.monotonic() + max_seconds, job.config.training.epochs
    is_done, line = False, ""
    for event in job.events(lambda: cancelled() or time.monotonic() > ends_at):
        if isinstance(event, Preparing):
            yield f"preparing {name} for this corpus: {event.message} …"
        elif isinstance(event, Evaluated):
            on_evaluated(event)
            line = (
                f"training {name} on this corpus, once: epoch {event.epoch:.0f} of {num_epochs}, perplexity "
                f"{format_perplexity(event.valid_perplexity)}"
            )
            yield f"{line} …"
        elif isinstance(event, Step) and line and event.epoch:
            seconds = event.seconds / event.epoch * max(0.0, num_epochs - event.epoch)
            seconds = min(seconds, ends_at - time.monotonic())
            yield f"{line}, about {max(1, math.ceil(seconds / 5)) * 5} s left …"  # does not change with each step
        is_done = isinstance(event, Finished) and (event.reason == "done" or not cancelled())
    if not is_done:
        raise RunError(f"the training of {name} was stopped; open the chapter again")
