"""What a training reads in an epoch: columns, lines in another order, windows drawn at random, or a stream."""

import random
from collections import Counter

import numpy as np
import pytest

from engine.config import TrainingConfig
from engine.data.dataset import Dataset, columns_of, prepare
from engine.data.vocabulary import EOS_ID, Ids
from engine.events import Evaluated
from engine.training.run import train
from engine.training.schedule import window_length
from tests.support.training import config_of, loop_of, of


def test_window_lengths_are_drawn_around_the_full_one_and_its_half() -> None:
    options = TrainingConfig(window=70, variable_window=True)
    chance = random.Random(0)
    lengths = [window_length(options, chance) for _ in range(20_000)]
    assert min(lengths) >= 5
    short = [length for length in lengths if length < 52]
    assert len(short) / len(lengths) == pytest.approx(0.05, abs=0.01)
    assert np.mean(short) == pytest.approx(34.5, abs=1)  # a whole number below the one drawn
    assert np.mean([length for length in lengths if length >= 52]) == pytest.approx(69.5, abs=0.5)


@pytest.mark.parametrize("window", [1, 5, 8])
def test_drawn_windows_have_at_least_five_steps(window: int) -> None:
    chance = random.Random(1)
    assert min(window_length(TrainingConfig(window=window, variable_window=True), chance) for _ in range(2000)) == 5


def test_fixed_windows() -> None:
    chance = random.Random(1)
    before = chance.getstate()
    assert {window_length(TrainingConfig(window=33, variable_window=False), chance) for _ in range(50)} == {33}
    assert chance.getstate() == before


def test_columns_by_hand() -> None:
    ids = np.arange(11, dtype=np.int32)
    assert columns_of(ids, 3).tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]  # 9 and 10 fill no row
    assert columns_of(ids, 1).tolist() == [[i] for i in range(11)]
    assert columns_of(ids, 11).tolist() == [list(range(11))]
    assert np.shares_memory(columns_of(ids, 3), ids)  # a text may be larger than memory


def lines_in(text: Ids) -> Counter[tuple[int, ...]]:
    """The lines of a text that may begin in the middle of one."""
    start = int(np.flatnonzero(text == EOS_ID)[0]) + 1
    lines: list[tuple[int, ...]] = [()]
    for token in np.roll(text, -start).tolist():
        if token == EOS_ID:
            lines.append(())
        else:
            lines[-1] = (*lines[-1], token)
    return Counter(line for line in lines if line)


def test_shuffling_changes_the_order_of_the_lines_and_nothing_else(dataset: Dataset) -> None:
    loop = loop_of(dataset, shuffle_lines=True)
    texts = [loop._epoch_text()[0] for _ in range(3)]
    for text in texts:
        assert Counter(text.tolist()) == Counter(dataset.train.tolist())
        assert lines_in(text) == lines_in(dataset.train)
        assert not np.array_equal(text, dataset.train)
    assert not np.array_equal(texts[0], texts[1])
    again = loop_of(dataset, shuffle_lines=True)
    assert np.array_equal(again._epoch_text()[0], texts[0])
    # Nothing of the data set itself was moved.
    assert np.array_equal(np.concatenate([[*line, EOS_ID] for line in dataset.train_lines]), dataset.train)


def test_without_shuffling_the_text_is_read_as_it_stands(dataset: Dataset) -> None:
    loop = loop_of(dataset, shuffle_lines=False)
    assert np.array_equal(loop._epoch_text()[0], dataset.train)
    assert np.array_equal(loop._epoch_text()[0], dataset.train)


def test_stream_mode_trains_as_well(dataset: Dataset) -> None:
    config = config_of(corpus=dataset.corpus.source, corpus_format="text", mode="stream", epochs=1)
    events = list(train(config, prepare(config.data), "r", lambda: False))
    first, last = (event.valid_perplexity for event in of(Evaluated, events))
    assert last < first
