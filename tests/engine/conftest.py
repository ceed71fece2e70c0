"""What tests of torch need, and the corpus and the training that several files test."""

from collections.abc import Iterator

import pytest
import torch

from tests.engine.training_makers import dataset, usual  # noqa: F401


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The same bits whatever the machine, and no time lost to threads that wait for each other on small tensors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
