"""Corpora: reading CSV and plain-text files into clean lines, and splitting them."""

import array
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np

from engine.data.arrays import Int32Array
from engine.data.csv_dialect import SEPARATORS, CsvDialect, detect_dialect, read_columns
from engine.data.file_scan import BOM, CODECS, FileScan, read_blocks, scan_file
from engine.data.line_filter import LineFilter
from engine.data.lines import Lines, LineStore
from engine.data.scenes import SCENE_LINES, SceneRules
from engine.data.scripts import read_utterances
from engine.errors import CorpusError

SplitName = Literal["lines", "scenes"]
SCRIPT_BLOCK = 500
"""Number of utterances of a script that are processed at once."""


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
    marks: tuple[tuple[str, int], ...] = ()
    """Marks that were separated from the names of speakers, with their numbers of lines, most lines first."""


@dataclass(frozen=True)
class CorpusSplits:
    """The three splits of a corpus. Every line is in exactly one of them, or in a dialogue in none if it is empty."""

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
    scenes: SceneRules | None = None,
    repair: bool = False,
    is_dialogue: bool = False,
) -> Corpus:
    """Read a CSV file with one utterance per row, in the dialect that `detect_dialect` finds.

    The file may be larger than memory. Without a `speaker_column`, the speakers are empty. Lines of `min_characters` or
    fewer are left out; the others are appended to `store`, or kept in memory if it is None. Scenes end as `scenes`
    says. `repair` applies `repair_dialogue` to every line, for tokenizers that keep punctuation. A dialogue needs
    speakers, and leaves out rows without a text.

    Raises:
        CorpusError: If the file cannot be read, has no text column or rows of different lengths, no line is long
            enough, or a dialogue has no column of speakers.
        OSError: If the store cannot be written.
    """
    scenes = scenes or SceneRules()
    store = LineStore() if store is None else store
    line_filter = LineFilter(path, min_characters, store, scenes, repair=repair, drop_empty=is_dialogue)
    scan = scan_file(path)
    beginning = next(read_blocks(path)).removeprefix(BOM).decode(CODECS[scan.encoding], "ignore")
    dialect = detect_dialect(beginning, text_column, scan.after_escaped_quotes, str(path))
    has_speakers = speaker_column in dialect.columns and speaker_column not in ("", text_column)
    if is_dialogue:
        _check_speaker_column(path, dialect, text_column, speaker_column)
    names = [text_column, speaker_column] if has_speakers else [text_column]
    has_scenes = scenes.column in dialect.columns and scenes.column != ""
    codec = "utf-8-sig" if scan.encoding == "UTF-8 with BOM" else CODECS[scan.encoding]
    with path.open(encoding=codec, newline="") as file:
        if has_scenes:
            names.append(scenes.column)
        for texts, *others in read_columns(file, dialect, names, str(path)):
            speakers = others[0] if has_speakers else None
            line_filter.add(texts, speakers, scene_names=others[-1] if has_scenes else None)
    if not line_filter.num_rows:
        raise CorpusError(f"{path} has a header but no rows; use a file with text")
    separator = SEPARATORS[dialect.separator]
    return _make_corpus(path, line_filter, scan, separator)


def read_text(
    path: Path, min_characters: int, store: LineStore | None = None, scenes: SceneRules | None = None
) -> Corpus:
    """Read a plain-text file with one utterance per line. Empty lines end scenes.

    See `read_csv` for the arguments.

    Raises:
        CorpusError: If the file cannot be read, or no line is long enough.
        OSError: If the store cannot be written.
    """
    store = LineStore() if store is None else store
    line_filter = LineFilter(path, min_characters, store, scenes or SceneRules(), empty_lines_end_scenes=True)
    scan = scan_file(path)
    for lines in _read_line_blocks(path, scan.encoding):
        line_filter.add(lines)
    return _make_corpus(path, line_filter, scan, "none")


def read_script(
    path: Path, min_characters: int, store: LineStore | None = None, scenes: SceneRules | None = None
) -> Corpus:
    """Read a plain-text file whose lines name their speakers, as `engine.data.scripts` describes.

    See `read_csv` for the arguments. The rows of the corpus are the utterances of the script.

    Raises:
        CorpusError: If the file cannot be read, names no speakers, or no utterance is long enough.
        OSError: If the store cannot be written.
    """
    store = LineStore() if store is None else store
    line_filter = LineFilter(path, min_characters, store, scenes or SceneRules())
    scan = scan_file(path)
    utterances = read_utterances(chain.from_iterable(_read_line_blocks(path, scan.encoding)), str(path))
    while block := list(islice(utterances, SCRIPT_BLOCK)):
        line_filter.add(
            [utterance.text for utterance in block],
            [utterance.speaker for utterance in block],
            [str(utterance.section) for utterance in block],
        )
    return _make_corpus(path, line_filter, scan, "none")


def _read_line_blocks(path: Path, encoding: str) -> Iterator[list[str]]:
    """Yield the lines of a text file in blocks, without line ends."""
    for number, block in enumerate(read_blocks(path)):
        yield (block if number else block.removeprefix(BOM)).decode(CODECS[encoding]).splitlines()


def _make_corpus(path: Path, line_filter: LineFilter, scan: FileScan, separator: str) -> Corpus:
    """Return the corpus of all lines that a filter kept, or raise a CorpusError if it kept none of this file."""
    return Corpus(
        source=str(path),
        lines=line_filter.lines(),
        num_rows=line_filter.num_rows,
        encoding=scan.encoding,
        separator=separator,
        sha256=scan.sha256,
        marks=tuple(line_filter.marks.most_common()),
    )


def _check_speaker_column(path: Path, dialect: CsvDialect, text_column: str, speaker_column: str) -> None:
    """Raise a CorpusError unless a CSV file has one column of texts and another one of speakers."""
    columns = ", ".join([name[:40] for name in dialect.columns if name][:20])
    remedy = "name the column of the speakers with --speaker-column, or use --mode line"
    if speaker_column not in dialect.columns or not speaker_column:
        raise CorpusError(
            f"{path} has no column {speaker_column!r} of speakers, which dialogue mode needs; its columns: {columns}; "
            f"{remedy}"
        )
    if speaker_column == text_column:
        raise CorpusError(f"{path}: the column {text_column!r} of the texts cannot be the column of speakers; {remedy}")
    for name in (text_column, speaker_column):
        if (count := dialect.columns.count(name)) > 1:
            raise CorpusError(
                f"{path} has {count} columns {name!r}, and dialogue mode needs one; rename the others in the file"
            )


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
        marks=tuple(sum((Counter(dict(corpus.marks)) for corpus in corpora), Counter[str]()).most_common()),
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
