"""Ablation: variants that change one technique, and the training of each with every seed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from engine.config import Config
from engine.data.dataset import load_dataset
from engine.errors import ConfigError
from engine.presets import PRESETS
from engine.training.ablation import Trial, list_variants, run_ablation, select_variants, summarize_trials
from tests.support.files import sentences
from tests.support.models import random_weights
from tests.support.training import train_with, write_initial_run


def changed(config, overrides):
    before, after = (asdict(each) for each in (config, config.with_values(*overrides)))
    parts = ("data", "model", "training")
    return {name: new for part in parts for name, new in after[part].items() if new != before[part][name]}


@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_comes_first_and_every_variant_changes_only_its_settings(name):
    config = PRESETS[name]
    first, *others = list_variants(config).items()
    assert first == (name, [])
    assert len(others) >= 5
    for variant, overrides in others:
        assert changed(config, overrides), f"{variant} changes nothing"
        assert changed(config, overrides).keys() <= {setting.partition("=")[0] for setting in overrides}
    results = {config.with_values(*overrides).to_json() for _, overrides in others}
    assert len(results) == len(others), "two variants are the same training"


def test_techniques_in_use_are_removed_and_others_added():
    config = Config("one").with_values(
        num_layers=1, hidden_dropout=0.3, weight_drop=0.5, ar=2.0, clip=0.0, schedule="constant", variable_bptt=False
    )
    names = list_variants(config).keys()
    assert names >= {"without weight drop", "without AR and TAR", "with variable BPTT", "with a second layer"}
    assert not names & {"without dropout between layers", "without gradient clipping", "without variable BPTT"}
    lstm_only = {"weight_drop", "subword_embeddings", "punctuation", "variable_bptt", "mogrifier_rounds"}
    gpt, fine_tuning = PRESETS["gpt"], list_variants(PRESETS["finetune"])
    assert not any(lstm_only & changed(gpt, overrides).keys() for overrides in list_variants(gpt).values())
    ulmfit = {"layer_lr_decay": 2.6, "unfreeze_epochs": 1, "schedule": "slanted_triangular", "warmup_fraction": 0.1}
    assert changed(PRESETS["finetune"], fine_tuning["with all three techniques of ULMFiT"]) == ulmfit


def test_an_unknown_variant_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="'without weight drip'; did you mean without weight drop"):
        select_variants(PRESETS["default"], ["default", "without weight drip"])
    assert select_variants(PRESETS["default"], []) == list_variants(PRESETS["default"])


def test_summaries_are_means_and_ranges():
    trials = [
        Trial("b", [], 0, 13.0, 20.0, 1.0),
        Trial("a", ["x=1"], 0, 7.0, 9.0, 1.0),
        Trial("b", [], 1, 10.0, 18.0, 2.0),
        Trial("b", [], 2, 16.0, 25.0, 3.0),
    ]
    assert list(summarize_trials(trials).items()) == [("b", [13.0, 6.0, 21.0, 7.0]), ("a", [7.0, 0.0, 9.0, 0.0])]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(sentences(60)))
    values = {"embedding_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 4, "threads": 1, "device": "cpu"}
    return PRESETS["tiny"].with_values(corpus=str(path), corpus_format="text", **values)


def train_alone(config, initial_weights=None):
    return train_with(config, load_dataset(config.data), initial_weights)[-1]


class ThreadPool(ThreadPoolExecutor):
    """Pool that runs tasks in threads, since processes start slowly."""

    def __init__(self, jobs, context, max_tasks_per_child):
        super().__init__(jobs)


def test_every_variant_is_trained_with_every_seed_like_a_single_training(config, home, one_thread, monkeypatch):
    """Fine-tuning variants start from the initial run, and the last one from random weights."""
    monkeypatch.setattr("engine.training.ablation.ProcessPoolExecutor", ThreadPool)
    (home / "runs").mkdir(parents=True)
    tokenizer = load_dataset(config.data).tokenizer
    weights = random_weights(config.model, tokenizer)
    write_initial_run(home / "runs" / "old", tokenizer, weights, embedding_size=8, hidden_size=8, punctuation=True)
    config = config.with_values(init="old")
    names = ["tiny", "without pre-training (random weights)"]  # in the given order
    trials = list(run_ablation(config, select_variants(config, names), [3, 4], jobs=1))
    assert [(trial.variant, trial.seed) for trial in trials] == [(name, seed) for name in names for seed in (3, 4)]
    for trial in trials:
        values = {"seed": trial.seed} | ({} if trial.variant == "tiny" else {"init": ""})
        finished = train_alone(config.with_values(**values), weights if trial.variant == "tiny" else None)
        assert trial.valid_perplexity == finished.valid_perplexity
        assert trial.test_perplexity == finished.test_perplexity
        assert trial.seconds > 0
    assert len({trial.valid_perplexity for trial in trials}) == 4
    taught = config.with_values(init="", teachers=" old ,")
    (trial,) = run_ablation(taught, {"tiny": []}, [3], jobs=1)
    assert trial.valid_perplexity not in {each.valid_perplexity for each in trials}


@pytest.mark.slow
def test_a_worker_process_gives_the_same_perplexities(config, one_thread):
    (trial,) = run_ablation(config, select_variants(config, ["without weight drop"]), [5], jobs=1)
    finished = train_alone(config.with_values(seed=5, weight_drop=0.0))
    assert trial.valid_perplexity == pytest.approx(finished.valid_perplexity, rel=1e-6)
    assert trial.test_perplexity == pytest.approx(finished.test_perplexity, rel=1e-6)
