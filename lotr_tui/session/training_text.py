"""What a run was trained on, read again once a session: it is slow to read, and never changes."""

from functools import lru_cache
from pathlib import Path

from engine.analysis.memorization import TrainingIndex
from engine.data.dataset import Dataset

MOST = 2
"""Runs whose training text is kept."""


@lru_cache(MOST)
def training_data(run: Path) -> Dataset:
    """The data of a run; to be called in a worker, for it may take seconds.

    Raises:
        UnusableInput: the run is damaged, or its data are not there any more.
    """
    # Only here: what most sessions do without should not delay them.
    from engine.runs.combine import dataset_of
    from engine.runs.store import load

    return dataset_of(load(run))


@lru_cache(MOST)
def training_index(run: Path) -> TrainingIndex:
    """The index of a run's training split; to be called in a worker.

    Raises:
        UnusableInput: as `training_data`.
    """
    return TrainingIndex.of(training_data(run))
