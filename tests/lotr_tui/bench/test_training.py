"""Measurements of training speed, of several processes, and of growth with the data."""

import json
import math
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.data.dataset import load_dataset
from engine.data.tokenizers.words import split_words
from engine.presets import get_preset
from engine.training.trainer import Trainer
from lotr_tui.bench.measurement import Measurement, SkippedMeasurement
from lotr_tui.bench.terminal import BenchError
from lotr_tui.bench.training import byte_pairs, gpu, gpu_speed, growth, loop_speed, notebook_loop, quality, speed
from lotr_tui.bench.training.distributed import TrainingResult, max_loss_difference, train
from lotr_tui.bench.training.synthetic_text import write_synthetic_text
from tests.support.files import sentences, write_csv


def test_flops_per_token_count_the_matrix_products() -> None:
    config = get_preset("notebook")
    products = 2 * 4 * 512 * (512 + 512) + 512 * 879  # four gates in each of two layers, and the output
    assert loop_speed.flops_per_token(config, 879) == 3 * 2 * products
    tied = get_preset("tiny").with_values(embedding_size=30, hidden_size=50, num_layers=2)
    assert loop_speed.flops_per_token(tied, 100) == 6 * (4 * 50 * (30 + 50) + 4 * 30 * (50 + 30) + 30 * 100)


def test_baseline_counts_and_reads_complete_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook_loop, "HIDDEN_SIZE", 8)
    monkeypatch.setattr(notebook_loop, "BATCH_SIZE", 4)
    monkeypatch.setattr(notebook_loop, "BPTT", 10)
    assert notebook_loop.tokens_per_epoch(4 * 51) == 4 * 50  # the last token of a column has no target
    assert notebook_loop.tokens_per_epoch(4 * 50) == 4 * 40
    path = write_csv(tmp_path / "lines.csv", sentences(60))
    dataset = load_dataset(get_preset("notebook").with_values(corpus=str(path)).data)
    seconds = list(notebook_loop.train_epochs(dataset, 2))
    assert len(seconds) == 2
    assert all(value > 0 for value in seconds)


def test_ratios_of_training_speeds_are_computed_within_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = iter([speed.TrainingSpeed(30.0, 8.0), speed.TrainingSpeed(20.0, 9.0)])
    baselines = iter([speed.BaselineTraining(10, (9.0, 1.0)), speed.BaselineTraining(40, (9.0, 2.0))])
    monkeypatch.setattr(speed, "measure_loop", lambda *_: next(loops))
    monkeypatch.setattr(speed, "measure_matmul_flops_per_second", lambda _: 10.0)
    monkeypatch.setattr(speed, "run_baseline", lambda csv, epochs: next(baselines))
    monkeypatch.setattr(speed, "has_bf16", lambda: False)
    *measurements, skipped = speed.measure_training(2, None)
    ours, baseline, ratio, utilization = (item for item in measurements if isinstance(item, Measurement))
    assert (ours.value, baseline.value) == (25, 15)
    assert ratio.runs == (3, 1)
    assert (ratio.lower_limit, ratio.is_within_limits) == (1.1, True)
    assert utilization.value == pytest.approx(0.85)
    assert utilization.is_within_limits is False
    assert isinstance(skipped, SkippedMeasurement)
    assert "bf16" in skipped.name


def test_speeds_are_measured_in_new_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    path = write_csv(tmp_path / "lines.csv", sentences(500))
    baseline = speed.run_baseline(path, epochs=1)
    assert baseline.tokens_per_epoch > 0
    assert len(baseline.epoch_seconds) == 1
    assert speed.measure_matmul_flops_per_second("fp32") > 1e6


def test_time_to_quality_ends_below_the_perplexity_of_kneser_ney(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        '{"event": "preparing", "message": "x"}',
        '{"event": "started", "kneser_ney_perplexity": 20.0}',
        '{"event": "evaluated", "valid_perplexity": 30.0}',
        '{"event": "evaluated", "valid_perplexity": 19.0}',
    ]
    program = "; ".join(f"print({line!r}, flush=True)" for line in lines)
    monkeypatch.setattr(quality, "SESSION_COMMAND", [sys.executable, "-c", program])
    assert 0 < quality.seconds_to_quality(Path("lines.csv")) < math.inf
    monkeypatch.setattr(quality, "SESSION_COMMAND", [sys.executable, "-c", f"print({lines[1]!r})"])
    with pytest.raises(BenchError, match="above the perplexity of Kneser-Ney"):
        quality.seconds_to_quality(Path("lines.csv"))


def test_only_complete_windows_are_timed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "lines.csv", sentences(60))
    config = get_preset("tiny").with_values(corpus=str(path), hidden_size=8, embedding_size=8, bptt=20, batch_size=4)
    trainer = Trainer(config, load_dataset(config.data), torch.device("cpu"))
    positions = []
    for _ in range(6):
        assert loop_speed.time_full_window(trainer) > 0
        positions.append(trainer.state.windows.position)
    assert all(position % 20 == 0 and position for position in positions)
    assert trainer.state.progress.step > len(positions)  # the incomplete windows were read too


def test_training_by_two_processes_reports_every_step() -> None:
    small = {"hidden_size": 8, "embedding_size": 8, "batch_size": 256, "epochs": 1, "eval_every_epochs": 1}
    result = train(2, 1, **small)
    assert len(result.losses) == 8  # 102,000 tokens in 256 columns, 50 of each per step
    assert result.tokens_per_second > 0
    first, second, third, *others = result.losses
    other = TrainingResult(1.0, (first, second + 0.5, third - 0.25, *others))
    assert max_loss_difference(other, result) == pytest.approx(0.5)


def test_failed_training_is_an_error_with_its_message() -> None:
    with pytest.raises(BenchError, match="failed: lotr-tui: batch_size=0 is not a whole number"):
        train(1, 1, batch_size=0)


def test_synthetic_text_has_the_requested_words_or_more_with_its_size(tmp_path: Path) -> None:
    num_distinct = []
    for num_bytes, num_words in ((60_000, 300), (60_000, 0), (1_200_000, 0)):
        path = tmp_path / "text.txt"
        write_synthetic_text(path, num_bytes, num_words)
        assert num_bytes <= path.stat().st_size < num_bytes + 1_200_000
        words = [word for line in path.read_text().splitlines() for word in split_words(line)]
        num_distinct.append(len(set(words)))
        top_fraction = Counter(words).most_common(1)[0][1] / len(words)
        assert 0.05 < top_fraction < 0.25, "the most frequent word is as frequent as `the`"
    assert num_distinct[0] == 300
    assert 1_000 < num_distinct[1] < num_distinct[2]


def test_growth_is_measured_for_small_texts_and_vocabularies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "VOCABULARY_TEXT_BYTES", 60_000)
    measurements = list(
        growth.measure_growth(1, text_megabytes=(0.05, 0.1), vocabulary_sizes=(300,), softmax_samples=100)
    )
    names = [measurement.name for measurement in measurements]
    assert len(names) == len(set(names)) == 2 * 6 + 1 + 2 + 3 + 2
    assert "training step, 300 words, softmax over 100 samples" in names
    assert "train on 0.1 MB, to the first step" in names
    assert all(measurement.value > 0 for measurement in measurements)


def test_byte_pairs_are_measured_for_a_small_text() -> None:
    measurements = list(byte_pairs.measure_byte_pairs(1, megabytes=0.2))
    assert [measurement.unit for measurement in measurements] == ["s", "s", "MB"]
    assert all(measurement.value > 0 for measurement in measurements)


def test_gpu_speeds_are_compared_by_precision_and_with_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"fp32": 100.0, "bf16": 150.0, "cpu": 4.0}

    def run_module(_: str, options: str) -> dict[str, object]:
        values = json.loads(options)
        if not values:
            return {"gpu": "H100"}
        rate = rates["cpu" if values["device"] == "cpu" else values["precision"]]
        return {"tokens_per_second": rate, "peak_bytes": 2e9 if values["precision"] == "fp32" else 1e9}

    monkeypatch.setattr(gpu, "run_module", run_module)
    values = {
        item.name.split(" on H100, ")[1]: item.value for item in gpu.measure_gpu(1) if isinstance(item, Measurement)
    }
    assert values == {
        "fp32": 100, "bf16": 150, "ratio of bf16 to fp32": 1.5, "peak GPU memory": 2000,
        "ratio of fp32 to all cores of the CPU": 25,
    }  # fmt: skip
    monkeypatch.setattr(gpu, "run_module", lambda *_: {"gpu": None})
    (skipped,) = gpu.measure_gpu(1)
    assert isinstance(skipped, SkippedMeasurement)


def test_speed_of_steps_counts_their_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_speed, "NUM_BYTES", 20_000)
    monkeypatch.setattr(gpu_speed, "NUM_DISTINCT_WORDS", 50)
    monkeypatch.setattr(gpu_speed, "WARMUP_STEPS", 0)
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(gpu_speed, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    tiny = get_preset("tiny").training
    result = gpu_speed.measure_steps("tiny", "fp32", "cpu", 2)
    assert result["peak_bytes"] == 0
    assert result["tokens_per_second"] == pytest.approx(tiny.batch_size * tiny.bptt)
