"""A corpus read, split and encoded; of a large one the outcome is kept, so that it is made once."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.config import BUNDLED, DataConfig
from engine.data import corpus as reading
from engine.data.arrays import mapped
from engine.data.corpus import Corpus
from engine.data.encoding import CorpusWords, Tokens, WordFacts
from engine.data.lines import LineStore, Numbers, lines_in
from engine.data.punctuation import PAUSES
from engine.data.vocabulary import MAX_WORDS, Vocabulary
from engine.errors import ConfigError, CorpusError, UnusableInput
from engine.storage.files import assets_folder, cache_folder, read_file, sync

LARGE_BYTES = 16_000_000
"""Of text: from here on the outcome is kept in files and mapped, not held in memory."""
KEPT = 4
"""Outcomes that are kept, the ones used last."""
DAY_SECONDS = 86_400
MOST_OF_REST = 128_000_000
"""Bytes of the file with the words and speakers."""
DAMAGE = (OSError, UnusableInput, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading what was kept may raise, when it is damaged or not there."""
VERSION = 1
"""Of how and what is kept; another one is not read."""


@dataclass(frozen=True)
class Prepared:
    """A corpus read, split and encoded."""

    corpus: Corpus
    numbers: tuple[Numbers, Numbers, Numbers]
    """Of the lines of train, valid and test."""
    vocabulary: Vocabulary
    tokens: Tokens
    facts: WordFacts


def read(config: DataConfig, name: str | None = None, store: LineStore | None = None) -> Corpus:
    """Read the corpus that `config` names, or another file in the same way; `store`: where its lines are kept."""
    name = config.corpus if name is None else name
    if name == BUNDLED:
        path = assets_folder() / "dialogues.csv"
        return reading.read_csv(path, "dialog", "char", config.min_characters, store)
    path = Path(name)
    if config.corpus_format == "text":
        return reading.read_text(path, config.min_characters, store)
    return reading.read_csv(path, config.text_column, config.speaker_column, config.min_characters, store)


def prepared(config: DataConfig) -> Prepared:
    """Read, split and encode the corpus of `config`, or take what was made of a large one before.

    Raises:
        CorpusError: it cannot be read, is too small, or there is no room for what is made of it.
        ConfigError: there is a validation text but no test text, or the other way round.
    """
    names = (config.corpus, config.valid_corpus, config.test_corpus)
    files = [Path(name) for name in names if name not in ("", BUNDLED)]
    try:
        stats = [file.stat() for file in files]
    except (OSError, ValueError):  # ValueError: it is no path
        return _make(config, None)  # which says what is wrong
    if sum(stat.st_size for stat in stats) < LARGE_BYTES:
        return _make(config, None)
    made_of = [(str(file.resolve()), stat.st_size, stat.st_mtime_ns) for file, stat in zip(files, stats, strict=True)]
    key = hashlib.sha256(json.dumps([VERSION, asdict(config), made_of]).encode()).hexdigest()[:32]
    folder = cache_folder() / key
    try:
        return _load(folder, config)
    except DAMAGE:  # or it is not there: it is made again
        pass
    try:
        _keep(folder, config)
    except OSError as error:
        raise CorpusError(
            f"what is made of {config.corpus} cannot be kept in {folder.parent}: {error.strerror or error}; "
            "free some space, or set LOTR_TUI_HOME to a folder that has some"
        ) from error
    try:
        return _load(folder, config)
    except DAMAGE:  # it has more words and speakers than are read
        return _make(config, None)


def _make(config: DataConfig, folder: Path | None) -> Prepared:
    """What grows with the corpus is kept in `folder`, or in memory."""
    if bool(config.valid_corpus) != bool(config.test_corpus):
        raise ConfigError("valid_corpus and test_corpus belong together; give both or neither")
    store = LineStore(folder)
    if config.valid_corpus:
        parts, ends = [], [0]
        for path in (config.corpus, config.valid_corpus, config.test_corpus):
            parts.append(read(config, path, store))
            ends.append(len(store))
        corpus = reading.merge(parts, store.lines())
        numbers = [np.arange(begin, end, dtype=np.int32) for begin, end in pairwise(ends)]
    else:
        corpus = read(config, store=store)
        numbers = list(reading.split(len(corpus.lines), config.split_seed))
    words = CorpusWords(corpus.lines, config.tokenizer, folder)
    vocabulary, ids_of = words.vocabulary(numbers[0], config.min_count)
    if len(vocabulary) == 2:
        raise CorpusError(
            f"{corpus.source}: no word is seen {config.min_count} times in the training split; "
            "more text is needed, or --set min_count=1"
        )
    if len(vocabulary) > MAX_WORDS:
        raise CorpusError(
            f"{corpus.source}: {len(vocabulary):,} words are seen {config.min_count} times or more, and a model has "
            f"{MAX_WORDS:,} at most; use --set min_count={config.min_count + 1} or more"
        )
    spoken = [part[words.lengths[part] > 0] for part in numbers]
    if not all(map(len, spoken[1:])):
        raise CorpusError(
            f"{corpus.source}: the validation or test split has no word; more text is needed, or another --split-seed"
        )
    tokens = words.tokens(spoken, ids_of, config.mode)
    train, valid, test = numbers
    return Prepared(corpus, (train, valid, test), vocabulary, tokens, words.facts())


def _keep(folder: Path, config: DataConfig) -> None:
    """Make it in another folder, which then takes its name: it is whole or not there.

    Raises:
        OSError: there is no room.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _tidy(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".", ignore_cleanup_errors=True) as name:
        making = Path(name) / "made"
        making.mkdir()
        made = _make(config, making)
        for name_of_half_made in ("words", "marks"):
            (making / name_of_half_made).unlink()
        np.concatenate(made.numbers).tofile(making / "numbers")
        made.tokens.bounds.tofile(making / "line_bounds")
        made.tokens.sources.tofile(making / "sources")
        corpus = made.corpus
        rest = {
            "corpus": {key: getattr(corpus, key) for key in ("source", "rows", "encoding", "separator", "sha256")},
            "speakers": corpus.lines.names,
            "splits": [len(its) for its in made.numbers],
            "ends": made.tokens.ends,
            "vocabulary": made.vocabulary.words,
            "facts": asdict(made.facts),
            "bytes": {file.name: file.stat().st_size for file in making.iterdir()},
        }
        (making / "rest.json").write_text(json.dumps(rest), encoding="utf-8")
        for file in (*making.iterdir(), making):
            sync(file)
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
        sync(folder.parent)


def _load(folder: Path, config: DataConfig) -> Prepared:
    """What `_keep` left.

    Raises:
        OSError: it is not there.
        One of DAMAGE: it is damaged.
    """
    content = read_file(folder / "rest.json", MOST_OF_REST)
    if content.count(b",") > 4 * MAX_WORDS:  # before it is parsed, which takes many times the memory
        raise ValueError("there are more words and speakers than are kept")
    rest: dict[str, Any] = json.loads(content)
    if any((folder / name).stat().st_size != size for name, size in rest["bytes"].items()):
        raise ValueError("a file is not of the size it was")
    vocabulary = Vocabulary.from_json(json.dumps(rest["vocabulary"]), str(folder), config.tokenizer)
    tokens = Tokens(
        mapped(folder / "ids", np.int32),
        mapped(folder / "pauses", np.uint8),
        mapped(folder / "line_bounds", np.int64),
        mapped(folder / "sources", np.int32),
        (int(rest["ends"][0]), int(rest["ends"][1])),
    )
    corpus = Corpus(lines=lines_in(folder, rest["speakers"]), **rest["corpus"])
    numbers = mapped(folder / "numbers", np.int32)
    _check(tokens, len(vocabulary), numbers, len(corpus.lines))
    train, valid, test, none = np.split(numbers, np.cumsum(rest["splits"]))
    if len(none) or not (len(train) and len(valid) and len(test)):
        raise ValueError("there are more lines than those of the splits, or fewer")
    facts = {name: int(value) for name, value in rest["facts"].items() if name != "most_frequent"}
    most = tuple((str(word), int(times)) for word, times in rest["facts"]["most_frequent"])
    corpus.lines[facts["longest_line"]]
    if not isinstance(corpus.rows, int) or not isinstance(corpus.sha256, str):
        raise TypeError("what is told of the corpus is of other types")
    os.utime(folder)
    return Prepared(corpus, (train, valid, test), vocabulary, tokens, WordFacts(most_frequent=most, **facts))


def _check(tokens: Tokens, words: int, numbers: Numbers, lines: int) -> None:
    """See that whatever points into something else points to what is there.

    Raises:
        ValueError: it does not.
    """
    train, valid = tokens.ends
    bounds = tokens.bounds
    if (
        len(tokens.ids) != len(tokens.pauses)
        or not _within(tokens.ids, words)
        or not _within(tokens.pauses, len(PAUSES))
        or not 0 < train < valid < len(tokens.ids)
        or not _within(bounds, train + 1)
        or not bool(np.all(bounds[1:] > bounds[:-1]))
        or len(tokens.sources) != len(bounds) - 1
        or not _within(tokens.sources, lines)
        or not _within(numbers, lines)
    ):
        raise ValueError("the files do not fit each other")


def _within(places: npt.NDArray[Any], size: int) -> bool:
    return len(places) > 0 and int(places.min()) >= 0 and int(places.max()) < size


def _tidy(cache: Path) -> None:
    """Leave the outcomes used last, one fewer than are kept; and what others are making just now."""

    def age(folder: Path) -> float:
        try:
            return time.time() - folder.stat().st_mtime
        except OSError:  # another process was faster
            return 0.0

    making = [folder for folder in cache.iterdir() if folder.name.startswith(".")]
    kept = sorted((folder for folder in cache.iterdir() if not folder.name.startswith(".")), key=age)
    for folder in [*kept[KEPT - 1 :], *(folder for folder in making if age(folder) > DAY_SECONDS)]:
        shutil.rmtree(folder, ignore_errors=True)
