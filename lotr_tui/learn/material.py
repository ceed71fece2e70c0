"""Corpus and models that the chapters work on, loaded when they are first needed."""

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from engine.analysis.activations import find_attention_model, find_lstm
from engine.config import BUNDLED, DataConfig
from engine.data.dataset import Dataset, load_dataset
from engine.errors import CorpusError, printable
from engine.models.base import LanguageModel
from engine.models.ngram import KneserNey
from engine.runs.directory import bundled_runs, read_config
from engine.runs.loading import load_model
from lotr_tui.learn.class_models import (
    LABELS,
    ClassModelName,
    bundled_data_config,
    class_data_config,
    train_class_model,
)
from lotr_tui.session.session_model import SessionModel

T = TypeVar("T")
Loading = Generator[str, None, T]
"""Generator that yields lines of progress and returns the loaded value. A thread runs it."""
Cancelled = Callable[[], bool]


@dataclass(frozen=True)
class ClassModel:
    """A model that a chapter uses."""

    name: str
    model: LanguageModel
    note: str = ""
    """Why the chapter does not use the model of the user; empty if it does, or if there is none."""


class Material:
    """Corpus and models of a class: the bundled ones, a corpus of the user, or a run and its corpus.

    Results are kept, so that a chapter that is opened again has them at once. The thread that loads holds `lock`: the
    one of a chapter that was left ends at its next line of progress.
    """

    def __init__(self, data: DataConfig | None = None, session_model: SessionModel | None = None) -> None:
        self.session_model = session_model
        self.lock = threading.Lock()
        self.results: dict[type, object] = {}  # of chapters by their type, such as measurements that take seconds
        self._data = data
        self._counts: dict[int, KneserNey] = {}
        self._models: dict[ClassModelName, ClassModel] = {}

    @classmethod
    def from_session(cls, session_model: SessionModel | None) -> "Material":
        """Use the model of a session and its corpus, unless it is the bundled model."""
        if session_model is None or session_model.run in bundled_runs():
            return cls()
        return cls(session_model=session_model)

    @property
    def data(self) -> DataConfig:
        """Configuration of the corpus, read as words; raises a RunError if the run of the user is damaged."""
        if self._data is None:
            run = None if self.session_model is None else self.session_model.run
            self._data = bundled_data_config() if run is None else class_data_config(read_config(run).data)
        return self._data

    @property
    def corpus_name(self) -> str:
        """Name of the corpus for display."""
        return "the bundled dialogues" if self.data.corpus == BUNDLED else printable(Path(self.data.corpus).name)

    def words(self) -> Loading[Dataset]:
        """Load the corpus as words; a corpus in another script than the Latin one is split at white space.

        Raises:
            CorpusError: If the corpus is missing or too small.
        """
        known = self.results.get(Dataset)
        if not isinstance(known, Dataset):
            yield f"reading {self.corpus_name} …"
            known, self._data = _load_words(self.data)
            self.results[Dataset] = known
        return known

    def counts(self, order: int) -> Loading[KneserNey]:
        """Count the n-grams of the training split; raises a CorpusError if it is too large."""
        dataset = yield from self.words()
        if order not in self._counts:
            yield f"counting the {order}-grams of {self.corpus_name} …"
            self._counts[order] = KneserNey(dataset.train, dataset.tokenizer, order)
        return self._counts[order]

    def model(self, cancelled: Cancelled) -> Loading[ClassModel]:
        """Return the model of the user, or the small LSTM of the class."""
        if self.session_model is not None:
            return ClassModel(self.session_model.name, self.session_model.model)
        return (yield from self.class_model("lstm", cancelled))

    def lstm(self, cancelled: Cancelled) -> Loading[ClassModel]:
        """Return a model with an LSTM inside: the one of the user if it has one, or the small one of the class."""
        return (yield from self._model_with("lstm", find_lstm, "no gates", cancelled))

    def transformer(self, cancelled: Cancelled) -> Loading[ClassModel]:
        """Return a model with a Transformer inside: the one of the user if it has one, or the small one."""
        return (yield from self._model_with("transformer", find_attention_model, "no attention", cancelled))

    def _model_with(
        self, name: ClassModelName, find: Callable[[LanguageModel], object], lack: str, cancelled: Cancelled
    ) -> Loading[ClassModel]:
        own = self.session_model
        if own is not None and find(own.model) is not None:
            return ClassModel(own.name, own.model)
        small = yield from self.class_model(name, cancelled)
        note = "" if own is None else f"{own.name} has {lack}, so this is the class's small {LABELS[name]}"
        return replace(small, note=note) if note else small

    def class_model(self, name: ClassModelName, cancelled: Cancelled) -> Loading[ClassModel]:
        """Return a small model of the class, which is trained first if the corpus is the user's and new.

        Raises:
            InvalidInputError: If the corpus is missing or too small, or the model cannot be stored.
            RunError: If `cancelled` returned True.
        """
        if name not in self._models:
            dataset = yield from self.words()
            sha256 = dataset.corpus.sha256
            run = yield from train_class_model(name, self.data, sha256, len(dataset.train), cancelled)
            self._models[name] = ClassModel(f"small {LABELS[name]}", load_model(run).model)
        return self._models[name]


@lru_cache(maxsize=2)
def _load_words(data: DataConfig) -> tuple[Dataset, DataConfig]:
    try:
        return load_dataset(data), data
    except CorpusError as error:
        if data.tokenizer == "words" and "tokenizer=whitespace" in str(error):
            data = replace(data, tokenizer="whitespace")
            return load_dataset(data), data
        raise
