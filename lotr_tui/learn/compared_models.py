"""Models of the class from counts to a real one, scored on the same held-out lines."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from engine.analysis.evaluation import WrittenBits, measure_written_bits
from engine.config import BUNDLED, DataConfig, DataMode
from engine.data.dataset import Dataset, load_dataset
from engine.data.tokenizers import WordTokenizer, split_words
from engine.errors import CorpusError, describe_error
from engine.models.base import LanguageModel
from engine.models.ngram import OrthographyModel
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from engine.runs.directory import read_config
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.learn.class_models import LABELS, bundled_data_config
from lotr_tui.learn.material import Cancelled, Loading, Material
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
    """A loaded model and its bits."""

    model: LanguageModel
    bits: WrittenBits


@dataclass
class Comparison:
    """Models of a class with the lines that they are scored on; a thread scores them, and a screen shows the scores."""

    models: tuple[ComparedModel, ...]
    lines: tuple[str, ...]  # as they are written
    dataset: Dataset  # the corpus as words
    outcomes: dict[int, ScoredModel | str] = field(default_factory=dict)  # by model; a text says why one failed
    requested: frozenset[int] = frozenset()  # models on request that the student has asked for

    @property
    def missing(self) -> list[int]:
        """Models without an outcome, except models on request that the student has not requested."""
        return [index for index in range(len(self.models)) if index not in self.outcomes and self.is_wanted(index)]

    @property
    def best(self) -> int | None:
        """The model that needs the fewest bits; None until every wanted model has an outcome."""
        bits = {index: scored.bits.bits_per_character for index, scored in self.scored.items()}
        return None if self.missing or not bits else min(bits, key=bits.__getitem__)

    def is_wanted(self, index: int) -> bool:
        """Return False for a model on request that the student has not requested."""
        return index in self.requested or not self.models[index].is_on_request

    @property
    def scored(self) -> dict[int, ScoredModel]:
        """Models that have been scored."""
        return {index: each for index, each in sorted(self.outcomes.items()) if isinstance(each, ScoredModel)}

    def iter_progress(self, cancelled: Cancelled) -> Iterator[tuple[int, str]]:
        """Load and score the missing models in a thread; yield the index of a model and a line, "" when it is done."""
        for index in self.missing:
            try:
                outcome: ScoredModel | str = yield from self._score(index, cancelled)
            except Exception as error:  # a model by others may fail in any way, and the others are still compared
                outcome = describe_error(error)
            if cancelled():
                return
            self.outcomes = {**self.outcomes, index: outcome}  # a new mapping, so that readers need no lock
            yield index, ""

    def _score(self, index: int, cancelled: Cancelled) -> Generator[tuple[int, str], None, ScoredModel]:
        compared = self.models[index]
        loading = compared.load(cancelled)
        while True:
            try:
                yield index, next(loading)
            except StopIteration as end:
                model: LanguageModel = end.value
                break
        yield index, f"{compared.name} reads the held-out lines …"
        orthography = None
        if isinstance(model.tokenizer, WordTokenizer):  # what words leave out counts too
            lines = (line.text for line in islice(self.dataset.splits.train, MAX_TRAINING_LINES))
            orthography = OrthographyModel(lines, model.tokenizer.name)
        return ScoredModel(model, measure_written_bits(model, compared.mode, self.lines, orthography))


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
    bundled, is_shared = bundled_data_config(), True
    if data.corpus == BUNDLED and data != bundled:
        held_out = {line.text for line in load_dataset(bundled).splits.valid}
        shared = [line for line in candidates if line in held_out]
        is_shared, candidates = bool(shared), shared or candidates
    lines: list[str] = []
    for line in filter(lambda line: split_words(line, name), candidates):  # models of words do not read others
        if len(lines) == MAX_LINES or sum(len(each) + 1 for each in lines) >= MAX_CHARACTERS:
            break
        lines.append(line)
    if not lines:
        raise CorpusError(f"no held-out line has at most {MAX_LINE_CHARACTERS:,} characters; use shorter lines")
    return lines, is_shared


def _list_models(material: Material, *, has_bundled_models: bool) -> Iterator[ComparedModel]:
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
    if has_bundled_models:
        if is_bundled:
            yield _bundled("LSTM, from scratch", "class/scratch", "trained on the dialogues only: from scratch")
        then = "then the same dialogues" if is_bundled else "then dialogues, but not this corpus"
        yield _bundled("LSTM, pre-trained", "lstm", f"pre-trained on old tales, {then}")
    if own is not None:
        mode: DataMode = "dialogue" if own.cast else "stream"
        mode = mode if own.run is None else read_config(own.run).data.mode
        yield ComparedModel(own.name, own.description, mode, lambda _: _load(own.name, lambda: own.model))
    if is_base_stored(SMOLLM2) and (own is None or own.source != SMOLLM2):
        text = "pre-trained on other text: the web, maybe these films; 135 M parameters"
        yield _large("SmolLM2", text, "stream", SMOLLM2)
    if is_base_stored(SMOLLM2) and own is None and is_bundled:
        text = "SmolLM2 with an adapter, which shifts its weights: fine-tuned on the same dialogues"
        yield _large("SmolLM2, fine-tuned", text, "dialogue", BUNDLED)


def _large(name: str, description: str, mode: DataMode, source: str) -> ComparedModel:
    def load(_: Cancelled) -> Loading[LanguageModel]:
        return _load(f"{name}, which takes a few seconds", lambda: ModelLoader([source])().model)

    return ComparedModel(name, description, mode, load, is_on_request=True)


def _bundled(name: str, folder: str, training: str) -> ComparedModel:
    config, run = read_config(assets_dir() / folder), assets_dir() / folder
    description = f"{config.model.hidden_size} units, word pieces; {training}"
    return ComparedModel(name, description, config.data.mode, lambda _: _load(name, lambda: load_model(run).model))


def _load(name: str, load: Callable[[], LanguageModel]) -> Loading[LanguageModel]:
    yield f"loading {name} …"
    return load()
