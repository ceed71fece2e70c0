"""Training data of a run, loaded once per session, and searches in it."""

from functools import lru_cache
from pathlib import Path

from engine.analysis.memorization import MemorizationReport, TrainingIndex
from engine.analysis.tokenized_text import TokenizedText
from engine.data.dataset import Dataset
from engine.data.tokenizers.base import Tokenizer
from engine.errors import LotrError, RunError
from engine.runs.combine import load_run_dataset
from engine.runs.loading import load_model
from engine.runs.summary import summarize_run

MAX_CACHED_RUNS = 2
"""Number of runs whose training data stay in memory."""


@lru_cache(MAX_CACHED_RUNS)
def load_training_data(run: Path) -> Dataset:
    """Load the dataset of a run. This may take seconds, so call it in a thread.

    Raises:
        RunError: If the run is damaged.
        CorpusError: If the corpus is missing or has changed.
    """
    return load_run_dataset(load_model(run))


def load_matching_training_data(run: Path, tokenizer: Tokenizer) -> Dataset:
    """Load the dataset of a run and check that it has the vocabulary of a model.

    Raises:
        RunError: If the run is damaged, or its vocabulary differs from that of `tokenizer`.
        CorpusError: If the corpus is missing or has changed.
    """
    data = load_training_data(run)
    if data.tokenizer != tokenizer:
        raise RunError(f"run {run.name} has another vocabulary than this model; open the model of that run")
    return data


@lru_cache(MAX_CACHED_RUNS)
def load_training_index(run: Path) -> TrainingIndex:
    """Load the dataset of a run and index its training split. This may take seconds, so call it in a thread.

    Raises:
        RunError: If the run is damaged.
        CorpusError: If the corpus is missing, has changed or is too large to index.
    """
    return TrainingIndex.from_dataset(load_training_data(run))


def find_memorized_passages(run: Path, tokenizer: Tokenizer, tokens: TokenizedText) -> MemorizationReport:
    """Find the passages of a text, tokenized by `tokenizer`, that are copied from the training text of a run.

    Raises:
        RunError: If the run is damaged, or its vocabulary differs from that of `tokenizer`.
        CorpusError: If the corpus is missing, has changed or is too large to index.
    """
    load_matching_training_data(run, tokenizer)
    return load_training_index(run).find_copied(tokens)


def is_line_mode(run: Path) -> bool:
    """Return True if the model of a run was trained with `<eos>` after each line; False if the run cannot be read."""
    try:
        return summarize_run(run).mode == "line"
    except (LotrError, OSError):  # the run was deleted after its model was loaded
        return False
