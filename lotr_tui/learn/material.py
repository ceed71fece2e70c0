"""Corpus, models and lines of the class: the bundled ones, or of the user, for which small models are trained."""

import hashlib
import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeVar

from engine.analysis.activations import find_attention_model, find_lstm
from engine.config import BUNDLED, LSTM, Config, DataConfig
from engine.data.dataset import Dataset, load_dataset
from engine.data.scripts import encode_speaker
from engine.data.speakers import SOMEONE
from engine.data.tokenizers import EOS_ID, Tokenizer
from engine.errors import CorpusError, RunError, printable
from engine.events import Evaluated, Finished, Preparing, Step, TrainingEvent
from engine.generation.generate import END_OF_TEXT, DecoderState, TextInProgress, TokenEvent, force_token, generate
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.models.ngram import KneserNey
from engine.presets import PRESETS
from engine.runs.directory import bundled_runs, read_config, resolve_run
from engine.runs.loading import load_model
from engine.storage.files import app_home, assets_dir
from lotr_tui.formatting import LINE_END_MARK, displayable, format_perplexity
from lotr_tui.session.session_model import SessionModel, find_cast, reads_line_ends

T = TypeVar("T")
Loading = Generator[str, None, T]
"""Generator that yields lines of progress and returns the loaded value. A thread runs it."""
Cancelled = Callable[[], bool]
ClassModelName = Literal["lstm", "transformer"]
LABELS: dict[ClassModelName, str] = {"lstm": "LSTM", "transformer": "Transformer"}
# Tokens that a training reads at most, in whole epochs and at least in one: a minute or two on two cores.
MAX_TRAINED_TOKENS: dict[ClassModelName, int] = {"lstm": 1_500_000, "transformer": 3_500_000}
MAX_TRAINING_SECONDS = 180.0  # the training on a very large corpus ends then, and its best model is kept
MAX_EXAMPLES = 300  # lines of the corpus in which an example is looked for


def class_data_config(data: DataConfig) -> DataConfig:
    """Return the configuration of a corpus as the class reads it: its words, line by line, with the same split."""
    tokenizer = data.tokenizer if data.tokenizer in ("words", "whitespace") else "words"
    return replace(data, tokenizer=tokenizer, mode="line")


def bundled_data_config() -> DataConfig:
    """Return the configuration of the bundled dialogues, with the split of the bundled LSTM."""
    return class_data_config(read_config(resolve_run(LSTM)).data)


def class_model_config(name: ClassModelName, data: DataConfig) -> Config:
    config = PRESETS["tiny"].with_values(epochs=10) if name == "lstm" else PRESETS["gpt-tiny"]
    if name == "transformer":
        config = config.with_values(embedding_size=96, num_layers=3, context_size=32, bptt=32, epochs=30)
    return replace(config, preset=f"class-{name}", data=data)


def class_models_dir(data: DataConfig, corpus_sha256: str) -> Path:
    """Return the folder of the small models for a corpus; it may not exist yet."""
    if data == bundled_data_config():
        return assets_dir() / "class"
    described = f"{corpus_sha256} {class_data_config(data)} {[class_model_config(name, data) for name in LABELS]}"
    return app_home() / "class" / hashlib.sha256(described.encode()).hexdigest()[:16]


def train_class_model(
    name: ClassModelName, data: DataConfig, corpus_sha256: str, num_tokens: int, cancelled: Cancelled
) -> Loading[Path]:
    """Train a small model on a corpus unless that was done before, and return its run directory.

    Raises an InvalidInputError if the corpus is too small, and a RunError if the training is cancelled or not stored.
    """
    run = class_models_dir(data, corpus_sha256) / name
    if run.is_dir():
        return run
    from engine.training.job import prepare_job  # training is rare, and imports much

    config = class_model_config(name, data)
    epochs = max(1, min(config.training.epochs, MAX_TRAINED_TOKENS[name] // max(1, num_tokens)))
    config = config.with_values(epochs=epochs)
    if epochs == 1:
        config = config.with_values(eval_every_steps=200, max_eval_tokens=20_000)
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".training-", dir=run.parent, ignore_cleanup_errors=True) as folder:
            job = prepare_job(config, config.preset, Path(folder))
            yield from follow_training(job.events, config, f"a small {LABELS[name]}", cancelled)
            if not run.is_dir():  # another session may have trained it meanwhile
                job.run.path.replace(run)
    except OSError as error:
        raise RunError(f"cannot write {run.parent}: {error.strerror}; free some space") from error
    return run


def follow_training(
    events: Callable[[Cancelled], Iterable[TrainingEvent]], config: Config, name: str, cancelled: Cancelled
) -> Loading[list[Evaluated]]:
    """Run a training to its end, or for `MAX_TRAINING_SECONDS`; return its evaluations.

    Raises a RunError if it is cancelled.
    """
    ends_at, num_epochs = time.monotonic() + MAX_TRAINING_SECONDS, config.training.epochs
    is_done, line, evaluations = False, "", list[Evaluated]()
    for event in events(lambda: cancelled() or time.monotonic() > ends_at):
        if isinstance(event, Preparing):
            yield f"preparing {name} for this corpus: {event.message} …"
        elif isinstance(event, Evaluated):
            evaluations.append(event)
            perplexity = format_perplexity(event.valid_perplexity)
            progress = f"epoch {event.epoch:.0f} of {num_epochs}, perplexity {perplexity}"
            line = f"training {name} on this corpus, once: {progress}"
            yield f"{line} …"
        elif isinstance(event, Step) and line and event.epoch:
            seconds = event.seconds / event.epoch * max(0.0, num_epochs - event.epoch)
            seconds = min(seconds, ends_at - time.monotonic())
            yield f"{line}, about {max(1, math.ceil(seconds / 5)) * 5} s left …"  # does not change with each step
        is_done = isinstance(event, Finished) and (event.reason == "done" or not cancelled())
    if not is_done:
        raise RunError(f"the training of {name} was stopped; open the chapter again")
    return evaluations


@dataclass(frozen=True)
class ClassModel:
    """A model that a chapter uses; `note` says why it is not the model of the user."""

    name: str
    model: LanguageModel
    note: str = ""


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
        return "the bundled dialogues" if self.data.corpus == BUNDLED else printable(Path(self.data.corpus).name)

    def words(self) -> Loading[Dataset]:
        """Load the corpus as words; raise a CorpusError if it is missing or too small."""
        known = self.results.get(Dataset)
        if not isinstance(known, Dataset):
            yield f"reading {self.corpus_name} …"
            known, self._data = _load_words(self.data)
            self.results[Dataset] = known
        return known

    def counts(self, order: int) -> Loading[KneserNey]:
        """Count the n-grams of the training split; raise a CorpusError if it is too large."""
        dataset = yield from self.words()
        if order not in self._counts:
            yield f"counting the {order}-grams of {self.corpus_name} …"
            self._counts[order] = KneserNey(dataset.train, dataset.tokenizer, order)
        return self._counts[order]

    def model(self, cancelled: Cancelled) -> Loading[ClassModel]:
        """Return the model of the user, or the small LSTM."""
        if self.session_model is not None:
            return ClassModel(self.session_model.name, self.session_model.model)
        return (yield from self.class_model("lstm", cancelled))

    def model_with(self, name: ClassModelName, cancelled: Cancelled) -> Loading[ClassModel]:
        """Return the model of the user if it has such a network inside, or else the small one with a note."""
        find, lack = (find_lstm, "gates") if name == "lstm" else (find_attention_model, "attention")
        own = self.session_model
        if own is not None and find(own.model) is not None:
            return ClassModel(own.name, own.model)
        small = yield from self.class_model(name, cancelled)
        if own is None:
            return small
        return replace(small, note=f"{own.name} has no {lack}, so this is the class's small {LABELS[name]}")

    def class_model(self, name: ClassModelName, cancelled: Cancelled) -> Loading[ClassModel]:
        """Return a small model, which is trained first if the corpus is new; see `train_class_model`."""
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
        if data.tokenizer == "words" and "tokenizer=whitespace" in str(error):  # the script is not the Latin one
            data = replace(data, tokenizer="whitespace")
            return load_dataset(data), data
        raise


def find_example(
    default: str,
    lines: Iterable[str],
    tokenizer: Tokenizer,
    is_suitable: Callable[[str], bool] = lambda line: True,
    *,
    start_words: int | None = None,
) -> str:
    """Return the default or the first suitable line of words that a model knows, or else the next best one.

    With `start_words`, it is the beginning of a longer line.
    """
    split = [line.split() for line in islice(lines, MAX_EXAMPLES)]
    if start_words is None:
        texts = [" ".join(words) for words in split if 6 <= len(words) < 12]
    else:
        texts = [" ".join(words[:start_words]) for words in split if len(words) > start_words]
    known = [text for text in (default, *texts) if not tokenizer.unknown_spans(text)]
    return next(filter(is_suitable, known), "") or [*known, *texts, default][0]


def encode_line(model: LanguageModel, line: str) -> tuple[int, ...]:
    """Return the token ids of a line, which a model with a cast reads as said by someone."""
    tokenizer = model.tokenizer
    if not find_cast(model):
        return tuple(tokenizer.encode(line).tolist())
    return (*encode_speaker(tokenizer, SOMEONE), *tokenizer.encode(f" {line}").tolist())


def continue_text(
    model: LanguageModel,
    state: DecoderState,
    ids: Sequence[int],
    settings: SamplerSettings,
    seed: int,
    cancelled: Callable[[], bool] = lambda: False,
    *,
    to_line_end: bool = False,
) -> str:
    """Sample `settings.max_tokens` tokens after `ids`, whose state is `state`, and return their text on one line.

    `¶` marks line ends; with `to_line_end`, the first one ends the continuation.
    """
    text = TextInProgress(model, ids, settings, seed, state, is_first_token=False, end_ids=END_OF_TEXT)
    pieces: list[str] = []
    has_ended = False
    while not has_ended:
        for event in generate(text, cancelled):
            if isinstance(event, TokenEvent):
                pieces.append(event.piece)
                has_ended = to_line_end and "\n" in event.piece
                if has_ended:
                    break
            elif event.reason == "eos":
                pieces.append(f" {LINE_END_MARK} ")
                force_token(text, EOS_ID)
                text.num_tokens += 1
                has_ended = to_line_end or reads_line_ends(model)
            else:
                has_ended = True
    return " ".join(displayable("".join(pieces)).replace("\n", f" {LINE_END_MARK} ").split())
