"""Models for tests of the screens that analyse a text, with a training text and its counts."""

from types import SimpleNamespace

from engine.analysis.memorization import TrainingIndex
from engine.config import DataConfig
from engine.data.corpus import Line
from engine.data.dataset import concatenate_lines, load_dataset
from engine.models.ngram import KneserNey
from engine.runs.loading import load_model
from lotr_tui.screens.inspect import lens
from lotr_tui.session import comparison
from lotr_tui.session.session_model import SessionModel
from tests.support.open_models import LINES, open_model, write_open_run


def open_session_model(tokenizer, run=None, *, predicts_eos=True):
    return SessionModel("open", "", open_model(tokenizer), run=run, predicts_eos=predicts_eos)


def words_session_model(folder):
    """Return a model with random weights of a run, in `folder`, on the words of the bundled dialogues."""
    run = write_open_run(folder / "words", load_dataset(DataConfig()).tokenizer)
    return SessionModel.from_loaded(load_model(run))


def use_training_text(monkeypatch, tokenizer):
    """Make `LINES` the training text of every run, in line mode, and return its Kneser-Ney model."""
    sources = [Line(text, "ROSA") for text in LINES]
    train = tuple(tokenizer.encode_lines(LINES))
    data = SimpleNamespace(tokenizer=tokenizer, train_lines=train, train_source_lines=sources, cast=())
    index = TrainingIndex.from_dataset(data)
    counts = KneserNey(concatenate_lines(train, "line"), tokenizer, 3)
    monkeypatch.setattr(comparison, "load_training_data", lambda run: data)
    monkeypatch.setattr(comparison, "load_training_index", lambda run: index)
    monkeypatch.setattr(lens, "load_kneser_ney", lambda run: counts)
    return counts
