"""Training data of runs, loaded once per session: searches in it, and models that are built from it to compare."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from engine.analysis.evaluation import evaluate
from engine.analysis.memorization import MemorizationReport, TrainingIndex
from engine.analysis.tokenized_text import TokenizedText
from engine.data.dataset import Dataset
from engine.data.tokenizers import Tokenizer
from engine.errors import LotrError, RunError, printable
from engine.models.base import LanguageModel
from engine.models.ngram import KneserNey
from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name
from engine.runs.combine import CombinationOptions, ModelCombiner, load_run_dataset
from engine.runs.directory import resolve_run, summarize_run
from engine.runs.loading import load_model
from lotr_tui.session.model_loading import ModelLoader
from lotr_tui.session.session_model import SessionModel

MAX_CACHED_RUNS = 2  # whose training data stay in memory


@lru_cache(MAX_CACHED_RUNS)
def load_training_data(run: Path) -> Dataset:
    """Load the dataset of a run, in a thread. A damaged run and a missing corpus raise a LotrError."""
    return load_run_dataset(load_model(run))


@lru_cache(MAX_CACHED_RUNS)
def load_training_index(run: Path) -> TrainingIndex:
    """Load the dataset of a run and index its training split; see `load_training_data`."""
    return TrainingIndex.from_dataset(load_training_data(run))


def _load_matching_data(run: Path, tokenizer: Tokenizer) -> Dataset:
    data = load_training_data(run)
    if data.tokenizer != tokenizer:
        raise RunError(f"run {run.name} has another vocabulary than this model; open the model of that run")
    return data


def find_memorized_passages(run: Path, tokenizer: Tokenizer, tokens: TokenizedText) -> MemorizationReport:
    """Find the passages of a text that are copied from the training text of a run, or raise a LotrError."""
    _load_matching_data(run, tokenizer)
    return load_training_index(run).find_copied(tokens)


def is_line_mode(run: Path) -> bool:
    """Return True if the model of a run was trained with `<eos>` after each line; False if the run cannot be read."""
    try:
        return summarize_run(run).mode == "line"
    except (LotrError, OSError):  # the run was deleted after its model was loaded
        return False


# Models to compare with


@dataclass(frozen=True)
class ModelChoice:
    """A model by others, or one that can be built from a run."""

    kind: Literal["run", "kneser-ney", "mixture"]
    run: str  # name in the runs directory, path of a run, "bundled", or name of a model by others
    epoch: int | None = None  # saved epoch of the run's model; None is the best one

    @property
    def name(self) -> str:
        if is_pretrained_name(self.run):
            return printable(parse_pretrained_name(self.run).short_name)
        run = printable(Path(self.run).name)
        model = run if self.epoch is None else f"{run}@{self.epoch}"
        return {"run": model, "kneser-ney": "Kneser-Ney", "mixture": f"{run} + Kneser-Ney"}[self.kind]

    @property
    def loading_message(self) -> str:
        """Text shown while the model is being built."""
        counting = "counting the n-grams of the training text"
        weights = f"{counting}, then choosing the weights on validation …"
        return {"run": "loading …", "kneser-ney": f"{counting} …", "mixture": weights}[self.kind]


def load_kneser_ney(run: Path) -> KneserNey:
    """Build the Kneser-Ney baseline of a run from its training split; see `load_training_data`."""
    return ModelCombiner([load_model(run)]).kneser_ney


def load_model_choice(choice: ModelChoice, runs_dir: Path | None) -> SessionModel:
    """Load or build a model, in a thread. One that is missing or damaged raises a LotrError."""
    if is_pretrained_name(choice.run):
        return ModelLoader([choice.run])()
    loaded = load_model(resolve_run(choice.run, runs_dir), choice.epoch)
    if choice.kind == "run":
        return SessionModel.from_loaded(loaded)
    combiner = ModelCombiner([loaded])
    model: LanguageModel
    if choice.kind == "mixture":
        combined = combiner.combine(CombinationOptions(mixture=True))
        model, valid, description = combined.model, math.nan, combined.description
    else:
        model = combiner.kneser_ney
        valid = loaded.started.kneser_ney_perplexity if loaded.started else math.nan
        description = f"{model.order}-gram counts"
    if not math.isfinite(valid):
        valid = evaluate(model, combiner.dataset.valid).perplexity
    model, corpus = loaded.with_cast(model), loaded.config.data.corpus
    return SessionModel(choice.name, f"{description} · valid {valid:.1f}", model, corpus, loaded.path)
