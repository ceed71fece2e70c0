"""Models of the class from counts to a real one, scored on the same held-out lines."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from engine.analysis.evaluation import WrittenBits, measure_written_bits
from engine.config import BUNDLED, DataMode
from engine.data.dataset import Dataset
from engine.data.tokenizers import WordTokenizer, WordTokenizerName, split_words
from engine.errors import CorpusError, describe_error
from engine.models.base import LanguageModel
from engine.models.ngram import OrthographyModel
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from engine.runs.directory import read_config
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.learn.material import LABELS, Cancelled, Loading, Material, bundled_data_config
from lotr_tui.session.model_loading import ModelLoader

MAX_LINES, MAX_CHARACTERS = 40, 4_000  # held-out lines, and characters after which no further line is added
MAX_LINE_CHARACTERS = 1_000  # longer lines, such as whole paragraphs, are not scored
MAX_TRAINING_LINES = 50_000  # in which capitals and punctuation are counted


@dataclass(frozen=True)
class ComparedModel:
    """A model to compare, which is loaded just before it is scored; a large one only if the student asks for it."""

    name: str
    description: str
    mode: DataMode
    load: Callable[[Cancelled], Loading[LanguageModel]]
    is_on_request: bool = False


@dataclass(frozen=True)
class ScoredModel:
    model: LanguageModel
    bits: WrittenBits


@dataclass
class Comparison:
    """Models of a class with the lines that they are scored on; a thread scores them, and a screen shows the scores."""

    models: tuple[ComparedModel, ...]
    lines: tuple[str, ...]  # as they are written
    dataset: Dataset  # the corpus as words
    outcomes: dict[int, ScoredModel | str] = field(default_factory=dict)  # by model; a text says why one failed
    requested: set[int] = field(default_factory=set)  # models on request that the student has asked for
    _orthographies: dict[WordTokenizerName, OrthographyModel] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of the thread that scores

    @property
    def wanted(self) -> list[int]:
        return [index for index, each in enumerate(self.models) if not each.is_on_request or index in self.requested]

    @property
    def best(self) -> int | None:
        """The model that needs the fewest bits; None until every wanted model has an outcome."""
        if any(index not in self.outcomes for index in self.wanted):
            return None
        scored = {index: each for index, each in self.outcomes.items() if isinstance(each, ScoredModel)}
        return min(scored, key=lambda index: scored[index].bits.bits_per_character, default=None)

    def score(self, index: int, cancelled: Cancelled) -> Iterator[str]:
        """Load and score a model in a thread, unless that was done; yield lines of progress."""
        with self._lock:
            if index in self.outcomes or cancelled():
                return
            compared, orthography = self.models[index], None
            try:
                model = yield from compared.load(cancelled)
                yield f"{compared.name} reads the held-out lines …"
                if isinstance(model.tokenizer, WordTokenizer):  # what words leave out counts too
                    name = model.tokenizer.name
                    if name not in self._orthographies:
                        lines = (line.text for line in islice(self.dataset.splits.train, MAX_TRAINING_LINES))
                        self._orthographies[name] = OrthographyModel(lines, name)
                    orthography = self._orthographies[name]
                bits = measure_written_bits(model, compared.mode, self.lines, orthography)
                outcome: ScoredModel | str = ScoredModel(model, bits)
            except Exception as error:  # a model by others may fail in any way, and the others are still compared
                if cancelled():
                    return
                outcome = describe_error(error)
            self.outcomes = {**self.outcomes, index: outcome}  # a new mapping, so that readers need no lock


def load_comparison(material: Material) -> Loading[Comparison]:
    """Return the models to compare and the held-out lines, which the material keeps with the scores."""
    known = material.results.get(Comparison)
    if isinstance(known, Comparison):
        return known
    dataset = yield from material.words()
    assert isinstance(dataset.tokenizer, WordTokenizer), "the class reads corpora as words"
    lines: list[str] = []
    for line in (each.text for each in dataset.splits.valid):
        if len(lines) == MAX_LINES or sum(len(each) + 1 for each in lines) >= MAX_CHARACTERS:
            break
        if len(line) <= MAX_LINE_CHARACTERS and split_words(line, dataset.tokenizer.name):
            lines.append(line)
    if not lines:
        raise CorpusError(f"no held-out line has at most {MAX_LINE_CHARACTERS:,} characters; use shorter lines")
    comparison = Comparison(tuple(_list_models(material)), tuple(lines), dataset)
    material.results[Comparison] = comparison
    return comparison


def _list_models(material: Material) -> Iterator[ComparedModel]:
    corpus, is_bundled, own = material.corpus_name, material.data.corpus == BUNDLED, material.session_model

    def load_words(name: str, cancelled: Cancelled) -> Loading[LanguageModel]:
        with material.lock:
            if name == "counts":
                return (yield from material.counts(5))
            return (yield from material.class_model("lstm" if name == "lstm" else "transformer", cancelled)).model

    yield ComparedModel("5-gram of words", f"counts of five words of {corpus}", "line", partial(load_words, "counts"))
    for name, label in LABELS.items():
        description = f"small network of words, trained on {corpus}"
        yield ComparedModel(f"{label} of words", description, "line", partial(load_words, name))
    if not is_bundled or material.data == bundled_data_config():  # with another split, they know its held-out lines
        then = "then the same dialogues" if is_bundled else "then dialogues, but not this corpus"
        bundled = [("LSTM, pre-trained", "lstm", f"pre-trained on old tales, {then}")]
        if is_bundled:
            bundled.insert(0, ("LSTM, from scratch", "class/scratch", "trained on the dialogues only: from scratch"))
        for title, folder, training in bundled:
            run = assets_dir() / folder
            config, load = read_config(run), partial(load_model, run)
            text = f"{config.model.hidden_size} units, word pieces; {training}"
            yield ComparedModel(title, text, config.data.mode, partial(_load, title, load))
    if own is not None:
        mode: DataMode = "dialogue" if own.cast else "stream"
        mode = mode if own.run is None else read_config(own.run).data.mode
        yield ComparedModel(own.name, own.description, mode, partial(_load, own.name, lambda: own))
    large: list[tuple[str, str, DataMode, str]] = []
    if is_base_stored(SMOLLM2) and (own is None or own.source != SMOLLM2):
        text = "pre-trained on other text: the web, maybe these films; 135 M parameters"
        large.append(("SmolLM2", text, "stream", SMOLLM2))
    if is_base_stored(SMOLLM2) and own is None and is_bundled:
        text = "SmolLM2 with an adapter, which shifts its weights: fine-tuned on the same dialogues"
        large.append(("SmolLM2, fine-tuned", text, "dialogue", BUNDLED))
    for title, text, mode, source in large:
        line = f"{title}, which takes a few seconds"
        yield ComparedModel(title, text, mode, partial(_load, line, ModelLoader([source])), is_on_request=True)


def _load(name: str, load: Callable[[], Any], cancelled: Cancelled) -> Loading[LanguageModel]:
    yield f"loading {name} …"
    model: LanguageModel = load().model
    return model
