"""Time to index a training text of the Penn Treebank's size, and to find the copied passages of a reply."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine.analysis.memorization import TrainingIndex
from engine.data.dataset import Dataset, load_dataset
from engine.data.tokenizers.base import TokenIds
from engine.errors import InvalidInputError
from engine.presets import get_preset
from lotr_tui.bench.measurement import Measurement, SkippedMeasurement, median_of_runs

REPLY_TOKENS = 200
PTB_TRAIN_PATH = Path("data") / "ptb" / "ptb.train.txt"
"""Training text of the Penn Treebank, relative to the directory that `LOTR_TUI_SHARED` names."""


def measure_memorization(repeat: int, ptb: Path | None) -> Iterator[Measurement | SkippedMeasurement]:
    """Measure the index of a training text and a look-up of a reply, half of which is copied from the text.

    Raises:
        InvalidInputError: If `ptb` does not exist.
    """
    path = ptb or _shared_ptb_path()
    if path is None:
        reason = "give its training text with --ptb FILE or LOTR_TUI_SHARED"
        yield SkippedMeasurement("memorization index of the Penn Treebank", reason)
        return
    if not path.is_file():
        raise InvalidInputError(f"--ptb {path} does not exist; give the training text of the Penn Treebank")
    dataset = load_as_train_split(path)
    index_seconds, lookup_milliseconds = [], []
    for seed in range(repeat):
        started = time.perf_counter()
        index = TrainingIndex.from_dataset(dataset)
        index_seconds.append(time.perf_counter() - started)
        reply = half_memorized_reply(dataset, REPLY_TOKENS, seed)
        started = time.perf_counter()
        index.find_passages(reply)
        lookup_milliseconds.append(1000 * (time.perf_counter() - started))
    num_words = sum(len(line) for line in dataset.train_lines)
    yield median_of_runs(f"memorization index of {num_words:,} words", "s", index_seconds, 3)
    yield median_of_runs(f"memorization look-up of {REPLY_TOKENS} words", "ms", lookup_milliseconds, 20)


def load_as_train_split(path: Path) -> Dataset:
    """Load a tokenized text as the training split; the other splits, which are not used, are the same text."""
    text = str(path)
    corpora = {"corpus": text, "valid_corpus": text, "test_corpus": text, "corpus_format": "text"}
    config = get_preset("ptb").with_values(**corpora, tokenizer="whitespace", min_characters=0, min_count=1)
    return load_dataset(config.data)


def half_memorized_reply(dataset: Dataset, num_tokens: int, seed: int) -> TokenIds:
    """Return `num_tokens` ids: lines of the training text, each followed by as many tokens sampled from the text."""
    rng = np.random.default_rng(seed)
    lines = dataset.train_lines
    text = np.concatenate(lines)
    parts: list[TokenIds] = []
    while sum(map(len, parts)) < num_tokens:
        line = lines[int(rng.integers(len(lines)))]
        parts += [line, rng.choice(text, len(line))]
    return np.concatenate(parts)[:num_tokens]


def _shared_ptb_path() -> Path | None:
    shared = os.environ.get("LOTR_TUI_SHARED")
    path = Path(shared) / PTB_TRAIN_PATH if shared else None
    return path if path is not None and path.is_file() else None
