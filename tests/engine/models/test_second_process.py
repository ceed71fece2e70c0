"""Products in two processes, against those in one."""

import gc
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from engine.models import numpy_transformer, second_process
from tests.support.networks import VOCABULARY_SIZE, random_transformer, token_by_token

NUM_TOKENS = 30
pytestmark = pytest.mark.skipif(
    second_process.make_second_process(second_process.MIN_WEIGHTS + 1) is None,
    reason="needs Linux, an x86 processor and two cores",
)


@pytest.fixture(autouse=True)
def _small_models_have_second_processes(monkeypatch):
    monkeypatch.setattr(second_process, "MIN_WEIGHTS", 0)
    monkeypatch.setattr(numpy_transformer, "HUGE_PAGES_DELAY", 0)


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return value


def make_models(monkeypatch):
    """Return a model that may use one core, one that may use all, and its second process."""
    before = set(psutil.Process().children())
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0})
        alone = random_transformer(int8=True)
    time.sleep(0.2)
    assert set(psutil.Process().children()) == before
    model = random_transformer(int8=True)
    return alone, model, wait_for(lambda: set(psutil.Process().children()) - before).pop()


def cpu_seconds(process):
    return sum(process.cpu_times()[:2])


def test_a_second_process_computes_the_same_numbers_for_several_threads_and_its_end_changes_nothing(monkeypatch):
    alone, model, process = make_models(monkeypatch)
    tokens = np.random.default_rng(0).integers(2, VOCABULARY_SIZE, (3, NUM_TOKENS)).tolist()
    expected = [token_by_token(alone, row)[0] for row in tokens]

    def sleeps():
        return process.status() == psutil.STATUS_SLEEPING

    def check_and_see_help():
        before = cpu_seconds(process)
        with ThreadPoolExecutor(len(tokens)) as threads:
            actual = list(threads.map(lambda row: token_by_token(model, row)[0], tokens))
        np.testing.assert_array_equal(actual, expected)
        np.testing.assert_array_equal(token_by_token(model, tokens[0])[0], expected[0])
        batches = [
            each.advance_batch([each.start()] * len(tokens), tokens[0][: len(tokens)]) for each in (model, alone)
        ]
        np.testing.assert_array_equal(*([row for row, _ in batch] for batch in batches))
        return not sleeps() and cpu_seconds(process) > before

    monkeypatch.setattr(second_process, "MIN_LOOKS", 200_000)  # other programs may use the second core
    wait_for(sleeps)  # it has started
    wait_for(check_and_see_help)
    wait_for(sleeps)
    process.kill()
    np.testing.assert_array_equal(token_by_token(model, tokens[0])[0], expected[0])


def test_the_second_process_ends_with_its_model(monkeypatch):
    _, model, process = make_models(monkeypatch)
    assert process.is_running()
    del model
    gc.collect()
    wait_for(lambda: not process.is_running())
