"""Preparation of a corpus: the build of its splits, with an on-disk cache for large corpora."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.config import BUNDLED, DataConfig
from engine.data.arrays import Int32Array, memory_map
from engine.data.build import PreparedCorpus, build_corpus
from engine.data.corpus import Corpus
from engine.data.encoding import CorpusStats, EncodedCorpus
from engine.data.lines import load_lines
from engine.data.punctuation import PUNCTUATION_CLASSES
from engine.data.speakers import SOMEONE, normalize_speaker
from engine.data.tokenizers.base import MAX_VOCABULARY_SIZE, Tokenizer, is_open_vocabulary
from engine.data.tokenizers.loading import tokenizer_file_name, tokenizer_from_json
from engine.errors import CorpusError, InvalidInputError
from engine.storage.files import cache_dir, fsync_path, read_limited
from engine.storage.schema import decode_json

CACHE_THRESHOLD_BYTES = 16_000_000
"""Minimum size of a corpus whose preparation is cached on disk and memory-mapped."""
MAX_CACHE_ENTRIES = 4
"""Maximum number of cached corpora; the least recently used are deleted."""
MAX_JSON_BYTES = 128_000_000
DAY_SECONDS = 86_400
CACHE_VERSION = 6
"""Version of the cache format; entries of another version are not read."""
CACHE_READ_ERRORS = (OSError, InvalidInputError, ValueError, LookupError, TypeError, ArithmeticError)
"""Exceptions that reading a missing or damaged cache entry can raise."""


@dataclass(frozen=True)
class _CacheMetadata:
    """Content of `metadata.json` in a cache entry: everything but the arrays and the vocabulary."""

    source: str
    num_rows: int
    encoding: str
    separator: str
    sha256: str
    marks: list[tuple[str, int]]
    speaker_names: list[str]
    cast: list[str]
    split_sizes: tuple[int, int, int]
    split_ends: tuple[int, int]
    stats: CorpusStats
    file_sizes: dict[str, int]
    """Size in bytes of every other file of the entry."""


def prepare_corpus(config: DataConfig, tokenizer: Tokenizer | None = None) -> PreparedCorpus:
    """Read, split and encode the corpus of `config`, or load the result from the cache.

    The arguments and errors are explained in `load_dataset`.
    """
    if not is_open_vocabulary(config.tokenizer):
        tokenizer = None
    names = (config.corpus, config.valid_corpus, config.test_corpus)
    files = [Path(name) for name in names if name not in ("", BUNDLED)]
    try:
        stats = [file.stat() for file in files]
    except (OSError, ValueError):  # ValueError: not a valid path
        return build_corpus(config, tokenizer, None)  # raises an error that explains the problem
    if sum(stat.st_size for stat in stats) < CACHE_THRESHOLD_BYTES:
        return build_corpus(config, tokenizer, None)
    # A program can keep size and modification time of a file that it changes, but not the change time. The price is
    # that a corpus is prepared again after its permissions or name have changed, too.
    versions = [
        (str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        for file, stat in zip(files, stats, strict=True)
    ]
    tokenizer_json = None if tokenizer is None else tokenizer.to_json()
    content = json.dumps([CACHE_VERSION, asdict(config), versions, tokenizer_json])
    folder = cache_dir() / hashlib.sha256(content.encode()).hexdigest()[:32]
    try:
        return _load(folder, config, tokenizer)
    except CACHE_READ_ERRORS:  # missing or damaged: built again below
        pass
    try:
        _save(folder, config, tokenizer)
    except OSError as error:
        raise CorpusError(
            f"the prepared {config.corpus} cannot be cached in {folder.parent}: {error.strerror or error}; "
            "free some space, or set LOTR_TUI_HOME to a folder with more space"
        ) from error
    try:
        return _load(folder, config, tokenizer)
    except CACHE_READ_ERRORS:  # too many speakers to read back
        return build_corpus(config, tokenizer, None)


def _save(folder: Path, config: DataConfig, tokenizer: Tokenizer | None) -> None:
    """Prepare a corpus and write it to `folder`, so that the folder is complete or does not exist."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _evict_old_entries(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".", ignore_cleanup_errors=True) as temporary:
        entry = Path(temporary) / "entry"
        entry.mkdir()
        prepared = build_corpus(config, tokenizer, entry)
        for name in ("tokens", "token_punctuation"):  # only needed for building
            (entry / name).unlink()
        corpus, encoded = prepared.corpus, prepared.encoded
        np.concatenate(prepared.split_indices).tofile(entry / "split_indices")
        encoded.train_line_offsets.tofile(entry / "train_line_offsets")
        encoded.train_line_indices.tofile(entry / "train_line_indices")
        encoded.train_scene_offsets.tofile(entry / "train_scene_offsets")
        tokenizer_json = prepared.tokenizer.to_json()
        (entry / tokenizer_file_name(config.tokenizer)).write_text(tokenizer_json, encoding="utf-8")
        train, valid, test = map(len, prepared.split_indices)
        metadata = _CacheMetadata(
            source=corpus.source,
            num_rows=corpus.num_rows,
            encoding=corpus.encoding,
            separator=corpus.separator,
            sha256=corpus.sha256,
            marks=list(corpus.marks),
            speaker_names=list(corpus.lines.speaker_names),
            cast=list(prepared.cast),
            split_sizes=(train, valid, test),
            split_ends=encoded.split_ends,
            stats=prepared.stats,
            file_sizes={file.name: file.stat().st_size for file in entry.iterdir()},
        )
        (entry / "metadata.json").write_text(json.dumps(asdict(metadata)), encoding="utf-8")
        for path in (*entry.iterdir(), entry):
            fsync_path(path)
        shutil.rmtree(folder, ignore_errors=True)
        entry.rename(folder)
        fsync_path(folder.parent)


def _load(folder: Path, config: DataConfig, tokenizer: Tokenizer | None) -> PreparedCorpus:
    """Load what `_save` wrote with the same arguments. Damage raises one of `CACHE_READ_ERRORS`."""
    content = read_limited(folder / "metadata.json", MAX_JSON_BYTES)
    if content.count(b",") > 2 * MAX_VOCABULARY_SIZE:  # checked before parsing, which takes many times the memory
        raise ValueError("too many speakers")
    metadata = decode_json(_CacheMetadata, content)
    if any((folder / name).stat().st_size != size for name, size in metadata.file_sizes.items()):
        raise ValueError("a file has another size than it had")
    file = folder / tokenizer_file_name(config.tokenizer)
    if tokenizer is None:
        tokenizer = tokenizer_from_json(read_limited(file, MAX_JSON_BYTES).decode(), str(file), config.tokenizer)
    _check_cast(metadata.cast, config)
    encoded = EncodedCorpus(
        ids=memory_map(folder / "ids", np.int32),
        punctuation=memory_map(folder / "punctuation", np.uint8),
        train_line_offsets=memory_map(folder / "train_line_offsets", np.int64),
        train_line_indices=memory_map(folder / "train_line_indices", np.int32),
        train_scene_offsets=memory_map(folder / "train_scene_offsets", np.int64),
        split_ends=metadata.split_ends,
    )
    corpus = Corpus(
        source=metadata.source,
        lines=load_lines(folder, metadata.speaker_names),
        num_rows=metadata.num_rows,
        encoding=metadata.encoding,
        separator=metadata.separator,
        sha256=metadata.sha256,
        marks=tuple(metadata.marks),
    )
    line_indices = memory_map(folder / "split_indices", np.int32)
    _check_references(encoded, len(tokenizer), line_indices, len(corpus.lines))
    _check_scenes(encoded, config)
    if min(metadata.split_sizes) <= 0 or sum(metadata.split_sizes) != len(line_indices):
        raise ValueError("the split sizes do not match the number of lines")
    if not 0 <= metadata.stats.longest_line_index < len(corpus.lines):
        raise ValueError("the longest line does not exist")
    train, valid, test = np.split(line_indices, np.cumsum(metadata.split_sizes[:2]))
    os.utime(folder)  # marks the entry as recently used
    return PreparedCorpus(corpus, (train, valid, test), tokenizer, tuple(metadata.cast), encoded, metadata.stats)


def _check_references(encoded: EncodedCorpus, vocabulary_size: int, line_indices: Int32Array, num_lines: int) -> None:
    """Raise a ValueError if an id, offset or index refers to something that does not exist."""
    train_end, valid_end = encoded.split_ends
    offsets = encoded.train_line_offsets
    if (
        len(encoded.ids) != len(encoded.punctuation)
        or not _all_in_range(encoded.ids, vocabulary_size)
        or not _all_in_range(encoded.punctuation, len(PUNCTUATION_CLASSES))
        or not 0 < train_end < valid_end < len(encoded.ids)
        or not _all_in_range(offsets, train_end + 1)
        or not bool(np.all(offsets[1:] > offsets[:-1]))
        or len(encoded.train_line_indices) != len(offsets) - 1
        or not _all_in_range(encoded.train_line_indices, num_lines)
        or not _all_in_range(line_indices, num_lines)
    ):
        raise ValueError("the files do not match each other")


def _check_cast(cast: Sequence[str], config: DataConfig) -> None:
    """Raise a ValueError if the mode has no cast and there is one, or the reverse, or a name is not canonical."""
    is_cast = cast[-1:] == [SOMEONE] if config.mode == "dialogue" else not cast
    if not is_cast or len(set(cast)) != len(cast) or any(normalize_speaker(name).name != name for name in cast):
        raise ValueError("the cast is damaged")


def _check_scenes(encoded: EncodedCorpus, config: DataConfig) -> None:
    """Raise a ValueError if the training scenes of a dialogue do not consist of training lines."""
    offsets, lines = encoded.train_scene_offsets, encoded.train_line_offsets
    if config.mode != "dialogue":
        is_valid = not len(offsets)
    else:
        is_valid = (
            len(offsets) > 1
            and (offsets[0], offsets[-1]) == (lines[0], lines[-1])
            and bool(np.all(offsets[1:] > offsets[:-1]))
            and bool(np.all(lines[np.searchsorted(lines, offsets)] == offsets))
        )
    if not is_valid:
        raise ValueError("the scenes do not match the lines")


def _all_in_range(indices: npt.NDArray[Any], size: int) -> bool:
    return len(indices) > 0 and int(indices.min()) >= 0 and int(indices.max()) < size


def _evict_old_entries(folder: Path) -> None:
    """Delete the least recently used entries, to make room for one, and abandoned temporary folders."""

    def age_seconds(entry: Path) -> float:
        try:
            return time.time() - entry.stat().st_mtime
        except OSError:  # deleted by another process
            return 0.0

    entries = sorted(folder.iterdir(), key=age_seconds)
    complete = [entry for entry in entries if not entry.name.startswith(".")]
    abandoned = [entry for entry in entries if entry.name.startswith(".") and age_seconds(entry) > DAY_SECONDS]
    for entry in [*complete[MAX_CACHE_ENTRIES - 1 :], *abandoned]:
        shutil.rmtree(entry, ignore_errors=True)
