"""Combination of runs into one model: ensembles, mixtures with Kneser-Ney, neural caches and dynamic evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from engine.data.dataset import Dataset, load_dataset
from engine.errors import ConfigError, CorpusError, InvalidInputError
from engine.models.base import LanguageModel, SequenceOutput, forward_sequence
from engine.models.combinations import (
    CacheSettings,
    Mixture,
    NeuralCache,
    tune_cache,
    tune_mixture_weights,
    validate_mixture_weights,
)
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.directory import CONFIG_FILE
from engine.runs.loading import LoadedModel
from engine.runtime.process import require_package


@dataclass(frozen=True)
class CombinationOptions:
    """Options of `ModelCombiner.combine`. By default, several runs become an ensemble of equal weights."""

    mixture: bool = False
    """True to mix with a Kneser-Ney model; without `weights`, the weights are tuned on validation."""
    cache: bool = False
    """True to add a neural cache, its theta and weight tuned on validation."""
    dynamic: bool = False
    """True for dynamic evaluation: the LSTMs keep training while reading, at a learning rate tuned on validation."""
    weights: tuple[float, ...] = ()
    """Mixture weights of the runs, then of Kneser-Ney; empty for equal or tuned weights."""
    cache_window: int = CacheSettings.window

    def __post_init__(self) -> None:
        CacheSettings(window=self.cache_window)  # raises an error for an invalid window


@dataclass(frozen=True)
class CombinedModel:
    """Combined model, ready for generation or evaluation, and its tuned parameters."""

    model: LanguageModel
    weights: tuple[tuple[str, float], ...]
    cache_settings: CacheSettings | None
    learning_rates: tuple[float, ...]

    def describe(self) -> str:
        mixture = " + ".join(f"{weight:.2f} {name}" for name, weight in self.weights)
        descriptions = [mixture] if mixture else []
        if self.learning_rates:
            descriptions.append("dynamic evaluation at lr " + ", ".join(f"{lr:g}" for lr in self.learning_rates))
        if (cache := self.cache_settings) is not None:
            descriptions.append(
                f"cache {cache.weight:g} (window {cache.window}, theta {cache.theta:g})"
                if cache.weight
                else "no cache, which did not help on validation"
            )
        return ", ".join(descriptions)


class ModelCombiner:
    """Builder of combinations of the same runs. The corpus is read once, and each part scores validation once."""

    def __init__(self, runs: Sequence[LoadedModel]) -> None:
        for run in runs[1:]:
            if run.decoder.tokenizer != runs[0].decoder.tokenizer:
                raise InvalidInputError(
                    f"run {run.name} has another vocabulary than run {runs[0].name}, so they cannot be combined; "
                    "choose runs of the same corpus and split seed"
                )
        self.runs = tuple(runs)
        self._tuned_dynamic_models: list[tuple[LanguageModel, float]] = []
        self._validation_outputs: dict[int, SequenceOutput] = {}

    @cached_property
    def dataset(self) -> Dataset:
        return load_run_dataset(self.runs[0])

    @cached_property
    def kneser_ney(self) -> KneserNey:
        return KneserNey(self.dataset.train, self.dataset.tokenizer)

    def combine(self, options: CombinationOptions) -> CombinedModel:
        """Combine the runs, tuning on the validation split all parameters that `options` leave open."""
        if options.dynamic:
            require_package("torch", "--dynamic")
        num_models = len(self.runs) + options.mixture
        if options.weights and num_models == 1:
            raise InvalidInputError("--weights needs several models; add --mixture or another --run")
        if options.dynamic and any(isinstance(run.decoder, NumpyLSTM) and run.decoder.int8 for run in self.runs):
            remedy = "leave out --dynamic or --precision"
            raise InvalidInputError(f"int8 weights cannot be trained by dynamic evaluation; {remedy}")
        if options.weights:
            validate_mixture_weights(options.weights, num_models)  # before anything slow
        names = [run.name for run in self.runs]
        models: list[LanguageModel] = [run.decoder for run in self.runs]
        learning_rates: tuple[float, ...] = ()
        if options.dynamic:
            models = [model for model, _ in self._dynamic_models()]
            learning_rates = tuple(lr for _, lr in self._dynamic_models())
        if options.mixture:
            names.append("Kneser-Ney")
            models.append(self.kneser_ney)
        weights = options.weights
        if options.mixture and not weights:
            weights = tune_mixture_weights(np.stack([self._validation_output(model).log_probs for model in models]))
        elif not weights:
            weights = tuple(1 / len(models) for _ in models)
        model = Mixture(models, weights) if len(models) > 1 else models[0]
        cache_settings = None
        if options.cache:
            cache_settings = tune_cache(self._validation_output(model), self.dataset.valid, options.cache_window)
            model = NeuralCache(model, cache_settings)
        named_weights = tuple(zip(names, weights, strict=True)) if len(models) > 1 else ()
        return CombinedModel(model, named_weights, cache_settings, learning_rates)

    def combine_to_play(self, options: CombinationOptions) -> CombinedModel:
        combined, parts = self.combine(options), self.runs[0].dialogue_parts
        return combined if parts is None else replace(combined, model=parts.wrap(combined.model))

    def _validation_output(self, model: LanguageModel) -> SequenceOutput:
        if isinstance(model, Mixture):
            return model.mix_outputs([self._validation_output(part) for part in model.models])
        # The combiner keeps every part alive, so an id is never used for another model.
        if id(model) not in self._validation_outputs:
            self._validation_outputs[id(model)] = forward_sequence(model, self.dataset.valid)
        return self._validation_outputs[id(model)]

    def _dynamic_models(self) -> list[tuple[LanguageModel, float]]:
        if not self._tuned_dynamic_models:
            # Imported here because it loads torch, which no other combination needs.
            from engine.models.dynamic_evaluation import DynamicEvaluation, tune_dynamic_lr

            for run in self.runs:
                if not isinstance(run.decoder, NumpyLSTM):
                    raise InvalidInputError(
                        f"--dynamic trains LSTMs only, and {run.name} is none; leave it out or choose another run"
                    )
                model = DynamicEvaluation(run.decoder, self.dataset.train)
                lr = tune_dynamic_lr(model, self.dataset.valid)
                self._tuned_dynamic_models.append((model.with_lr(lr), lr))
        return self._tuned_dynamic_models


def load_run_dataset(run: LoadedModel) -> Dataset:
    """Load the dataset that a run was trained on, unless it is unknown or has changed."""
    if not run.config.data.corpus:
        raise CorpusError(f"{run.name} is a model by others, which has no splits; use --text FILE")
    try:
        dataset = load_dataset(run.config.data, run.decoder.tokenizer)
    except (ConfigError, CorpusError) as error:
        raise CorpusError(
            f"the training text of run {run.name!r}, which {run.path / CONFIG_FILE} names, cannot be used: {error}, "
            "or use --text FILE"
        ) from error
    is_changed = run.corpus_sha256 not in ("", dataset.corpus.sha256)
    if is_changed or dataset.tokenizer != run.decoder.tokenizer:
        raise CorpusError(
            f"{dataset.corpus.source} has changed since run {run.name} was trained, so its splits are not the same; "
            "restore the corpus, or use --text FILE"
        )
    return dataset
