"""Combination of runs into one model: ensembles, mixtures with Kneser-Ney, neural caches and dynamic evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from engine.data.dataset import Dataset, load_dataset
from engine.errors import ConfigError, CorpusError, InvalidInputError
from engine.models import combinations
from engine.models.base import LanguageModel, SequenceOutput, forward_sequence
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.directory import CONFIG_FILE
from engine.runs.loading import LoadedModel
from engine.runtime.process import require_package


@dataclass(frozen=True)
class CombinationOptions:
    """Additions of `ModelCombiner.combine` to the runs, tuned on validation. Several runs are always an ensemble."""

    mixture: bool = False  # a Kneser-Ney model beside the runs
    cache: bool = False  # a neural cache
    dynamic: bool = False  # dynamic evaluation: the LSTMs keep training while reading


class CombinedModel(NamedTuple):
    model: LanguageModel
    description: str  # the weights and the tuned parameters; empty for a single model


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
        """Combine the runs, which weigh the same unless there is a mixture, and tune the rest on validation."""
        models, descriptions = [run.decoder for run in self.runs], list[str]()
        if options.dynamic:
            models = [*self._dynamic_models]
            descriptions = [f"dynamic evaluation at lr {', '.join(f'{model.lr:g}' for model in self._dynamic_models)}"]
        weights = tuple(1 / len(models) for _ in models)
        if options.mixture:
            models.append(self.kneser_ney)
            log_probs = np.stack([self._validation_output(each).log_probs for each in models])
            weights = combinations.tune_mixture_weights(log_probs)
        model = models[0]
        if len(models) > 1:
            model, names = combinations.Mixture(models, weights), [*(run.name for run in self.runs), "Kneser-Ney"]
            descriptions.insert(
                0, " + ".join(f"{weight:.2f} {name}" for weight, name in zip(weights, names, strict=False))
            )
        if options.cache:
            cache = combinations.tune_cache(self._validation_output(model), self.dataset.valid)
            model = combinations.NeuralCache(model, cache)
            parameters = f"cache {cache.weight:g} (window {cache.window}, theta {cache.theta:g})"
            descriptions.append(parameters if cache.weight else "no cache, which did not help on validation")
        return CombinedModel(model, ", ".join(descriptions))

    def combine_to_play(self, options: CombinationOptions) -> CombinedModel:
        """Combine the runs into a model that speaks for the cast of the first one."""
        if options.dynamic:
            raise InvalidInputError("--dynamic trains a model on a whole text, for `lotr-tui eval` only; leave it out")
        model, description = self.combine(options)
        return CombinedModel(self.runs[0].with_cast(model), description)

    def _validation_output(self, model: LanguageModel) -> SequenceOutput:
        if isinstance(model, combinations.Mixture):
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
