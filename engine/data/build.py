"""Build of an encoded corpus: reading its files, splitting, choosing vocabulary and cast, and encoding."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from engine.config import BUNDLED, DataConfig
from engine.data.arrays import Int32Array
from engine.data.cast import choose_cast
from engine.data.corpus import Corpus, merge_corpora, read_csv, read_script, read_text, split_indices
from engine.data.csv_dialect import SEPARATORS
from engine.data.encoding import CorpusStats, EncodedCorpus, TokenizedCorpus
from engine.data.file_scan import BOM, read_blocks
from engine.data.lines import Lines, LineStore
from engine.data.open_vocabulary import OpenIndexer, train_tokenizer
from engine.data.scenes import SCENE_LINES, SceneRules
from engine.data.scripts import detect_style
from engine.data.token_indexer import TokenIndexer
from engine.data.tokenizers.base import MAX_VOCABULARY_SIZE, TokenIds, Tokenizer, is_open_vocabulary
from engine.data.tokenizers.words import WordTokenizerName, skipped_spans
from engine.errors import ConfigError, CorpusError
from engine.storage.files import assets_dir

ALPHABET_SAMPLE_LINES = 200
"""Number of lines in which unreadable letters are counted."""
BUNDLED_COLUMNS = ("dialog", "char", "movie")
"""Columns of the texts, the speakers and the scenes of the bundled dialogues."""

Splits = tuple[Int32Array, Int32Array, Int32Array]
"""Line indices of the training, validation and test split."""


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus that was read, split and encoded."""

    corpus: Corpus
    split_indices: Splits
    tokenizer: Tokenizer
    cast: tuple[str, ...]
    """Speakers that can be chosen to speak; none except in dialogue mode."""
    encoded: EncodedCorpus
    stats: CorpusStats


def read_corpus(config: DataConfig, source: str | None = None, store: LineStore | None = None) -> Corpus:
    """Read the file `source`, by default the corpus of `config`, in the format that `config` describes.

    Lines are appended to `store`, or kept in memory if it is None.

    Raises:
        CorpusError: If the file cannot be read, has no usable line, or has no speakers in dialogue mode.
    """
    source = config.corpus if source is None else source
    has_blocks = config.split == "scenes" and not config.valid_corpus
    scenes = SceneRules(config.scene_column, config.scene_lines, SCENE_LINES if has_blocks else None)
    if source != BUNDLED and config.corpus_format == "text":
        read = read_script if config.mode == "dialogue" else read_text
        return read(Path(source), config.min_characters, store, scenes)
    path, text_column, speaker_column = Path(source), config.text_column, config.speaker_column
    if source == BUNDLED:
        text_column, speaker_column, scene_column = BUNDLED_COLUMNS
        path, scenes = assets_dir() / "dialogues.csv", replace(scenes, column=scene_column)
    return read_csv(
        path,
        text_column,
        speaker_column,
        config.min_characters,
        store,
        scenes=scenes,
        repair=is_open_vocabulary(config.tokenizer),
        is_dialogue=config.mode == "dialogue",
    )


def names_speakers(config: DataConfig) -> bool:
    """Return True if the beginning of the corpus of `config` says who speaks each line; False also for no such file."""
    if config.corpus == BUNDLED:
        return True
    try:
        beginning = next(read_blocks(Path(config.corpus).expanduser()), b"").removeprefix(BOM)
    except (OSError, ValueError, RuntimeError):  # a path that is too long, has a null byte, or names an unknown user
        return False
    lines = beginning.decode("utf-8", "replace").splitlines()
    if config.corpus_format == "text":
        return detect_style(lines) is not None
    headers = (next(csv.reader(lines[:1], delimiter=separator), []) for separator in SEPARATORS)
    return any(config.speaker_column in header for header in headers)


def build_corpus(config: DataConfig, tokenizer: Tokenizer | None, folder: Path | None) -> PreparedCorpus:
    """Prepare the corpus of `config`, with all large arrays in `folder`, or in memory if it is None.

    An open vocabulary is taken over from `tokenizer`, or learned if it is None.

    Raises:
        ConfigError: If there is a validation text without a test text, or the reverse, or a closed vocabulary in
            dialogue mode.
        CorpusError: If a file cannot be read, is too small, or has no speakers in dialogue mode.
        OSError: If the folder cannot be written.
    """
    if config.mode == "dialogue" and not is_open_vocabulary(config.tokenizer):
        raise ConfigError(
            f"mode=dialogue reads and writes a script, which tokenizer={config.tokenizer} cannot spell; "
            "use --tokenizer bpe, or --mode line"
        )
    corpus, splits = _read_and_split(config, LineStore(folder))
    tokenized, tokenizer, vocabulary_ids = _tokenize(config, corpus, splits[0], tokenizer, folder)
    cast: tuple[str, ...] = ()
    has_tokens = [lines[tokenized.line_lengths[lines] > 0] for lines in splits]
    if config.mode == "dialogue" or not tokenizer.is_open:
        _check_not_empty(has_tokens, corpus.source)
    if config.mode == "dialogue":
        train, valid, test = map(np.sort, has_tokens)
        splits = (train, valid, test)
        cast = choose_cast(corpus.lines.take(train), config.min_speaker_lines, corpus.source)
        encoded = tokenized.encode_dialogue(splits, tokenizer, corpus.lines)
    else:
        encoded = tokenized.encode_splits(splits if tokenizer.is_open else has_tokens, vocabulary_ids, config.mode)
    return PreparedCorpus(corpus, splits, tokenizer, cast, encoded, tokenized.stats())


def _read_and_split(config: DataConfig, store: LineStore) -> tuple[Corpus, Splits]:
    """Read the files of `config` into `store`, and return the lines of each split."""
    if bool(config.valid_corpus) != bool(config.test_corpus):
        raise ConfigError("valid_corpus and test_corpus belong together; set both or neither")
    if not config.valid_corpus:
        corpus = read_corpus(config, store=store)
        return corpus, split_indices(len(corpus.lines), config.split_seed, config.split, config.held_out)
    corpora, ends = [], [0]
    for path in (config.corpus, config.valid_corpus, config.test_corpus):
        corpora.append(read_corpus(config, path, store))
        ends.append(len(store))
    train, valid, test = (np.arange(begin, end, dtype=np.int32) for begin, end in pairwise(ends))
    return merge_corpora(corpora, store.lines()), (train, valid, test)


def _tokenize(
    config: DataConfig, corpus: Corpus, train: Int32Array, tokenizer: Tokenizer | None, folder: Path | None
) -> tuple[TokenizedCorpus, Tokenizer, TokenIds]:
    """Tokenize a corpus whose training lines are `train`.

    Returns:
        The tokenized corpus, the tokenizer, and its id of each token of the tokenized corpus.
    """
    if is_open_vocabulary(config.tokenizer):
        tokenizer = tokenizer or train_tokenizer(corpus.lines.take(train), config)
        tokenized = TokenizedCorpus(corpus.lines, OpenIndexer(tokenizer, config.mode), folder)
        return tokenized, tokenizer, np.arange(len(tokenizer), dtype=np.int32)
    name: WordTokenizerName = "words" if config.tokenizer == "words" else "whitespace"
    _check_alphabet(corpus.lines, name, corpus.source)
    tokenized = TokenizedCorpus(corpus.lines, TokenIndexer(name), folder)
    words, vocabulary_ids = tokenized.build_word_tokenizer(train, config.min_count, name)
    _check_vocabulary_size(len(words), corpus.source, config.min_count)
    return tokenized, words, vocabulary_ids


def _check_not_empty(splits: Sequence[Int32Array], source: str) -> None:
    """Raise a CorpusError if one of the splits, without lines that have no token, is empty."""
    if not all(map(len, splits[1:])):
        raise CorpusError(f"{source}: the validation or test split has no word; use more text or another --split-seed")
    if not len(splits[0]):
        raise CorpusError(f"{source}: the training split has no word; use more text or another --split-seed")


def _check_alphabet(lines: Lines, tokenizer: WordTokenizerName, source: str) -> None:
    """Raise a CorpusError if the tokenizer skips most letters of a text, as in a text in another script."""
    step = -(-len(lines) // ALPHABET_SAMPLE_LINES)
    sample = "\n".join(line.text[:1000] for line in lines[::step])
    skipped = [word for _, _, word in skipped_spans(sample, tokenizer) if word.isalpha()]
    num_letters = sum(map(str.isalpha, sample))
    if sum(map(len, skipped)) > num_letters / 2:
        raise CorpusError(
            f"{source}: most of its letters are not a to z (such as {skipped[0][:20]!r}), and the words tokenizer "
            "reads no others; use --set tokenizer=whitespace"
        )


def _check_vocabulary_size(size: int, source: str, min_count: int) -> None:
    if size == 2:
        raise CorpusError(
            f"{source}: no word occurs {min_count} times in the training split; use more text or --set min_count=1"
        )
    if size > MAX_VOCABULARY_SIZE:
        raise CorpusError(
            f"{source}: {size:,} words occur {min_count} times or more, but a model has {MAX_VOCABULARY_SIZE:,} at "
            f"most; use --set min_count={min_count + 1} or more"
        )
