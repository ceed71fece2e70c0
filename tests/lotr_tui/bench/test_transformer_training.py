"""Baseline of the Transformer, trainings that fit a time, and the comparison at equal time."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.config import Config
from engine.data.dataset import load_dataset
from engine.data.tokenizers.base import EOS_ID
from engine.models.transformer_layout import transformer_weight_shapes
from engine.presets import get_preset
from engine.runs.directory import METRICS_FILE
from engine.runs.loading import load_model
from lotr_tui.bench.measurement import Measurement
from lotr_tui.bench.training import budget, equal_time, nanogpt_loop, transformer_loop, transformer_training
from lotr_tui.bench.training.budget import fit_epochs, is_trained, sample_blocks, train_within
from lotr_tui.bench.training.corpora import prepare_dialogues, prepare_tales
from lotr_tui.bench.training.equal_time import EqualTimeOptions, EqualTimeResult, compare_at_equal_time
from lotr_tui.bench.training.nanogpt_loop import NanoGPTTraining, lr_factor
from lotr_tui.bench.training.nanogpt_model import NanoGPT, NanoGPTConfig
from tests.support.files import sentences, write_csv

TINY_SETTINGS = {
    "embedding_size": 16, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "context_size": 16, "bptt": 16,
    "batch_size": 4, "vocabulary_size": 300, "threads": 1,
}  # fmt: skip
PEER_CONFIG = NanoGPTConfig(vocabulary_size=40, context_size=8, num_layers=2, num_heads=2, width=16)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(sentences(400)))
    return path


@pytest.fixture
def short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "measure_speed", lambda config, runs_dir: 15.0)


def make_config(text: Path, **settings: object) -> Config:
    settings = TINY_SETTINGS | {"corpus": str(text), "corpus_format": "text", "precision": "fp32"} | settings
    return get_preset("gpt").with_values(**settings)


def test_baseline_has_the_parameters_of_the_preset_to_within_a_thousandth() -> None:
    config = get_preset("gpt")
    ours = sum(math.prod(shape) for shape in transformer_weight_shapes(config.model, 2048).values())
    baseline = NanoGPT(NanoGPTConfig.from_preset(config, 2048))
    assert sum(parameter.numel() for parameter in baseline.parameters()) == pytest.approx(ours, rel=1e-3)


def test_baseline_reads_no_later_token() -> None:
    model, ids = NanoGPT(PEER_CONFIG), torch.randint(40, (2, 8), generator=torch.Generator().manual_seed(1))
    changed = ids.clone()
    changed[:, 5:] = 7
    difference = (model(ids) - model(changed)).abs().amax(dim=(0, 2))
    assert difference[:5].max() == 0
    assert difference[5:].min() > 0


@pytest.mark.parametrize("length", [1, 7, 8, 9, 12, 13, 50])
def test_baseline_scores_every_token_once_in_windows_that_overlap_by_half(length: int) -> None:
    model = NanoGPT(PEER_CONFIG)
    ids = np.random.default_rng(length).integers(0, 40, length).astype(np.int32)
    expected, window = [], [EOS_ID]
    for token in ids.tolist():
        if len(window) > 8:
            window = window[-5:]  # the last half of the context, and the token that is read now
        log_probs = functional.log_softmax(model(torch.tensor([window]))[0, -1].detach(), -1)
        expected.append(float(log_probs[token]))
        window.append(token)
    np.testing.assert_allclose(model.score_sequence(ids), expected, atol=1e-5)


def test_baseline_learns_a_repeated_text_and_continues_from_its_checkpoint(tmp_path: Path) -> None:
    ids = np.tile(np.arange(2, 38), 50)
    training = NanoGPTTraining(NanoGPT(PEER_CONFIG), ids, batch_size=8, lr=0.01)
    losses = [float(training.train_step(0.1)) for _ in range(60)]
    assert losses[0] == pytest.approx(math.log(40), abs=0.2)
    assert losses[-1] < 1
    training.save(tmp_path / "checkpoint.safetensors", 12.5)
    resumed = NanoGPTTraining(NanoGPT(PEER_CONFIG, seed=1), ids, batch_size=8, lr=0.01)
    resumed.load(tmp_path / "checkpoint.safetensors")
    assert (resumed.num_steps, resumed.seconds) == (60, 12.5)
    assert [float(resumed.train_step(0.2)) for _ in range(3)] == [float(training.train_step(0.2)) for _ in range(3)]


def test_rate_of_the_baseline_warms_up_and_falls_to_a_tenth() -> None:
    assert lr_factor(0.01) == pytest.approx(0.5)
    assert lr_factor(0.02) == 1
    assert lr_factor(1) == pytest.approx(0.1)


def test_both_loops_are_timed(text: Path) -> None:
    config = make_config(text)
    assert transformer_loop.time_loop(config) > 0
    assert nanogpt_loop.time_loop(config) > 0


def test_each_loop_runs_in_a_new_process_with_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    options = []
    monkeypatch.setattr(transformer_training, "run_module", lambda module, text: options.append(json.loads(text)) or 5)
    (*_, ratio) = transformer_training.measure_transformer_training(1, Path("lines.csv"))
    assert ratio.value == 1
    assert len(options) == 4  # of each loop, one that is not counted
    assert all(option == options[0] for option in options)
    assert options[0]["settings"] == {"precision": "fp32", "corpus": "lines.csv"}


def test_ratio_of_the_loops_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {transformer_training.TRAINER_MODULE: 30.0, transformer_training.BASELINE_MODULE: 20.0}
    monkeypatch.setattr(transformer_training, "measure_loop", lambda module, settings: speeds[module])
    ours, baseline, ratio = transformer_training.measure_transformer_training(2, None)
    assert isinstance(ratio, Measurement)
    assert (ours.value, baseline.value, ratio.value) == (30, 20, 1.5)
    assert (ratio.lower_limit, ratio.is_within_limits) == (1.0, True)


def test_epochs_fit_the_tokens_that_can_be_read() -> None:
    config = get_preset("gpt").with_values(epochs=4)  # reads 4,096 tokens per step, in order
    fitted, num_tokens = fit_epochs(config, 1_000_000, 2_500_000)
    assert (fitted.training.epochs, num_tokens) == (3, 833_333)
    fitted, num_tokens = fit_epochs(config, 1_000_000, 400_000)
    assert (fitted.training.epochs, num_tokens, fitted.training.eval_every_steps) == (1, 400_000, 12)
    fitted, num_tokens = fit_epochs(config, 1_000_000, 9e9)
    assert (fitted.training.epochs, num_tokens) == (4, 1_000_000)
    shuffled = config.with_values(shuffle_lines=True)
    fitted, num_tokens = fit_epochs(shuffled, 1_000_000, 2_500_000)
    assert (fitted.training.epochs, num_tokens) == (2, 1_000_000)


def test_a_part_of_the_text_consists_of_blocks_in_their_order(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "BLOCK_TOKENS", 100)
    dataset = load_dataset(make_config(text).data)
    numbered = replace(dataset, train=np.arange(len(dataset.train), dtype=np.int32))
    part = sample_blocks(numbered, 730, 0).train
    assert len(part) == 730
    assert (np.diff(part) > 0).all()
    assert np.count_nonzero(np.diff(part) > 1) > 2
    assert sample_blocks(dataset, len(dataset.train), 0) is dataset


@pytest.mark.usefixtures("short_probe")
def test_a_training_within_a_time_is_done_once(text: Path, tmp_path: Path) -> None:
    config, messages = make_config(text), list[str]()
    training = train_within(config, "run", tmp_path, 900.0, messages.append)
    assert training.epochs == 2
    assert training.num_tokens == pytest.approx(0.94 * 900 * 15, abs=2)
    assert is_trained(training.path, 900.0)
    assert train_within(config, "run", tmp_path, 900.0, messages.append) == training
    assert len(messages) == 1


def test_a_training_stops_when_the_time_is_over_and_continues_with_more(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "measure_speed", lambda config, runs_dir: 1e9)  # far too fast
    config = make_config(text, epochs=100_000, eval_every_epochs=100_000)
    stopped = train_within(config, "run", tmp_path, 0.5, lambda text: None)
    assert stopped.seconds > 0.45
    assert is_trained(stopped.path, 0.5)
    assert not is_trained(stopped.path, 100)
    continued = train_within(config, "run", tmp_path, stopped.seconds + 0.3, lambda text: None)
    assert continued.seconds > stopped.seconds
    assert continued.epochs > stopped.epochs
    assert continued.train_tokens == stopped.train_tokens
    events = [json.loads(line)["event"] for line in (continued.path / METRICS_FILE).read_text().splitlines()]
    assert "resume" in events


@pytest.mark.usefixtures("short_probe")
def test_models_are_compared_at_equal_time_on_the_same_characters(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TINY_SETTINGS | {"corpus": str(text), "corpus_format": "text", "held_out": 0.1}
    options = EqualTimeOptions(tmp_path / "runs", 0.7, settings)
    results = compare_at_equal_time(options, report=lambda text: None)
    assert [result.model for result in results] == ["transformer", "nanogpt", "lstm"]
    assert all(0 < result.valid_bits_per_character < 10 for result in results)
    run = load_model(tmp_path / "runs" / "transformer-0.7s")
    assert run.bits_per_character == results[0].valid_bits_per_character
    monkeypatch.setattr(equal_time, "train_within", None)
    monkeypatch.setattr(equal_time, "NanoGPTTraining", None)
    assert compare_at_equal_time(options) == results  # nothing is trained again


def test_results_at_equal_time_are_a_table() -> None:
    table = equal_time.to_markdown([EqualTimeResult("lstm", 6_000_000, 600.2, 3_000_000, 1.9876)])
    assert table.splitlines()[-1] == "| lstm | 6,000,000 | 600 | 4,998 | 3.00 M | 1.988 |"


def test_splits_of_the_dialogues_are_written_once(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "lines.csv", sentences(400))
    paths = prepare_dialogues(csv, tmp_path / "runs")
    lines = [path.read_text().splitlines() for path in paths.values()]
    assert [len(part) for part in lines] == [320, 40, 40]
    assert sorted(line for part in lines for line in part) == sorted(sentences(400))
    csv.unlink()
    assert prepare_dialogues(csv, tmp_path / "runs") == paths


def test_tales_may_be_one_file(text: Path, tmp_path: Path) -> None:
    assert prepare_tales(text, tmp_path / "runs") == text
