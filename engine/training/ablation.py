"""What each technique is worth: the same training with one thing changed, several seeds each."""

import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from engine.config import Config
from engine.data.dataset import prepare
from engine.errors import ConfigError, nearest

TAKEN_AWAY: dict[str, tuple[str, ...]] = {
    "weight drop": ("weight_drop=0",),
    "locked dropout (one mask each step instead)": ("locked=false",),
    "dropout on the embeddings": ("dropout_input=0",),
    "dropout between layers": ("dropout_between=0",),
    "dropout on the output": ("dropout_output=0",),
    "embedding dropout (whole words)": ("dropout_words=0",),
    "weight tying": ("tied=false",),
    "spelling": ("spelling=false",),
    "pauses": ("pauses=false",),
    "unigram bias": ("unigram_bias=false",),
    "new order of lines": ("shuffle_lines=false",),
    "a schedule (constant rate)": ("schedule=constant",),
    "average of weights": ("averaging=none",),
    "weight decay": ("weight_decay=0",),
    "clipping": ("clip=0",),
    "variable BPTT window": ("variable_window=false",),
    "AR and TAR": ("ar=0", "tar=0"),
    "label smoothing": ("smoothing=0",),
}
"""Settings that take a technique away; where a preset does without it, they change nothing and are left out."""

PUT_IN: dict[str, tuple[str, ...]] = {
    "pauses": ("pauses=true",),
    "variable BPTT window": ("variable_window=true",),
    "AR and TAR": ("ar=2", "tar=1"),
    "NT-ASGD after SGD": ("optimizer=sgd", "lr=10", "schedule=constant", "averaging=nt_asgd", "weight_decay=1.2e-6"),
    "fine-tuning": ("fine_tune_epochs=16", "fine_tune_lr=1"),
    "a second layer": ("layers=2",),
}
"""Settings that put a technique in; where a preset has it already, that is left out."""


@dataclass(frozen=True)
class Variant:
    """The preset with one thing changed."""

    name: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """One training of a variant."""

    variant: str
    settings: tuple[str, ...]
    seed: int
    valid_perplexity: float
    test_perplexity: float
    seconds: float


@dataclass(frozen=True)
class Worth:
    """All trainings of a variant together."""

    variant: str
    valid_mean: float
    valid_spread: float
    """Highest less lowest."""
    test_mean: float
    test_spread: float


def variants_of(config: Config) -> list[Variant]:
    """The preset as it is, and with each technique taken away or put in that makes a difference to it."""
    away = {name: settings for name, settings in TAKEN_AWAY.items() if config.with_settings(list(settings)) != config}
    if config.model.layers == 1:
        away.pop("dropout between layers", None)
    there = {
        *away,
        *(["NT-ASGD after SGD"] if config.training.averaging == "nt_asgd" else []),
        *(["fine-tuning"] if config.training.fine_tune_epochs else []),
        *(["a second layer"] if config.model.layers > 1 else []),
    }
    return [
        Variant(config.preset, ()),
        *(Variant(f"without {name}", settings) for name, settings in away.items()),
        *(Variant(f"with {name}", settings) for name, settings in PUT_IN.items() if name not in there),
    ]


def choose_variants(config: Config, names: Sequence[str]) -> list[Variant]:
    """Those called `names`, or all of them for none.

    Raises:
        ConfigError: there is no such variant.
    """
    known = {variant.name: variant for variant in variants_of(config)}
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown variant {name!r}{nearest(name, known)} They are: {', '.join(known)}")
    return [known[name] for name in names] if names else list(known.values())


def ablate(config: Config, variants: Sequence[Variant], seeds: Sequence[int], jobs: int) -> Iterator[Trial]:
    """Train every variant with every seed, `jobs` at a time in processes of their own; results come in that order.

    Raises:
        UnusableInput: the data cannot be read, or a setting is refused.
    """
    prepare(config.data)  # what is wrong with the corpus is said before anything is started
    if jobs > 1:
        config = config.with_values(threads=1)
    # Spawned, not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = [
            pool.submit(_train, config.with_values(seed=seed).with_settings(list(variant.settings)), variant)
            for variant in variants
            for seed in seeds
        ]
        try:
            for future in waiting:
                yield future.result()
        finally:
            for future in waiting:
                future.cancel()


def worth_of(trials: Sequence[Trial]) -> list[Worth]:
    """Mean and spread of each variant, in order of their first trial."""
    worths = []
    for name in dict.fromkeys(trial.variant for trial in trials):
        valid = [trial.valid_perplexity for trial in trials if trial.variant == name]
        test = [trial.test_perplexity for trial in trials if trial.variant == name]
        worths.append(
            Worth(name, statistics.mean(valid), max(valid) - min(valid), statistics.mean(test), max(test) - min(test))
        )
    return worths


def _train(config: Config, variant: Variant) -> Trial:
    """One training, in a process of its own."""
    from engine.events import Finished
    from engine.training.job import quiet_threads

    quiet_threads()
    from engine.training.run import train

    began = time.perf_counter()
    events = train(config, prepare(config.data), variant.name, lambda: False)
    end = next(event for event in events if isinstance(event, Finished))
    seconds = time.perf_counter() - began
    seed = config.training.seed
    return Trial(variant.name, variant.settings, seed, end.valid_perplexity, end.test_perplexity, seconds)
