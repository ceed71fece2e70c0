"""Order of the training text, its columns, and the lengths of BPTT windows."""

import random
from collections import Counter

import numpy as np
import pytest

from engine.config import TrainingConfig
from engine.data.dataset import Dataset, batchify, load_dataset
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.events import Evaluated
from engine.training.batches import sample_bptt_length
from engine.training.run import train
from tests.support.training import events_of, make_config, make_trainer


def test_variable_window_lengths_vary_around_bptt_and_half_of_it() -> None:
    options = TrainingConfig(bptt=70, variable_bptt=True)
    rng = random.Random(0)
    lengths = [sample_bptt_length(options, rng) for _ in range(20_000)]
    assert min(lengths) >= 5
    short = [length for length in lengths if length < 52]
    assert len(short) / len(lengths) == pytest.approx(0.05, abs=0.01)
    assert np.mean(short) == pytest.approx(34.5, abs=1)  # lengths are rounded down
    assert np.mean([length for length in lengths if length >= 52]) == pytest.approx(69.5, abs=0.5)


@pytest.mark.parametrize("bptt", [1, 5, 8])
def test_variable_windows_have_at_least_five_steps(bptt: int) -> None:
    rng = random.Random(1)
    assert min(sample_bptt_length(TrainingConfig(bptt=bptt, variable_bptt=True), rng) for _ in range(2000)) == 5


def test_fixed_windows_do_not_use_the_generator() -> None:
    rng = random.Random(1)
    before = rng.getstate()
    assert {sample_bptt_length(TrainingConfig(bptt=33, variable_bptt=False), rng) for _ in range(50)} == {33}
    assert rng.getstate() == before


def test_batchify_cuts_the_text_into_columns() -> None:
    ids = np.arange(11, dtype=np.int32)
    assert batchify(ids, 3).tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]  # 9 and 10 do not fill a row
    assert batchify(ids, 1).tolist() == [[i] for i in range(11)]
    assert batchify(ids, 11).tolist() == [list(range(11))]
    assert np.shares_memory(batchify(ids, 3), ids)  # a text may be larger than memory


def lines_in(text: TokenIds) -> Counter[tuple[int, ...]]:
    """Return the lines of a text that may start in the middle of a line."""
    start = int(np.flatnonzero(text == EOS_ID)[0]) + 1
    lines: list[tuple[int, ...]] = [()]
    for token in np.roll(text, -start).tolist():
        if token == EOS_ID:
            lines.append(())
        else:
            lines[-1] = (*lines[-1], token)
    return Counter(line for line in lines if line)


def test_shuffling_changes_only_the_order_of_the_lines(dataset: Dataset) -> None:
    trainer = make_trainer(dataset, shuffle_lines=True)
    texts = [trainer.state.windows.draw_epoch()[0] for _ in range(3)]
    for text in texts:
        assert Counter(text.tolist()) == Counter(dataset.train.tolist())
        assert lines_in(text) == lines_in(dataset.train)
        assert not np.array_equal(text, dataset.train)
    assert not np.array_equal(texts[0], texts[1])
    again = make_trainer(dataset, shuffle_lines=True)
    assert np.array_equal(again.state.windows.draw_epoch()[0], texts[0])
    # The dataset itself is unchanged.
    assert np.array_equal(np.concatenate([[*line, EOS_ID] for line in dataset.train_lines]), dataset.train)


def test_without_shuffling_the_text_keeps_its_order(dataset: Dataset) -> None:
    trainer = make_trainer(dataset, shuffle_lines=False)
    assert np.array_equal(trainer.state.windows.draw_epoch()[0], dataset.train)
    assert np.array_equal(trainer.state.windows.draw_epoch()[0], dataset.train)


def test_stream_mode_trains(dataset: Dataset) -> None:
    config = make_config(corpus=dataset.corpus.source, corpus_format="text", mode="stream", epochs=1)
    events = list(train(config, load_dataset(config.data), "r", lambda: False))
    first, last = (event.valid_perplexity for event in events_of(Evaluated, events))
    assert last < first
