"""What tests of torch need, and the corpus and the training that several files test."""

from collections.abc import Iterator

import pytest
import torch

from engine.data.dataset import Dataset
from engine.events import TrainingEvent
from tests.support.training import run, small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A small one to train on."""
    return small_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def usual(dataset: Dataset) -> list[TrainingEvent]:
    """What the usual training on it tells."""
    return run(dataset)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The same bits whatever the machine, and no time lost to threads that wait for each other on small tensors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
