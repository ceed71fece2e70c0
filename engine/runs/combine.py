"""Combination of runs into one model: ensembles, mixtures with Kneser-Ney, neural caches and dynamic evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from engine.data.dataset import Dataset, load_dataset
from engine.errors import ConfigError, CorpusError, InvalidInputError
from engine.models import base, combinations, ngram, numpy_lstm
from engine.runs.loading import LoadedModel
from engine.runtime.process import require_package


@dataclass(frozen=True)
class CombinationOptions:
    """Additions of `ModelCombiner.combine` to the runs, tuned on validation. Several runs are always an ensemble."""

    mixture: bool = False  # a Kneser-Ney model beside the runs
    cache: bool = False  # a neural cache
    dynamic: bool = False  # dynamic evaluation: the LSTMs keep training while reading


class CombinedModel(NamedTuple):
    model: base.LanguageModel
    description: str  # the weights and the tuned parameters; empty for a single model


class ModelCombiner:
    """Builder of combinations of the same runs. The corpus is read once, and each part scores validation once."""

    def __init__(self, runs: Sequence[LoadedModel]) -> None:
        if other := next((run for run in runs if run.decoder.tokenizer != runs[0].decoder.tokenizer), None):
            problem = f"run {other.name} has another vocabulary than run {runs[0].name}, so they cannot be combined"
            raise InvalidInputError(f"{problem}; choose runs of the same corpus and split seed")
        self.runs = tuple(runs)
        self._validation_outputs: dict[int, base.SequenceOutput] = {}

    @cached_property
    def dataset(self) -> Dataset:
        return load_run_dataset(self.runs[0])

    @cached_property
    def kneser_ney(self) -> ngram.KneserNey:
        return ngram.KneserNey(self.dataset.train, self.dataset.tokenizer)

    def combine(self, options: CombinationOptions, *, to_play: bool = False) -> CombinedModel:
        """Combine the runs, and tune the rest on validation; `to_play` gives the model the cast of the first run."""
        models, names, descriptions = [run.decoder for run in self.runs], [run.name for run in self.runs], list[str]()
        if options.dynamic:
            models = [*self._dynamic_models]
            descriptions = [f"dynamic evaluation at lr {', '.join(f'{model.lr:g}' for model in self._dynamic_models)}"]
        model, weights = models[0], tuple(1 / len(models) for _ in models)
        if options.mixture:
            models, names = [*models, self.kneser_ney], [*names, "Kneser-Ney"]
            log_probs = np.stack([self._validation_output(each).log_probs for each in models])
            weights = combinations.tune_mixture_weights(log_probs)
        if len(models) > 1:
            model = combinations.Mixture(models, weights)
            parts = [f"{weight:.2f} {name}" for weight, name in zip(weights, names, strict=True)]
            descriptions.insert(0, " + ".join(parts))
        if options.cache:
            cache = combinations.tune_cache(self._validation_output(model), self.dataset.valid)
            model = combinations.NeuralCache(model, cache)
            parameters = f"cache {cache.weight:g} (window {cache.window}, theta {cache.theta:g})"
            descriptions.append(parameters if cache.weight else "no cache, which did not help on validation")
        return CombinedModel(self.runs[0].with_cast(model) if to_play else model, ", ".join(descriptions))

    def _validation_output(self, model: base.LanguageModel) -> base.SequenceOutput:
        if isinstance(model, combinations.Mixture):
            return model.mix_outputs([self._validation_output(part) for part in model.models])
        if id(model) not in self._validation_outputs:  # every part is kept alive, so that its id stays its own
            self._validation_outputs[id(model)] = base.forward_sequence(model, self.dataset.valid)
        return self._validation_outputs[id(model)]

    @cached_property
    def _dynamic_models(self) -> list[Any]:  # models that score whole texts only
        require_package("torch", "--dynamic")
        from engine.models.lstm import DynamicEvaluation

        decoders = [run.decoder for run in self.runs if isinstance(run.decoder, numpy_lstm.NumpyLSTM)]
        lstms = [decoder for decoder in decoders if not decoder.int8]
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
        text = f"the training text of run {run.name!r}, which {run.path / 'config.json'} names, cannot be used"
        raise CorpusError(f"{text}: {error}, or use --text FILE") from error
    is_changed = run.started is not None and run.started.corpus_sha256 not in ("", dataset.corpus.sha256)
    if is_changed or dataset.tokenizer != run.decoder.tokenizer:
        change = f"{dataset.corpus.source} has changed since run {run.name} was trained, so its splits are not the same"
        raise CorpusError(f"{change}; restore the corpus, or use --text FILE")
    return dataset
