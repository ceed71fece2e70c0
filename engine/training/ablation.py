"""Ablation study: the same training with one technique removed or added, for several seeds."""

import multiprocessing
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from engine.config import Config
from engine.errors import ConfigError, suggest_nearest
from engine.events import Finished
from engine.models.weights import TRANSFORMER_VALUES
from engine.runtime.process import require_package
from engine.training.job import INHERITED_SETTINGS, canonical_config, load_training_input

# Overrides of the form "setting=value" that remove or add a technique; a study has the ones that change its preset.
# ULMFiT: Howard and Ruder 2018.
REMOVALS = {
    "weight drop": "weight_drop=0",
    "variational dropout (a new mask at each step)": "variational_dropout=false",
    "input dropout": "input_dropout=0",
    "dropout between layers": "hidden_dropout=0",
    "output dropout": "output_dropout=0",
    "embedding dropout": "embedding_dropout=0",
    "weight tying": "tie_weights=false",
    "subword embeddings": "subword_embeddings=false",
    "punctuation": "punctuation=false",
    "unigram bias": "unigram_bias=false",
    "shuffled lines": "shuffle_lines=false",
    "a schedule (constant learning rate)": "schedule=constant",
    "weight averaging": "averaging=none",
    "weight decay": "weight_decay=0",
    "gradient clipping": "clip=0",
    "variable BPTT": "variable_bptt=false",
    "AR and TAR": "ar=0 tar=0",
    "label smoothing": "label_smoothing=0",
    "pre-training (random weights)": "init=",
    "a mogrifier": "mogrifier_rounds=0",
    "discriminative learning rates": "layer_lr_decay=1",
    "gradual unfreezing": "unfreeze_epochs=0",
    "dropout of the adapter": "lora_dropout=0",
    "a loss of utterances only": "name_weight=1",
}
ADDITIONS = {
    "punctuation": "punctuation=true",
    "variable BPTT": "variable_bptt=true",
    "AR and TAR": "ar=2 tar=1",
    "NT-ASGD after SGD": "optimizer=sgd lr=10 schedule=constant averaging=nt_asgd weight_decay=1.2e-6",
    "fine-tuning": "fine_tune_epochs=16 fine_tune_lr=1",
    "a second layer": "num_layers=2",
    "a mogrifier": "mogrifier_rounds=4",
}
ULMFIT = "all three techniques of ULMFiT"
FINE_TUNING_ADDITIONS = {
    "discriminative learning rates": "layer_lr_decay=2.6",
    "gradual unfreezing": "unfreeze_epochs=1",
    "a slanted triangular schedule": "schedule=slanted_triangular warmup_fraction=0.1",
    ULMFIT: "layer_lr_decay=2.6 unfreeze_epochs=1 schedule=slanted_triangular warmup_fraction=0.1",
}
ADAPTER_ADDITIONS = {
    "rank 8": "lora_rank=8",
    "an adapter of attention only": "lora_targets=q_proj,k_proj,v_proj,o_proj",
    "all weights trained": "lora_rank=0 lr=5e-5",
    "a moving average": "averaging=ema ema_decay=0.97",
}


@dataclass(frozen=True)
class Trial:
    """Result of training a variant with one seed."""

    variant: str
    overrides: list[str]
    seed: int
    valid_perplexity: float
    test_perplexity: float
    seconds: float


def list_variants(config: Config) -> dict[str, list[str]]:
    """Return the overrides of the unchanged configuration, and of a variant for each technique to remove or add."""
    model, training = config.model, config.training
    fixed: set[str] = set()  # settings that cannot be changed
    if training.init:
        fixed |= {*INHERITED_SETTINGS, "unigram_bias"}
    if model.architecture == "transformer":
        fixed |= {*TRANSFORMER_VALUES, "unigram_bias", "variable_bptt"}
    if model.num_layers == 1:
        fixed.add("hidden_dropout")
    if not model.lora_rank:
        fixed.add("lora_dropout")
    is_slanted = training.schedule == "slanted_triangular"
    presence = {
        "NT-ASGD after SGD": training.averaging == "nt_asgd",
        "fine-tuning": training.fine_tune_epochs > 0,
        "a second layer": model.num_layers > 1,
        "a slanted triangular schedule": is_slanted,
        ULMFIT: is_slanted or training.layer_lr_decay != 1 or training.unfreeze_epochs > 0,
    }
    present = {name for name, is_present in presence.items() if is_present}
    additions = ADDITIONS | (FINE_TUNING_ADDITIONS if training.init else {})
    additions |= ADAPTER_ADDITIONS if model.lora_rank else {}
    variants: dict[str, list[str]] = {config.preset: []}
    for word, techniques in (("without", REMOVALS), ("with", additions)):
        for name, text in techniques.items():
            overrides = text.split(" ")
            if name not in present and config.with_values(*overrides) != config:
                present.add(name)  # what can be removed cannot be added
                if not fixed & {override.partition("=")[0] for override in overrides}:
                    variants[f"{word} {name}"] = overrides
    return variants


def select_variants(config: Config, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the variants with these names, or without names all of them. An unknown name raises a ConfigError."""
    variants = list_variants(config)
    if unknown := next((name for name in names if name not in variants), None):
        nearest = suggest_nearest(unknown, variants)
        raise ConfigError(f"unknown variant {unknown!r}{nearest} The variants are: {', '.join(variants)}")
    return {name: variants[name] for name in names or variants}


def run_ablation(config: Config, variants: Mapping[str, list[str]], seeds: Sequence[int], jobs: int) -> Iterator[Trial]:
    """Train every variant with every seed, in `jobs` processes at a time, and yield the trials in that order."""
    require_package("torch", "ablation")
    config = canonical_config(config)
    load_training_input(config)  # report a bad corpus or initial run before any process starts
    if jobs > 1:
        config = config.with_values(threads=1)
    # Spawned, not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [
            pool.submit(_run_trial, config.with_values(*overrides, seed=seed), name, overrides)
            for name, overrides in variants.items()
            for seed in seeds
        ]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _run_trial(config: Config, variant: str, overrides: list[str]) -> Trial:
    """Train one variant, in a worker process of the pool."""
    from engine.training.trainer import train

    start_time = time.perf_counter()
    *_, end = train(config, load_training_input(config), variant)
    assert isinstance(end, Finished)
    seconds = time.perf_counter() - start_time
    return Trial(variant, overrides, config.training.seed, end.valid_perplexity, end.test_perplexity, seconds)


def summarize_trials(trials: Sequence[Trial]) -> dict[str, list[float]]:
    """Return mean and range of the validation and then of the test perplexities, by variant."""
    summaries: dict[str, list[float]] = {}
    for name in dict.fromkeys(trial.variant for trial in trials):
        pairs = [(trial.valid_perplexity, trial.test_perplexity) for trial in trials if trial.variant == name]
        columns = zip(*pairs, strict=True)
        summaries[name] = [figure for each in columns for figure in (statistics.mean(each), max(each) - min(each))]
    return summaries
