"""Variants of an ablation, their summaries, and trainings in worker processes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from engine.config import Config
from engine.data.dataset import load_dataset
from engine.errors import ConfigError, CorpusError
from engine.events import Finished
from engine.presets import PRESETS, get_preset
from engine.training import ablation
from engine.training.ablation import Trial, Variant, list_variants, run_ablation, select_variants
from engine.training.run import train
from tests.support.files import sentences
from tests.support.initial_runs import random_weights, write_initial_run


def flat(config):
    """Return every setting by name."""
    return {name: value for part in ("data", "model", "training") for name, value in asdict(config)[part].items()}


def changed(config, variant):
    before, after = flat(config), flat(config.with_overrides(list(variant.overrides)))
    return {name: after[name] for name in before if after[name] != before[name]}


def setting_names(variant):
    return [setting.partition("=")[0] for setting in variant.overrides]


@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_comes_first_and_every_variant_changes_only_its_settings(name):
    config = get_preset(name)
    first, *others = list_variants(config)
    assert first == Variant(name, ())
    assert len(others) >= 5
    for variant in others:
        assert changed(config, variant), f"{variant.name} changes nothing"
        assert set(changed(config, variant)) <= set(setting_names(variant))
    assert len({variant.name for variant in others} | {name}) == len(others) + 1
    results = [config.with_overrides(list(variant.overrides)) for variant in others]
    assert len({result.to_json() for result in results}) == len(others), "two variants are the same training"


def test_techniques_in_use_are_removed_and_others_added():
    config = Config("one").with_values(
        num_layers=1, hidden_dropout=0.3, weight_drop=0.5, ar=2.0, clip=0.0, averaging="nt_asgd", schedule="constant",
        variable_bptt=False, punctuation=False, fine_tune_epochs=0, mogrifier_rounds=0,
    )  # fmt: skip
    names = {variant.name for variant in list_variants(config)}
    assert names >= {
        *("without weight drop", "without weight averaging", "without AR and TAR", "without weight tying"),
        *("with variable BPTT", "with punctuation", "with fine-tuning", "with a second layer", "with a mogrifier"),
    }
    assert not names & {
        *("without dropout between layers", "without gradient clipping", "without variable BPTT"),
        *("without a schedule (constant learning rate)", "with NT-ASGD after SGD", "with AR and TAR"),
        *("without a mogrifier", "without punctuation", "with gradual unfreezing"),
    }
    lstm_only = {"weight_drop", "subword_embeddings", "punctuation", "variable_bptt", "mogrifier_rounds"}
    for variant in list_variants(get_preset("gpt")):
        assert not lstm_only & set(setting_names(variant)), variant.name


def test_fine_tuning_has_a_row_for_each_technique_of_ulmfit_and_one_without_pre_training():
    config = get_preset("finetune")
    variants = {variant.name: changed(config, variant) for variant in list_variants(config)}
    ulmfit = {"layer_lr_decay": 2.6, "unfreeze_epochs": 1, "schedule": "slanted_triangular", "warmup_fraction": 0.1}
    assert variants["with all three techniques of ULMFiT"] == ulmfit
    for name in ("discriminative learning rates", "gradual unfreezing", "a slanted triangular schedule"):
        assert variants[f"with {name}"].items() < ulmfit.items()
    assert variants["without pre-training (random weights)"] == {"init": ""}
    fixed = {"tie_weights", "punctuation", "num_layers", "unigram_bias"}
    assert all(not fixed & values.keys() for values in variants.values()), "the initial run determines these settings"
    tuned = {variant.name for variant in list_variants(config.with_values(**ulmfit))}
    assert "without gradual unfreezing" in tuned
    assert not any("ULMFiT" in name for name in tuned)


def test_an_unknown_variant_is_refused_with_the_nearest_name_and_all_names():
    with pytest.raises(ConfigError) as caught:
        select_variants(get_preset("default"), ["default", "without weight drip"])
    message = str(caught.value)
    assert message.startswith("unknown variant 'without weight drip'; did you mean without weight drop?")
    assert all(variant.name in message for variant in list_variants(get_preset("default")))
    assert select_variants(get_preset("default"), []) == list_variants(get_preset("default"))
    # The preset does not use this technique, so it cannot be removed.
    with pytest.raises(ConfigError, match="unknown variant"):
        select_variants(get_preset("default"), ["without AR and TAR"])


def test_summaries_are_means_and_ranges():
    trials = [
        Trial("b", (), 0, 13.0, 20.0, 1.0),
        Trial("a", ("x=1",), 0, 7.0, 9.0, 1.0),
        Trial("b", (), 1, 10.0, 18.0, 2.0),
        Trial("b", (), 2, 16.0, 25.0, 3.0),
    ]
    first, second = ablation.summarize_trials(trials)
    assert (first.variant, first.valid_mean, first.valid_range) == ("b", 13.0, 6.0)
    assert (first.test_mean, first.test_range) == (21.0, 7.0)
    assert (second.variant, second.valid_mean, second.valid_range) == ("a", 7.0, 0.0)
    assert (second.test_mean, second.test_range) == (9.0, 0.0)
    assert ablation.summarize_trials([]) == []


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(sentences(60)))
    data = {"corpus": str(path), "corpus_format": "text"}
    model = {"embedding_size": 8, "hidden_size": 8}
    return get_preset("tiny").with_values(**data, **model, epochs=1, batch_size=4, threads=1, device="cpu")


class ThreadPool(ThreadPoolExecutor):
    """Pool that runs tasks in threads, since processes start slowly."""

    def __init__(self, jobs, context, max_tasks_per_child):
        assert context.get_start_method() == "spawn"
        assert max_tasks_per_child == 1
        super().__init__(jobs)


class RecordingPool(ThreadPool):
    """Pool whose tasks return the configuration that they would train."""

    def submit(self, function, config, *rest):
        return super().submit(lambda: config)


def replace_pool(monkeypatch, pool):
    monkeypatch.setenv("GOMP_SPINCOUNT", "3000")  # a trial sets this variable; restore it afterwards
    monkeypatch.setattr("engine.training.ablation.ProcessPoolExecutor", pool)


def train_alone(config, initial_weights=None):
    dataset = load_dataset(config.data)
    *_, finished = train(config, dataset, "alone", lambda: False, initial_weights=initial_weights)
    assert isinstance(finished, Finished)
    return finished


def test_every_variant_is_trained_with_every_seed_like_a_single_training(config, one_thread, monkeypatch):
    replace_pool(monkeypatch, ThreadPool)
    variants = select_variants(config, ["tiny", "without weight tying"])  # in the given order
    trials = list(run_ablation(config, variants, [3, 4], jobs=1))
    assert [(trial.variant, trial.overrides, trial.seed) for trial in trials] == [
        ("tiny", (), 3),
        ("tiny", (), 4),
        ("without weight tying", ("tie_weights=false",), 3),
        ("without weight tying", ("tie_weights=false",), 4),
    ]
    for trial in trials:
        finished = train_alone(config.with_values(seed=trial.seed, tie_weights=trial.variant == "tiny"))
        assert trial.valid_perplexity == finished.valid_perplexity
        assert trial.test_perplexity == finished.test_perplexity
        assert trial.seconds > 0
    assert len({trial.valid_perplexity for trial in trials}) == 4


def test_fine_tuning_variants_start_from_the_initial_run(config, home, one_thread, monkeypatch):
    replace_pool(monkeypatch, ThreadPool)
    (home / "runs").mkdir(parents=True)
    tokenizer = load_dataset(config.data).tokenizer
    weights = random_weights(config, tokenizer)
    write_initial_run(home / "runs" / "old", tokenizer, weights, embedding_size=8, hidden_size=8, punctuation=True)
    config = config.with_values(init="old")
    names = ["tiny", "without pre-training (random weights)"]
    trials = list(run_ablation(config, select_variants(config, names), [0], jobs=1))
    expected = [train_alone(config, weights), train_alone(config.with_values(init=""))]
    assert [trial.valid_perplexity for trial in trials] == [finished.valid_perplexity for finished in expected]
    assert len({trial.valid_perplexity for trial in trials}) == 2


@pytest.mark.slow
def test_a_worker_process_gives_the_same_perplexities(config, one_thread):
    (trial,) = run_ablation(config, select_variants(config, ["without weight drop"]), [5], jobs=1)
    finished = train_alone(config.with_values(seed=5, weight_drop=0.0))
    assert trial.valid_perplexity == pytest.approx(finished.valid_perplexity, rel=1e-6)
    assert trial.test_perplexity == pytest.approx(finished.test_perplexity, rel=1e-6)


@pytest.mark.parametrize(("jobs", "threads"), [(1, 2), (2, 1)])
def test_parallel_trainings_use_one_thread_each(config, monkeypatch, jobs, threads):
    replace_pool(monkeypatch, RecordingPool)
    variants = [Variant("a", ()), Variant("b", ("clip=0",))]
    trainings = [each.training for each in run_ablation(config.with_values(threads=2), variants, [0, 7], jobs)]
    assert [each.threads for each in trainings] == [threads] * 4
    assert [(each.clip, each.seed) for each in trainings] == [(1, 0), (1, 7), (0, 0), (0, 7)]


def test_a_bad_corpus_is_refused_before_any_process_starts(config, monkeypatch):
    replace_pool(monkeypatch, lambda *_, **__: pytest.fail("a process was started"))
    with pytest.raises(CorpusError):
        list(run_ablation(config.with_values(corpus="/nowhere/at/all.txt"), list_variants(config), [0], jobs=1))
