"""Teachers of a training: trained runs that a student learns from besides the corpus."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, cast

import torch
from torch import Tensor

from engine.config import Config
from engine.data.dataset import Dataset
from engine.models.network import Network
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.loading import LoadedRun
from engine.training.batches import Window
from engine.training.distillation.loading import load_teachers
from engine.training.distillation.predictions import SoftTargets
from engine.training.distillation.reader import TeacherReader
from engine.training.distillation.writer import TeacherWriter


class Teachers:
    """Trained runs that predict the windows of the corpus, and write columns of text of their own."""

    def __init__(self, reader: TeacherReader, writer: TeacherWriter | None, teacher_weight: float) -> None:
        """Combine both roles; `teacher_weight` is the fraction of the loss that compares with predictions."""
        self._reader, self._writer, self._teacher_weight = reader, writer, teacher_weight

    @classmethod
    def from_config(cls, config: Config, dataset: Dataset, device: torch.device, num_columns: int) -> Self:
        """Load the runs that the setting `teachers` names; windows of the corpus have `num_columns` columns.

        Raises:
            InvalidInputError: If a run is missing, damaged or does not fit.
        """
        runs, options = load_teachers(config, dataset), config.training
        reader = TeacherReader.from_runs(runs, dataset, device, num_columns)
        writer = TeacherWriter(_decoders(runs), options.teacher_columns, device) if options.teacher_columns else None
        return cls(reader, writer, options.teacher_weight)

    @property
    def networks(self) -> Sequence[Network]:
        """The networks of the teachers."""
        return self._reader.networks

    @property
    def num_columns(self) -> int:
        """Number of columns that the teachers add to each window."""
        return 0 if self._writer is None else self._writer.num_columns

    def teach(self, window: Window, generator: torch.Generator) -> tuple[Window, SoftTargets]:
        """Return `window` with the columns that the teachers write, and the teachers' predictions of all columns."""
        predictions = self._reader.predict(window)
        num_corpus_columns = window.targets.shape[1]
        weights = torch.full((num_corpus_columns + self.num_columns,), 1.0, device=window.targets.device)
        weights[:num_corpus_columns] = self._teacher_weight
        if self._writer is not None:
            if window.start == 0:
                self._writer.restart()
            written, own_predictions = self._writer.write(len(window.inputs), generator)
            window = _append_columns(window, written)
            predictions = predictions.append_columns(own_predictions)
        return window, SoftTargets(predictions, weights, num_corpus_columns)

    def state_dict(self, gather: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return the state as tensors, for a checkpoint in the middle of an epoch.

        `gather` collects the columns of all processes.
        """
        return self._reader.state_dict(gather) | ({} if self._writer is None else self._writer.state_dict())

    def load_state_dict(self, tensors: Mapping[str, Any], shard: Callable[[Tensor], Tensor]) -> None:
        """Restore what `state_dict` returned; `shard` selects the columns of this process.

        Raises:
            LookupError: If a tensor is missing.
            ValueError: If a tensor has another shape or type.
        """
        self._reader.load_state_dict(tensors, shard)
        if self._writer is not None:
            self._writer.load_state_dict(tensors)


def _decoders(runs: Sequence[LoadedRun]) -> list[NumpyLSTM]:
    """Return the decoders of runs, which `load_teachers` has found to be LSTMs."""
    return [cast(NumpyLSTM, run.decoder) for run in runs]


def _append_columns(window: Window, written: Window) -> Window:
    """Return `window` with the columns of `written` after its own."""

    def append(own: Tensor | None, other: Tensor | None) -> Tensor | None:
        return None if own is None or other is None else torch.cat([own, other], dim=1)

    return replace(
        window,
        inputs=torch.cat([window.inputs, written.inputs], dim=1),
        targets=torch.cat([window.targets, written.targets], dim=1),
        target_weights=append(window.target_weights, torch.ones_like(written.targets, dtype=torch.float32)),
        punctuation=append(window.punctuation, written.punctuation),
    )
