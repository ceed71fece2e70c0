"""Combination of runs into one model: ensembles, mixtures with Kneser-Ney, neural caches and dynamic evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

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


class CombinedModel(NamedTuple):
    model: LanguageModel
    description: str
    """The weights and the tuned parameters; empty for a single model."""


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
        self._validation_outputs: dict[int, SequenceOutput] = {}

    @cached_property
    def dataset(self) -> Dataset:
        return load_run_dataset(self.runs[0])

    @cached_property
    def kneser_ney(self) -> KneserNey:
        return KneserNey(self.dataset.train, self.dataset.tokenizer)

    def combine(self, options: CombinationOptions) -> CombinedModel:
        """Combine the runs, tuning on the validation split all parameters that `options` leave open."""
        names = [*(run.name for run in self.runs), *(["Kneser-Ney"] if options.mixture else [])]
        weights, descriptions = options.weights, []
        if weights and len(names) == 1:
            raise InvalidInputError("--weights needs several models; add --mixture or another --run")
        if weights:
            validate_mixture_weights(weights, len(names))  # before anything slow
        models: list[LanguageModel] = [run.decoder for run in self.runs]
        if options.dynamic:
            models = [*self._dynamic_models]
            rates = ", ".join(f"{model.lr:g}" for model in self._dynamic_models)
            descriptions.append(f"dynamic evaluation at lr {rates}")
        if options.mixture:
            models.append(self.kneser_ney)
        model = models[0]
        if len(models) > 1:
            if options.mixture and not weights:
                weights = tune_mixture_weights(np.stack([self._validation_output(each).log_probs for each in models]))
            weights = weights or tuple(1 / len(models) for _ in models)
            model = Mixture(models, weights)
            shares = [f"{weight:.2f} {name}" for weight, name in zip(weights, names, strict=True)]
            descriptions.insert(0, " + ".join(shares))
        if options.cache:
            cache = tune_cache(self._validation_output(model), self.dataset.valid, options.cache_window)
            model = NeuralCache(model, cache)
            parameters = f"cache {cache.weight:g} (window {cache.window}, theta {cache.theta:g})"
            descriptions.append(parameters if cache.weight else "no cache, which did not help on validation")
        return CombinedModel(model, ", ".join(descriptions))

    def combine_to_play(self, options: CombinationOptions) -> CombinedModel:
        if options.dynamic:
            raise InvalidInputError("--dynamic trains a model on a whole text, for `lotr-tui eval` only; leave it out")
        (model, description), parts = self.combine(options), self.runs[0].dialogue_parts
        return CombinedModel(model if parts is None else parts.wrap(model), description)

    def _validation_output(self, model: LanguageModel) -> SequenceOutput:
        if isinstance(model, Mixture):
            return model.mix_outputs([self._validation_output(part) for part in model.models])
        # The combiner keeps every part alive, so an id is never used for another model.
        if id(model) not in self._validation_outputs:
            self._validation_outputs[id(model)] = forward_sequence(model, self.dataset.valid)
        return self._validation_outputs[id(model)]

    @cached_property
    def _dynamic_models(self) -> list[Any]:  # models that score whole texts only
        require_package("torch", "--dynamic")
        from engine.models.dynamic_evaluation import DynamicEvaluation

        lstms = [run.decoder for run in self.runs if isinstance(run.decoder, NumpyLSTM) and not run.decoder.int8]
        if len(lstms) < len(self.runs):
            remedy = "leave out --dynamic or --precision, or choose other runs"
            raise InvalidInputError(f"--dynamic trains LSTMs in single precision, and not all models are; {remedy}")
        models = [DynamicEvaluation(lstm, self.dataset.train) for lstm in lstms]
        for model in models:
            model.tune_lr(self.dataset.valid)
        return models


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
    is_changed = run.started is not None and run.started.corpus_sha256 not in ("", dataset.corpus.sha256)
    if is_changed or dataset.tokenizer != run.decoder.tokenizer:
        raise CorpusError(
            f"{dataset.corpus.source} has changed since run {run.name} was trained, so its splits are not the same; "
            "restore the corpus, or use --text FILE"
        )
    return dataset
