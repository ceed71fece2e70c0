"""Memorised or new: the index over a text of Penn Treebank's size, and a reply of 200 words looked up in it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine.analysis.memorization import TrainingIndex
from engine.config import preset
from engine.data.dataset import Dataset, prepare
from engine.data.vocabulary import Ids
from engine.errors import UnusableInput
from lotr_tui.bench.figures import Figure, Skipped, median

WORDS = 200
TRAINING_TEXT = Path("data") / "ptb" / "ptb.train.txt"


def memorised(repeat: int, ptb: Path | None) -> Iterator[Figure | Skipped]:
    """The index of the text `ptb` (None: in `LOTR_TUI_SHARED`); half of the words looked up stand in it just so.

    Raises:
        UnusableInput: there is no such file.
    """
    path = ptb or _shared()
    if path is None:
        yield Skipped("memorised-or-new on Penn Treebank", "give its training text with --ptb FILE, or LOTR_TUI_SHARED")
        return
    if not path.is_file():
        raise UnusableInput(f"--ptb {path} is no file; give the training text of the Penn Treebank")
    dataset = read_whole(path)
    building, looking = [], []
    for run in range(repeat):
        started = time.perf_counter()
        index = TrainingIndex.of(dataset)
        building.append(time.perf_counter() - started)
        reply = half_known(dataset, WORDS, run)
        started = time.perf_counter()
        index.find(reply)
        looking.append(1000 * (time.perf_counter() - started))
    words = sum(len(line) for line in dataset.train_lines)
    yield median(f"memorised-or-new, index of {words:,} words", "s", building, 3)
    yield median(f"memorised-or-new, {WORDS} words looked up", "ms", looking, 20)


def read_whole(path: Path) -> Dataset:
    """A tokenized text, all of it as the training split; the other splits, which nobody asks for, repeat it."""
    text = str(path)
    values = {"corpus": text, "valid_corpus": text, "test_corpus": text, "corpus_format": "text"}
    return prepare(preset("ptb").with_values(**values, tokenizer="spaces", min_characters=0, min_count=1).data)


def half_known(dataset: Dataset, words: int, seed: int) -> Ids:
    """So many ids: in turn a line of the training text and as many words drawn from all of it."""
    chance = np.random.default_rng(seed)
    lines = dataset.train_lines
    text = np.concatenate(lines)
    parts: list[Ids] = []
    while sum(map(len, parts)) < words:
        line = lines[int(chance.integers(len(lines)))]
        parts += [line, chance.choice(text, len(line))]
    return np.concatenate(parts)[:words]


def _shared() -> Path | None:
    shared = os.environ.get("LOTR_TUI_SHARED")
    path = Path(shared) / TRAINING_TEXT if shared else None
    return path if path is not None and path.is_file() else None
