"""Loading of trained models from run directories. Pickles are never read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.config import BUNDLED, Config
from engine.errors import InvalidInputError, RunError
from engine.models.numpy_lstm import NumpyLSTM, weight_shapes
from engine.runs import directory
from engine.runs.directory import EPOCHS_DIR, METRICS_FILE, epoch_model_name, find_run, resolve_run
from engine.runs.metrics import Row, drop_superseded_rows, number_or_none, read_current_rows, read_rows
from engine.runs.summary import saved_perplexity
from engine.storage.files import assets_dir, default_runs_dir
from engine.storage.tensor_file import read_weights

INFERENCE_PRECISIONS = ("fp32", "int8")
"""Supported precisions of the weights of a loaded model."""
_RUN_AT_EPOCH_PATTERN = re.compile(r"(.+)@([0-9]{1,9})", re.DOTALL)


@dataclass(frozen=True)
class EpochCheckpoint:
    """Weights that a run keeps after a whole epoch, whether they are the best or not."""

    epoch: int
    valid_perplexity: float | None
    """Validation perplexity after the epoch; None if the metrics do not contain it."""


@dataclass(frozen=True)
class LoadedModel:
    """Model of a run, ready for inference, and facts about its training."""

    name: str
    """Name of the run; RUN@EPOCH for the weights of an epoch."""
    path: Path
    config: Config
    decoder: NumpyLSTM
    valid_perplexity: float | None
    kneser_ney_perplexity: float | None
    corpus_sha256: str
    """SHA-256 of the training corpus; "" if the metrics do not contain it."""
    epoch: int | None = None
    """Epoch of the weights; None for the best weights."""


def load_model_by_name(name: str | None, runs_dir: Path | None = None, precision: str = "fp32") -> LoadedModel:
    """Load the best model of a run named as `resolve_run` accepts it, or the model RUN@EPOCH of an epoch.

    `precision` is one of `INFERENCE_PRECISIONS`; "int8" quantizes the large weights to 8 bits.

    Raises:
        InvalidInputError: If there is no such run, epoch or precision, the run is damaged, or numkong is missing.
    """
    if precision not in INFERENCE_PRECISIONS:
        choices = " or ".join(INFERENCE_PRECISIONS)
        raise InvalidInputError(f"--precision {precision} is unknown; choose {choices} for inference")
    is_run = name is not None and find_run(name, runs_dir or default_runs_dir()) is not None  # its name may have an "@"
    match = None if is_run else _RUN_AT_EPOCH_PATTERN.fullmatch(name or "")
    loaded = load_model(resolve_run(match[1] if match else name, runs_dir), int(match[2]) if match else None)
    if precision == "fp32":
        return loaded
    exact = loaded.decoder
    return replace(loaded, decoder=NumpyLSTM(exact.config, exact.vocabulary, exact.weights, int8=True))


def load_model(run_dir: Path, epoch: int | None = None) -> LoadedModel:
    """Load the best weights of a run, or the weights that it kept after `epoch`.

    Raises:
        RunError: If a file is missing, damaged or not safetensors, or the weights of the epoch were not kept.
        ConfigError: If the configuration is damaged.
    """
    config, vocabulary = directory.read_config_and_vocabulary(run_dir)
    all_rows = list(read_rows(run_dir / METRICS_FILE, subsample=True))
    rows = drop_superseded_rows(all_rows)
    name = BUNDLED if run_dir == assets_dir() / "model" else run_dir.name
    file, perplexity = run_dir / directory.MODEL_FILE, saved_perplexity(all_rows)
    if epoch is not None:
        file, perplexity = _find_epoch_weights(run_dir, epoch, name), _perplexity_at_epoch(rows, epoch)
        name = epoch_model_name(name, epoch)
    weights = read_weights(file, weight_shapes(config.model, len(vocabulary)))
    try:
        decoder = NumpyLSTM(config.model, vocabulary, weights)
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
    started = next((row for row in rows if row["event"] == "started"), {})
    return LoadedModel(
        name=name,
        path=run_dir,
        config=config,
        decoder=decoder,
        valid_perplexity=perplexity,
        kneser_ney_perplexity=number_or_none(started.get("kneser_ney_perplexity")),
        corpus_sha256=str(started.get("corpus_sha256", "")),
        epoch=epoch,
    )


def list_epoch_checkpoints(run_dir: Path) -> list[EpochCheckpoint]:
    """Return the epochs whose weights a run keeps, in ascending order; an empty list if there are none."""
    files = (run_dir / EPOCHS_DIR).glob("*.safetensors")
    epochs = [int(file.stem) for file in files if re.fullmatch("[1-9][0-9]*", file.stem)]
    rows = read_current_rows(run_dir / METRICS_FILE, subsample=True) if epochs else []
    return [EpochCheckpoint(epoch, _perplexity_at_epoch(rows, epoch)) for epoch in sorted(epochs)]


def _perplexity_at_epoch(rows: Sequence[Row], epoch: int) -> float | None:
    """Return the validation perplexity of the latest evaluation after `epoch` whole epochs."""
    evaluations = [row for row in rows if row["event"] == "evaluated" and row.get("epoch") == epoch]
    return number_or_none(evaluations[-1].get("valid_perplexity")) if evaluations else None


def _find_epoch_weights(run_dir: Path, epoch: int, run_name: str) -> Path:
    """Return the path of the weights of an epoch, or raise a RunError that names the epochs with weights."""
    kept = [str(item.epoch) for item in list_epoch_checkpoints(run_dir)]
    if not kept:
        name = epoch_model_name(run_name, epoch)
        raise RunError(f"run {run_name!r} kept no epochs, so there is no {name}, only the best model")
    if str(epoch) not in kept:
        raise RunError(f"run {run_name!r} did not keep epoch {epoch}; it kept {', '.join(kept)}, and the best model")
    return directory.epoch_weights_path(run_dir, epoch)
