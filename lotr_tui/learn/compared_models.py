"""Models of the class from counts to a real one, scored on the same held-out lines."""

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from engine.analysis.evaluation import WrittenBits, measure_written_bits
from engine.config import BUNDLED, DataConfig, DataMode
from engine.data.dataset import Dataset, load_dataset
from engine.data.tokenizers.words import WordTokenizer, split_words
from engine.errors import CorpusError, describe_error
from engine.models.base import LanguageModel
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from engine.models.spelling import OrthographyModel
from engine.runs.directory import read_config
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.learn.class_models import LABELS, ClassModelName, bundled_data_config
from lotr_tui.learn.material import Cancelled, Loading, Material
from lotr_tui.session.model_loading import ModelLoader
from lotr_tui.session.session_model import SessionModel

MAX_LINES, MAX_CHARACTERS = 40, 4_000
"""Held-out lines that are scored, and the characters after which no further line is added."""
MAX_LINE_CHARACTERS = 1_000
"""Longer lines, such as whole paragraphs, are not scored."""
MAX_TRAINING_LINES = 50_000
"""Training lines in which capitals and punctuation are counted."""
SCRATCH_RUN = "scratch"
"""Name of the run of the class that is like the pre-trained one, but from scratch."""


@dataclass(frozen=True)
class ComparedModel:
    """A model to compare, which is loaded just before it is scored."""

    name: str
    description: str
    """Kind, size and training of the model, on one line."""
    mode: DataMode
    load: Callable[[Cancelled], Loading[LanguageModel]]
    is_on_request: bool = False
    """True for a large model, which is loaded only if the student asks for it."""


@dataclass(frozen=True)
class ModelProgress:
    """Line about a model that is being loaded or scored."""

    index: int
    text: str


@dataclass(frozen=True)
class ScoredModel:
    """A loaded model and its bits."""

    index: int
    model: LanguageModel
    bits: WrittenBits


@dataclass(frozen=True)
class FailedModel:
    """A model that cannot be loaded or scored."""

    index: int
    reason: str


@dataclass
class Comparison:
    """Models of a class with the lines that they are scored on; a thread scores them, and a screen shows the scores."""

    models: tuple[ComparedModel, ...]
    lines: tuple[str, ...]
    """Held-out lines, as they are written."""
    dataset: Dataset
    """The corpus as words."""
    outcomes: Mapping[int, ScoredModel | FailedModel] = field(default_factory=dict)
    """Outcomes by the index of the model. Each new outcome makes a new mapping, so that readers need no lock."""
    requested: frozenset[int] = frozenset()
    """Indices of the models on request that the student has asked for."""
    _orthographies: dict[str, OrthographyModel] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a model is loaded and scored: a chapter that is opened again waits for the thread that it had before.
    """

    @property
    def num_characters(self) -> int:
        """Characters of the lines, line ends included."""
        return sum(len(line) + 1 for line in self.lines)

    @property
    def best(self) -> int | None:
        """Index of the model that needs the fewest bits; None until every model has an outcome.

        A model on request counts once the student has asked for it.
        """
        scored = self.scored_models
        if self.missing or not scored:
            return None
        return min(scored, key=lambda outcome: outcome.bits.bits_per_character).index

    @property
    def missing(self) -> list[int]:
        """Indices of the models without an outcome, except models on request that the student has not requested."""
        return [index for index in range(len(self.models)) if index not in self.outcomes and self.is_wanted(index)]

    def is_wanted(self, index: int) -> bool:
        """Return False for a model on request that the student has not requested."""
        return index in self.requested or not self.models[index].is_on_request

    @property
    def scored_models(self) -> list[ScoredModel]:
        """Models that have been scored, in the order of the comparison."""
        return [outcome for outcome in self.outcomes.values() if isinstance(outcome, ScoredModel)]

    def iter_events(self, cancelled: Cancelled) -> Iterator[ModelProgress | ScoredModel | FailedModel]:
        """Load and score one model after the other, those without an outcome at the start; called in a thread."""
        for index in self.missing:
            with self._lock:
                if index not in self.outcomes:
                    outcome = yield from self._score_model(index, cancelled)
                    if outcome is None:
                        return
                    self.outcomes = {**self.outcomes, index: outcome}
            yield self.outcomes[index]

    def _score_model(
        self, index: int, cancelled: Cancelled
    ) -> Generator[ModelProgress, None, ScoredModel | FailedModel | None]:
        """Load and score a model; return None if that was cancelled."""
        if cancelled():
            return None
        compared = self.models[index]
        try:
            model = yield from _with_index(index, compared.load(cancelled))
            yield ModelProgress(index, f"{compared.name} reads the held-out lines …")
            bits = measure_written_bits(model, compared.mode, self.lines, self._orthography(model))
        except Exception as error:  # a model by others may fail in any way, and the others are still compared
            return None if cancelled() else FailedModel(index, describe_error(error))
        return ScoredModel(index, model, bits)

    def _orthography(self, model: LanguageModel) -> OrthographyModel | None:
        """Return the model of what the tokens of `model` leave out."""
        if not isinstance(model.tokenizer, WordTokenizer):
            return None
        name = model.tokenizer.name
        if name not in self._orthographies:
            lines = (line.text for line in islice(self.dataset.splits.train, MAX_TRAINING_LINES))
            self._orthographies[name] = OrthographyModel(lines, name)
        return self._orthographies[name]


def _with_index(index: int, loading: Loading[LanguageModel]) -> Generator[ModelProgress, None, LanguageModel]:
    """Yield the lines of progress of a loading with an index, and return the loaded model."""
    while True:
        try:
            text = next(loading)
        except StopIteration as end:
            model: LanguageModel = end.value
            return model
        yield ModelProgress(index, text)


def load_comparison(material: Material) -> Loading[Comparison]:
    """Return the models to compare, and the held-out lines; the material keeps them with the scores.

    Raises:
        CorpusError: If the corpus is missing, too small or has no line that can be scored.
    """
    known = material.results.get(Comparison)
    if isinstance(known, Comparison):
        return known
    dataset = yield from material.words()
    lines, has_bundled_models = _held_out_lines(dataset, material.data)
    models = tuple(_list_models(material, has_bundled_models=has_bundled_models))
    comparison = Comparison(models, tuple(lines), dataset)
    material.results[Comparison] = comparison
    return comparison


def _held_out_lines(dataset: Dataset, data: DataConfig) -> tuple[list[str], bool]:
    """Return held-out lines, and True if the bundled models were not trained on them either.

    A run of the user may split the bundled dialogues in another way than the bundled models. Then the lines are those
    that both splits hold out, if there are any.
    """
    assert isinstance(dataset.tokenizer, WordTokenizer), "the class reads corpora as words"
    name = dataset.tokenizer.name
    candidates = [line.text for line in dataset.splits.valid if len(line.text) <= MAX_LINE_CHARACTERS]
    bundled = bundled_data_config()
    is_shared = True
    if data.corpus == BUNDLED and data != bundled:
        held_out = {line.text for line in load_dataset(bundled).splits.valid}
        shared = [line for line in candidates if line in held_out]
        is_shared = bool(shared)
        candidates = shared or candidates
    lines: list[str] = []
    num_characters = 0
    for line in candidates:
        if not split_words(line, name):
            continue  # models of words do not read it
        if len(lines) == MAX_LINES or num_characters >= MAX_CHARACTERS:
            break
        lines.append(line)
        num_characters += len(line) + 1
    if not lines:
        raise CorpusError(f"no held-out line has at most {MAX_LINE_CHARACTERS:,} characters; use shorter lines")
    return lines, is_shared


def _list_models(material: Material, *, has_bundled_models: bool) -> Iterator[ComparedModel]:
    """Yield the models in the order of the comparison."""
    corpus = material.corpus_name
    yield ComparedModel(
        "5-gram of words", f"counts of five words of {corpus}", "line", lambda _: _load_counts(material)
    )
    for name, label in LABELS.items():
        description = f"small network of words, trained on {corpus}"
        yield ComparedModel(f"{label} of words", description, "line", partial(_load_small, material, name))
    is_bundled = material.data.corpus == BUNDLED
    if has_bundled_models:
        if is_bundled:
            yield _bundled_model(
                "LSTM, from scratch", f"class/{SCRATCH_RUN}", "trained on the dialogues only: from scratch"
            )
        then = "then the same dialogues" if is_bundled else "then dialogues, but not this corpus"
        yield _bundled_model("LSTM, pre-trained", "lstm", f"pre-trained on old tales, {then}")
    if (own := material.session_model) is not None:
        yield ComparedModel(own.name, own.description, _data_mode(own), lambda _: _return_model(own.model))
    if is_base_stored(SMOLLM2) and (own is None or own.source != SMOLLM2):
        description = "pre-trained on other text: the web, maybe these films; 135 M parameters"
        yield ComparedModel("SmolLM2", description, "stream", _load_smollm2, True)


def _bundled_model(name: str, folder: str, training: str) -> ComparedModel:
    """Return an LSTM of word pieces that comes with the program."""
    config = read_config(assets_dir() / folder)
    description = f"{config.model.hidden_size} units, word pieces; {training}"
    return ComparedModel(name, description, config.data.mode, lambda _: _load_run(name, assets_dir() / folder))


def _data_mode(session_model: SessionModel) -> DataMode:
    """Return the mode of the training text of a model."""
    if session_model.run is not None:
        return read_config(session_model.run).data.mode
    return "dialogue" if session_model.cast else "stream"


# Loading


def _return_model(model: LanguageModel) -> Loading[LanguageModel]:
    yield from ()
    return model


def _load_counts(material: Material) -> Loading[LanguageModel]:
    return (yield from material.counts(5))


def _load_small(material: Material, name: ClassModelName, cancelled: Cancelled) -> Loading[LanguageModel]:
    return (yield from material.class_model(name, cancelled)).model


def _load_run(name: str, run: Path) -> Loading[LanguageModel]:
    yield f"loading the {name} …"
    return load_model(run).model


def _load_smollm2(cancelled: Cancelled) -> Loading[LanguageModel]:
    yield "loading SmolLM2, which takes a few seconds …"
    return ModelLoader([SMOLLM2])().model
