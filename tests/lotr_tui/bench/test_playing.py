"""Measurements of generation and of the memorization index."""

from pathlib import Path

import numpy as np
import pytest

from engine.analysis.memorization import TrainingIndex
from engine.config import ModelConfig
from lotr_tui.bench.measurement import Measurement
from lotr_tui.bench.playing import branch, reply_speed
from lotr_tui.bench.playing.generation import summarize_speeds
from lotr_tui.bench.playing.generation_speeds import (
    generate_batched,
    generate_sequentially,
    measure_speeds,
    multiply_all,
    random_decoder,
    weight_bytes_per_token,
    without_eos,
)
from lotr_tui.bench.playing.memorization import half_memorized_reply, load_as_train_split, measure_memorization
from lotr_tui.bench.playing.notebook_generation import BaselineLSTM
from lotr_tui.session.session_file import load_session

LARGE_WEIGHT_BYTES = (3 * 2048 + 879) * 512 * 4
BATCH_SPEED_NAMES = {f"{model}_{method}" for model in ("large", "bundled") for method in ("sequential", "batched")}
SPEED_NAMES = {"bundled", "large", "memory_bound", "int8", *BATCH_SPEED_NAMES}


def test_branches_start_at_the_last_word(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch, "BRANCHES_PER_RUN", 3)
    seconds = branch.time_branches(4)
    assert len(seconds) == 3
    assert all(value > 0 for value in seconds)
    (path,) = (home / "sessions").iterdir()
    reply, *branches = load_session(path).replies
    assert [(saved.parent_id, saved.parent_offset, len(saved.tokens)) for saved in branches] == [
        (reply.id, len(reply.tokens) - 1, 2)
    ] * 3


def test_half_of_the_reply_is_copied_from_the_training_text(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path = tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(f"w{n}" for n in rng.integers(400, size=12)) for _ in range(300)))
    dataset = load_as_train_split(path)
    assert sum(len(line) for line in dataset.train_lines) == 3600
    reply = half_memorized_reply(dataset, 96, 0)
    assert len(reply) == 96
    report = TrainingIndex.from_dataset(dataset).find_passages(reply)
    assert 48 <= report.memorized_mask.sum() <= 60
    index, lookup = list(measure_memorization(2, path))
    assert isinstance(index, Measurement)
    assert isinstance(lookup, Measurement)
    assert (index.unit, lookup.unit) == ("s", "ms")
    assert "3,600 words" in index.name
    assert len(index.runs) == len(lookup.runs) == 2


def test_ratios_of_speeds_are_computed_within_each_run() -> None:
    runs = [
        {
            "baseline": n * 100,
            "bundled": n * 7000,
            "large": n * 1700,
            "memory_bound": n * 2000,
            "int8": n * 2500,
            "large_sequential": n * 1600,
            "large_batched": n * 8000,
            "bundled_sequential": n * 7000,
            "bundled_batched": n * 21000,
            "words_all": n * 7000,
            "words_first": n * 3000,
            "default_all": n * 4000,
            "default_first": n * 2000,
            "bundled_all": n * 6500,
            "bundled_first": n * 4500,
        }
        for n in (1, 2, 9)
    ]
    measurements = [item for item in summarize_speeds(runs) if isinstance(item, Measurement)]
    assert len(measurements) == len(list(summarize_speeds(runs)))
    ratios = [measurement for measurement in measurements if measurement.unit == ""]
    assert [ratio.value for ratio in ratios] == pytest.approx([70, 70, 30, 40, 20, 65, 45, 17, 0.85, 25, 5, 3])
    assert [ratio.is_within_limits for ratio in ratios] == [
        True,
        True,
        False,
        None,
        None,
        True,
        True,
        False,
        True,
        True,
        True,
        False,
    ]
    assert [measurement.value for measurement in measurements if measurement.unit][:2] == [200, 14000]
    assert f"{4000 * LARGE_WEIGHT_BYTES / 1e9:.0f} GB/s" in " ".join(measurement.name for measurement in measurements)


@pytest.mark.parametrize("punctuation", [False, True])
def test_all_texts_reach_their_maximum_length(punctuation: bool) -> None:
    config = ModelConfig(embedding_size=8, hidden_size=8, punctuation=punctuation)
    model = without_eos(random_decoder(config, 20))
    assert generate_sequentially(model, (2, 3), 5, 70) == generate_batched(model, (2, 3), 5, 70) == 350


def test_weight_bytes_are_those_of_the_matrices_read_per_token() -> None:
    assert weight_bytes_per_token() == LARGE_WEIGHT_BYTES
    assert multiply_all([np.ones((3, 2), np.float32)], 5) == 5


@pytest.mark.parametrize("name", reply_speed.MODELS)
def test_the_speed_of_first_replies_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_speed, "NUM_REPLIES", 2)
    speeds = reply_speed.measure_replies(name)
    assert set(speeds) == {"first", "all"}
    assert all(speed > 0 for speed in speeds.values())


def test_every_speed_is_measured() -> None:
    speeds = measure_speeds(0)
    assert set(speeds) == SPEED_NAMES
    assert all(value > 0 for name, value in speeds.items() if name != "int8")
    assert BaselineLSTM().sample(5) == 5
