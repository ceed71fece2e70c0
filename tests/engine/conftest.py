"""Fixtures of the engine's tests: a small dataset, a training on it, and a single torch thread."""

import pytest
import torch

from tests.support.training import make_dataset, run_training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def default_events(dataset):
    """Return the events of a training with the small configuration."""
    return run_training(dataset)


@pytest.fixture
def one_thread():
    """Use one torch thread: the same bits on every machine, and no waiting threads on small tensors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
