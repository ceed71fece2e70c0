"""Models that can be compared with the session's model: other runs, Kneser-Ney baselines and mixtures of both."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.analysis.perplexity import evaluate
from engine.errors import printable
from engine.models.base import LanguageModel
from engine.models.ngram import KneserNey
from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name
from engine.runs.combine import CombinationOptions, ModelCombiner
from engine.runs.directory import epoch_model_name, resolve_run
from engine.runs.loading import LoadedModel, load_model
from lotr_tui.session.model_loading import ModelLoader
from lotr_tui.session.session_model import SessionModel


@dataclass(frozen=True)
class ModelChoice:
    """A model by others, or one that can be built from a run."""

    kind: Literal["run", "kneser-ney", "mixture"]
    run: str
    """Name in the runs directory, path of a run, "bundled", or name of a model by others."""
    epoch: int | None = None
    """Saved epoch of the run's model; None is the best one."""

    @property
    def name(self) -> str:
        """Name for display."""
        if is_pretrained_name(self.run):
            return printable(parse_pretrained_name(self.run).short_name)
        run = printable(Path(self.run).name)
        model = run if self.epoch is None else epoch_model_name(run, self.epoch)
        return {"run": model, "kneser-ney": "Kneser-Ney", "mixture": f"{run} + Kneser-Ney"}[self.kind]

    @property
    def loading_message(self) -> str:
        """Text shown while the model is being built."""
        return {
            "run": "loading …",
            "kneser-ney": "counting the n-grams of the training text …",
            "mixture": "counting the n-grams of the training text, then choosing the weights on validation …",
        }[self.kind]


def load_kneser_ney(run: Path) -> KneserNey:
    """Build the Kneser-Ney baseline of a run from its training split.

    Raises:
        RunError: If the run is damaged.
        CorpusError: If the corpus is missing or has changed.
    """
    return ModelCombiner([load_model(run)]).kneser_ney


def load_model_choice(choice: ModelChoice, runs_dir: Path | None) -> SessionModel:
    """Load or build a model. This may take seconds, so call it in a thread.

    Raises:
        InvalidInputError: If there is no such run, epoch or model by others, or it is damaged.
        CorpusError: If the corpus is missing or has changed.
    """
    if is_pretrained_name(choice.run):
        return ModelLoader([choice.run])()
    loaded = load_model(resolve_run(choice.run, runs_dir), choice.epoch)
    if choice.kind == "run":
        return SessionModel.from_loaded(loaded)
    combiner = ModelCombiner([loaded])
    corpus = loaded.config.data.corpus
    if choice.kind == "mixture":
        combined = combiner.combine(CombinationOptions(mixture=True))
        valid = evaluate(combined.model, combiner.dataset.valid).perplexity
        description = f"{combined.description} · valid {valid:.1f}"
        return SessionModel(choice.name, description, _follow_script(loaded, combined.model), corpus, loaded.path)
    model = combiner.kneser_ney
    known = loaded.started.kneser_ney_perplexity if loaded.started else math.nan
    valid = known if math.isfinite(known) else evaluate(model, combiner.dataset.valid).perplexity
    description = f"{model.order}-gram counts · valid {valid:.1f}"
    return SessionModel(choice.name, description, _follow_script(loaded, model), corpus, loaded.path)


def _follow_script(loaded: LoadedModel, model: LanguageModel) -> LanguageModel:
    """Return a model of the text of a run as a dialogue model, if the run is one."""
    return model if loaded.dialogue_parts is None else loaded.dialogue_parts.wrap(model)
