"""Distributed training: the same losses as one process, and a bit-exact resume."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.data.dataset import load_dataset
from engine.models.pretrained.names import BASE_FILE
from engine.presets import PRESETS
from engine.runtime.distributed import SINGLE_PROCESS
from tests.support.distributed_worker import train_and_summarize
from tests.support.networks import TRANSFORMER

CHECKOUT = Path(__file__).resolve().parents[3]
SETTINGS = {
    "the default preset": {"lr": 0.03, "ema_decay": 0.9, "epochs": 2},
    "sampled softmax, discriminative rates, gradual unfreezing": {
        "softmax_samples": 10, "num_layers": 2, "variational_dropout": False, "hidden_dropout": 0.3,
        "subword_embeddings": False, "layer_lr_decay": 2.6, "unfreeze_epochs": 1, "epochs": 2, "eval_every_steps": 7,
    },
    "a transformer": {**TRANSFORMER, "variational_dropout": False, "hidden_dropout": 0.3, "lr": 0.03},
    "an adapter": {**TRANSFORMER, "lora_rank": 3, "lr": 0.003},
    "AR and TAR, variable BPTT, NT-ASGD, fine-tuning": {
        "ar": 2.0, "tar": 1.0, "variable_bptt": True, "punctuation": False, "optimizer": "sgd", "lr": 1.0,
        "schedule": "plateau", "averaging": "nt_asgd", "nonmonotone_interval": 1, "eval_every_steps": 3,
        "fine_tune_epochs": 1, "fine_tune_lr": 0.5,
    },
}  # fmt: skip


def make_config(dataset, settings):
    small = {"embedding_size": 16, "hidden_size": 16, "epochs": 1, "batch_size": 4, "bptt": 12, "threads": 1}
    corpus = {"corpus": dataset.corpus.source, "corpus_format": "text", "device": "cpu", "precision": "fp32"}
    return PRESETS["default"].with_values(**(small | corpus | SETTINGS[settings]))


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    texts = [make_config(dataset, settings).to_json() for settings in SETTINGS]
    (folder / "configurations.json").write_text(json.dumps(texts))
    (folder / BASE_FILE).write_text('{"name": "base", "sha256": "0"}')  # named by an adapter that is written again
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    completed = subprocess.run(
        [*torchrun, "-m", "tests.support.distributed_worker", str(folder)], cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    return folder


def read_results(folder, settings):
    results = json.loads((folder / "results.json").read_text())
    return results[list(SETTINGS).index(settings)]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("settings", SETTINGS)
def test_two_processes_have_the_same_losses_as_one(dataset, folder, settings):
    config = make_config(dataset, settings)
    single = train_and_summarize(config, load_dataset(config.data), SINGLE_PROCESS)
    double = read_results(folder, settings)["whole"]
    assert len(single["steps"]) == len(double["steps"]) > 10
    for expected, actual in zip(single["steps"], double["steps"], strict=True):
        assert expected[0] == actual[0]
        assert math.log(expected[1]) == pytest.approx(math.log(actual[1]), abs=1e-4)
        assert expected[2] == pytest.approx(actual[2], rel=1e-3), "the norm of the gradient"
        assert expected[3] == actual[3], "the learning rate"
    for expected, actual in zip(single["evaluated"], double["evaluated"], strict=True):
        assert (expected[0], expected[2]) == (actual[0], actual[2])
        assert math.log(expected[1]) == pytest.approx(math.log(actual[1]), abs=1e-4)
    assert math.log(single["test"]) == pytest.approx(math.log(double["test"]), abs=1e-4)
    assert single["sha256"] != double["sha256"], "sums over two halves must be rounded differently"


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS)
def test_resume_of_two_processes_is_bit_exact(folder, settings):
    results = read_results(folder, settings)
    whole, first, rest = results["whole"], results["first"], results["rest"]
    assert 0 < len(first["steps"]) < len(whole["steps"])
    assert first["steps"] + rest["steps"] == whole["steps"]
    assert first["evaluated"] + rest["evaluated"] == whole["evaluated"]
    assert rest["sha256"] == whole["sha256"]
    assert rest["test"] == whole["test"]
    assert json.loads((folder / "steps-1.json").read_text()) == [0] * len(SETTINGS)  # of the other process
