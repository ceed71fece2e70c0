"""Corpora: reading CSV and plain-text files into clean lines, and splitting them."""

import array
import random
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from engine.data.arrays import Int32Array
from engine.data.clean_up import repair_dialogue
from engine.data.csv_dialect import SEPARATORS, detect_dialect, read_columns
from engine.data.file_scan import BOM, CODECS, MAX_LINE_CHARACTERS, read_blocks, scan_file
from engine.data.lines import Lines, LineStore
from engine.errors import CorpusError

SplitName = Literal["lines", "scenes"]
SCENE_LINES = 20
"""Lines of a block that the split by scenes keeps together."""


@dataclass(frozen=True)
class Corpus:
    """All usable lines of a file, in file order, and the detected file format."""

    source: str
    """Path of the file."""
    lines: Lines
    num_rows: int
    """Number of rows of the file before the clean-up."""
    encoding: str
    separator: str
    """Name of the CSV separator; "none" for plain text."""
    sha256: str
    """Hash of the file, which shows later whether a model was trained on this text."""


@dataclass(frozen=True)
class CorpusSplits:
    """The three splits of a corpus. Every line is in exactly one of them."""

    train: Lines
    valid: Lines
    test: Lines


def read_csv(
    path: Path,
    text_column: str,
    speaker_column: str,
    min_characters: int,
    store: LineStore | None = None,
    *,
    repair: bool = False,
) -> Corpus:
    """Read a CSV file with one utterance per row, in the dialect that `detect_dialect` finds.

    The file may be larger than memory. Without a `speaker_column`, the speakers are empty. Lines of `min_characters` or
    fewer are left out; the others are appended to `store`, or kept in memory if it is None. `repair` applies
    `repair_dialogue` to every line, for tokenizers that keep punctuation.

    Raises:
        CorpusError: If the file cannot be read, has no text column or rows of different lengths, or no line is long
            enough.
        OSError: If the store cannot be written.
    """
    line_filter = _LineFilter(path, min_characters, LineStore() if store is None else store, repair=repair)
    scan = scan_file(path)
    beginning = next(read_blocks(path)).removeprefix(BOM).decode(CODECS[scan.encoding], "ignore")
    dialect = detect_dialect(beginning, text_column, scan.after_escaped_quotes, str(path))
    has_speakers = speaker_column in dialect.columns and speaker_column not in ("", text_column)
    names = [text_column, speaker_column] if has_speakers else [text_column]
    codec = "utf-8-sig" if scan.encoding == "UTF-8 with BOM" else CODECS[scan.encoding]
    with path.open(encoding=codec, newline="") as file:
        for columns in read_columns(file, dialect, names, str(path)):
            line_filter.add(*columns)
    if not line_filter.num_rows:
        raise CorpusError(f"{path} has a header but no rows; use a file with text")
    separator = SEPARATORS[dialect.separator]
    return Corpus(str(path), line_filter.lines(), line_filter.num_rows, scan.encoding, separator, scan.sha256)


def read_text(path: Path, min_characters: int, store: LineStore | None = None) -> Corpus:
    """Read a plain-text file with one utterance per line. See `read_csv` for the arguments.

    Raises:
        CorpusError: If the file cannot be read, or no line is long enough.
        OSError: If the store cannot be written.
    """
    line_filter = _LineFilter(path, min_characters, LineStore() if store is None else store)
    scan = scan_file(path)
    for number, block in enumerate(read_blocks(path)):
        line_filter.add((block if number else block.removeprefix(BOM)).decode(CODECS[scan.encoding]).splitlines())
    return Corpus(str(path), line_filter.lines(), line_filter.num_rows, scan.encoding, "none", scan.sha256)


def merge_corpora(corpora: Sequence[Corpus], lines: Lines) -> Corpus:
    """Combine corpora whose `lines` are in one store into one corpus, named after the first."""
    first = corpora[0]
    return Corpus(
        source=first.source,
        lines=lines,
        num_rows=sum(corpus.num_rows for corpus in corpora),
        encoding=first.encoding,
        separator=first.separator,
        sha256=sha256("".join(corpus.sha256 for corpus in corpora).encode()).hexdigest(),
    )


def split_indices(
    num_lines: int, seed: int, split: SplitName = "lines", held_out: float = 0.1
) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Split line indices into training, validation and test; too few lines raise a CorpusError.

    Args:
        num_lines: Number of lines of the corpus.
        seed: Seed of the shuffle with `random.Random`.
        split: "lines" shuffles single lines. "scenes" shuffles blocks of `SCENE_LINES` lines and keeps each split in
            file order, so that nearly every held-out line has its neighbours in its own split.
        held_out: Fraction of the lines for validation, and for test.
    """
    if split == "lines":
        indices = _shuffled(num_lines, seed)
        train_end, valid_end = int((1 - 2 * held_out) * num_lines), int((1 - held_out) * num_lines)
        splits = indices[:train_end], indices[train_end:valid_end], indices[valid_end:]
    else:
        blocks = _shuffled(-(-num_lines // SCENE_LINES), seed)
        size = max(1, int(held_out * len(blocks)))
        block_of_line = np.arange(num_lines) // SCENE_LINES
        valid, test, train = (
            np.flatnonzero(np.isin(block_of_line, part)).astype(np.int32)
            for part in (blocks[:size], blocks[size : 2 * size], blocks[2 * size :])
        )
        splits = train, valid, test
    if not all(map(len, splits)):
        needed = 3 * SCENE_LINES if split == "scenes" else 6
        raise CorpusError(
            f"{num_lines} usable lines cannot be split into training, validation and test; at least {needed} are needed"
        )
    return splits


def _shuffled(size: int, seed: int) -> Int32Array:
    """Return the numbers below `size` in the order of `random.Random(seed).shuffle`."""
    numbers = array.array("i", range(size))  # a list would need nine times the memory
    random.Random(seed).shuffle(numbers)
    return np.array(numbers, np.int32)


class _LineFilter:
    """Filter that cleans the lines of a file and stores the lines of sufficient length."""

    def __init__(self, path: Path, min_characters: int, store: LineStore, *, repair: bool = False) -> None:
        self.num_rows = 0
        """Number of lines before the filter."""
        self._path, self._min_characters, self._store, self._repair = path, min_characters, store, repair
        self._initial_store_size = len(store)

    def add(self, texts: Sequence[str], speakers: Sequence[str] | None = None) -> None:
        """Clean lines, and store every line of sufficient length. An overlong line raises a CorpusError."""
        longest = max(map(len, texts), default=0)
        if longest > MAX_LINE_CHARACTERS:
            raise CorpusError(
                f"{self._path} has an utterance of {longest:,} characters; the maximum is {MAX_LINE_CHARACTERS:,}"
            )
        self.num_rows += len(texts)
        cleaned = [" ".join(text.split()) for text in texts]
        if self._repair:
            cleaned = [repair_dialogue(text) for text in cleaned]
        kept = [index for index, text in enumerate(cleaned) if len(text) > self._min_characters]
        kept_speakers = [] if speakers is None else [speakers[index].strip() for index in kept]
        self._store.add([cleaned[index] for index in kept], kept_speakers)

    def lines(self) -> Lines:
        """Return all lines of the store, or raise a CorpusError if none of them came from this file."""
        if len(self._store) == self._initial_store_size:
            raise CorpusError(
                f"{self._path}: none of the {self.num_rows} lines is longer than {self._min_characters} characters; "
                "lower the limit with --set min_characters=N"
            )
        return self._store.lines()
