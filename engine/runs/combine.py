"""One model out of several: an ensemble of runs, with Kneser-Ney, a cache, or learning from what is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.data.dataset import Dataset, prepare
from engine.errors import CorpusError, UnusableInput
from engine.models.base import LanguageModel, Trace, trace
from engine.models.cache import Cache, CacheSettings, choose_cache
from engine.models.mixture import Mixture, check_weights, choose_weights
from engine.models.ngram import KneserNey
from engine.runs.store import LoadedModel


@dataclass(frozen=True)
class Combination:
    """What is made of the runs' LSTMs. With nothing asked for, several runs are an ensemble of equal weights."""

    mixture: bool = False
    """Mix with Kneser-Ney, the weights chosen on validation."""
    cache: bool = False
    """Put a continuous cache on top, its theta and share chosen on validation."""
    dynamic: bool = False
    """The LSTMs go on learning from what they read; the rate is chosen on validation."""
    weights: tuple[float, ...] = ()
    """Those of the mixture, Kneser-Ney's last, instead of chosen ones."""
    cache_window: int = CacheSettings.window

    def __post_init__(self) -> None:
        CacheSettings(window=self.cache_window)  # refuses a wrong one at once


@dataclass(frozen=True)
class Combined:
    """A combination ready to be played or measured, and what was chosen for it."""

    model: LanguageModel
    weights: tuple[tuple[str, float], ...]
    """Name and weight of each part; empty where there is one part alone."""
    cache: CacheSettings | None
    learning_rates: tuple[float, ...]
    """Of dynamic evaluation, a run each; empty where they do not learn."""

    def describe(self) -> str:
        """What was put together, for people to read."""
        parts = [f"{weight:.2f} {name}" for name, weight in self.weights]
        described = [" + ".join(parts)] if parts else []
        if self.learning_rates:
            described.append("learning at " + ", ".join(f"{lr:g}" for lr in self.learning_rates))
        if self.cache and not self.cache.share:
            described.append("no cache, which did not help on validation")
        elif self.cache:
            described.append(f"cache {self.cache.share:g} (window {self.cache.window}, theta {self.cache.theta:g})")
        return ", ".join(described)


class Combiner:
    """Builds combinations of some runs; what they share is read and scored once."""

    def __init__(self, runs: Sequence[LoadedModel]) -> None:
        """Combine `runs`.

        Raises:
            UnusableInput: they are not of one vocabulary.
        """
        for run in runs[1:]:
            if run.decoder.vocabulary != runs[0].decoder.vocabulary:
                raise UnusableInput(
                    f"run {run.name} knows other words than run {runs[0].name}, so they cannot be mixed; "
                    "take runs of the same corpus and split seed"
                )
        self.runs = tuple(runs)
        self._dynamic: list[tuple[LanguageModel, float]] = []
        self._read: dict[int, Trace] = {}

    @cached_property
    def dataset(self) -> Dataset:
        """The first run's data.

        Raises:
            CorpusError: they are not there any more.
        """
        return dataset_of(self.runs[0])

    @cached_property
    def kneser_ney(self) -> KneserNey:
        """Counted on the training split."""
        return KneserNey(self.dataset.train, self.dataset.vocabulary)

    def combine(self, options: Combination) -> Combined:
        """Put together what `options` ask for, choosing on the validation split what they leave open.

        Raises:
            UnusableInput: the data cannot be read again, the weights do not fit, or runs in int8 should learn.
        """
        parts = len(self.runs) + options.mixture
        if options.weights and parts == 1:
            raise UnusableInput("--weights are those of several models; give --mixture or more than one --run")
        if options.dynamic and any(run.decoder.int8 for run in self.runs):
            raise UnusableInput("weights in int8 cannot learn from what is read; leave --dynamic or --precision out")
        if options.weights:
            check_weights(options.weights, parts)  # before anything slow
        names = [run.name for run in self.runs]
        models: list[LanguageModel] = [run.decoder for run in self.runs]
        rates: tuple[float, ...] = ()
        if options.dynamic:
            models = [model for model, _ in self._learning()]
            rates = tuple(rate for _, rate in self._learning())
        if options.mixture:
            names.append("Kneser-Ney")
            models.append(self.kneser_ney)
        weights = options.weights
        if options.mixture and not weights:
            weights = choose_weights(np.stack([self._on_validation(model).scores for model in models]))
        elif not weights:
            weights = tuple(1 / len(models) for _ in models)
        model = Mixture(models, weights) if len(models) > 1 else models[0]
        cache = None
        if options.cache:
            cache = choose_cache(self._on_validation(model), self.dataset.valid, options.cache_window)
            model = Cache(model, cache)
        named = tuple(zip(names, weights, strict=True)) if len(models) > 1 else ()
        return Combined(model, named, cache, rates)

    def _on_validation(self, model: LanguageModel) -> Trace:
        """What `model` makes of the validation split; the parts of a combination come again in the next."""
        if isinstance(model, Mixture):
            return model.mix([self._on_validation(part) for part in model.models])
        if id(model) not in self._read:  # each part lives as long as this does, so its id stays its own
            self._read[id(model)] = trace(model, self.dataset.valid)
        return self._read[id(model)]

    def _learning(self) -> list[tuple[LanguageModel, float]]:
        """Each run's LSTM as one that learns from what it reads, and its rate."""
        if not self._dynamic:
            # Only here: it is torch that learns, and nothing else of playing needs it.
            from engine.models.dynamic_evaluation import Dynamic, choose_lr

            for run in self.runs:
                model = Dynamic(run.decoder, self.dataset.train)
                rate = choose_lr(model, self.dataset.valid)
                self._dynamic.append((model.with_lr(rate), rate))
        return self._dynamic


def dataset_of(run: LoadedModel) -> Dataset:
    """The data a run was trained on, read again.

    Raises:
        CorpusError: it is not there any more, or is not the same.
    """
    dataset = prepare(run.config.data)
    changed = run.corpus_sha256 not in ("", dataset.corpus.sha256)
    if changed or dataset.vocabulary != run.decoder.vocabulary:
        raise CorpusError(
            f"{dataset.corpus.source} has changed since run {run.name} was trained on it; "
            "its splits are no longer those; use --text FILE"
        )
    return dataset
