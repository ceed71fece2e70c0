"""Trainings: jobs, the training loop with its state, diagnoses, ablation studies and hyperparameter search."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from engine.data.arrays import Float32Array
from engine.data.dataset import Dataset

if TYPE_CHECKING:  # `train --help` needs no tokenizers by others
    from engine.models.pretrained.base import Base


class TrainingInput(NamedTuple):
    """Data that a training reads before its first step."""

    dataset: Dataset
    initial_weights: Mapping[str, Float32Array] | None = None  # None for random weights, or the weights of `base`
    base: "Base | None" = None  # pre-trained model by others that the training starts from
