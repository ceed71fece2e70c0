"""Checkpoints: the state dict of a training in one safetensors file, its JSON values as metadata."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from engine.config import Config
from engine.errors import InvalidInputError, RunError
from engine.runs.directory import PREVIOUS_RESUME_FILE, RESUME_FILE
from engine.storage.tensor_file import UNSEALED, TensorFile, seal
from engine.training.state import TrainerState, TrainingProgress

CORRUPT_FILE_ERRORS = (
    InvalidInputError, SafetensorError, OSError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError,
    AttributeError,
)  # fmt: skip
"""Errors that reading a damaged file, or loading its content, can raise."""


def serialize_checkpoint(state_dict: Mapping[str, Any], config: Config) -> bytes:
    """Return the content of `resume.safetensors` for what `TrainerState.state_dict` returned."""
    # Tied weights are one tensor with two names; safetensors wants a copy for each name.
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state_dict.items() if isinstance(v, Tensor)}
    values = {k: v for k, v in state_dict.items() if not isinstance(v, Tensor)}
    return seal(save(tensors, {**UNSEALED, "config": json.dumps(asdict(config)), "trainer_state": json.dumps(values)}))


class ResumeCheckpoint:
    """A `resume.safetensors` file whose bytes were checked; the tensors are read by `restore`."""

    def __init__(self, path: Path) -> None:
        """Check a file and read its JSON values; a missing or damaged file raises a RunError."""
        self.path = path
        try:
            file = TensorFile(path)
            file.check_bytes()
            header = file.header
            self._tensor_bytes = header.tensor_bytes
            self._config: dict[str, dict[str, Any]] = json.loads(header.metadata["config"])
            self._values: dict[str, Any] = json.loads(header.metadata["trainer_state"])
            self.progress = TrainingProgress.from_dict(self._values["progress"])
        except FileNotFoundError as error:
            raise RunError(f"{path} is missing; the run cannot be resumed") from error
        except CORRUPT_FILE_ERRORS as error:
            raise self._corrupt_file_error() from error

    def check_config(self, config: Config) -> None:
        """Raise a RunError that names the first setting in which `config` differs from the training that was saved."""
        for part, settings in asdict(config).items():
            if part == "preset":
                continue
            saved = self._config.get(part) if isinstance(self._config, dict) else None
            if not isinstance(saved, dict):
                raise self._corrupt_file_error()
            for name, value in settings.items():
                if saved.get(name) != value:
                    raise RunError(
                        f"{self.path} was saved with {name}={saved.get(name)}, but the configuration has "
                        f"{name}={value}; set {name} back, or train a new run"
                    )

    def restore(self, state: TrainerState) -> None:
        """Load the tensors, and restore the saved `state`; tensors of another training raise a RunError."""
        try:
            if self._tensor_bytes > state.max_tensor_bytes:
                raise ValueError("the file contains more tensors than a training has")
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state.load_state_dict(self._values | tensors)
        except CORRUPT_FILE_ERRORS as error:
            raise self._corrupt_file_error() from error

    def _corrupt_file_error(self) -> RunError:
        return RunError(f"{self.path} is damaged or not a checkpoint; the run cannot be resumed from it")


def load_latest_checkpoint(run_dir: Path) -> tuple[ResumeCheckpoint | None, str]:
    """Return the latest usable checkpoint of a run directory, and a warning if that is not the last one written.

    A damaged or missing last checkpoint is replaced by the one before, so that the next save cannot keep the damaged
    file as the previous one. Without any checkpoint, None and "" are returned.

    Raises:
        RunError: If there are checkpoint files, but all of them are damaged.
    """
    path, previous = run_dir / RESUME_FILE, run_dir / PREVIOUS_RESUME_FILE
    if not path.exists() and not previous.exists():
        return None, ""
    try:
        return ResumeCheckpoint(path), ""
    except RunError as error:
        problem = "damaged" if path.exists() else "missing"
        try:
            ResumeCheckpoint(previous)
            previous.replace(path)
        except (RunError, OSError):
            raise error from None
        checkpoint = ResumeCheckpoint(path)
        step = checkpoint.progress.step
        return checkpoint, f"{path} was {problem}; resuming from the previous checkpoint, at step {step:,}"
