"""Corpora: reading tables, plain texts, scripts and screenplays into clean lines, and splitting them."""

import array
import hashlib
import io
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby, islice, tee
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.config import BUNDLED, FOUNTAIN_SUFFIX, DataConfig
from engine.data import scripts
from engine.data.arrays import Int32Array
from engine.data.scripts import Turn
from engine.data.speakers import JOINED, SOMEONE, normalize_speaker
from engine.data.tables import MAX_LINE_CHARACTERS, check_line_lengths, read_table
from engine.data.tokenizers import OPEN_VOCABULARIES
from engine.errors import ConfigError, CorpusError
from engine.storage.files import absolute_path, assets_dir, read_limited

MAX_CORPUS_BYTES = 1_000_000_000
SCENE_LINES = 20  # lines of a block that the split by scenes keeps together
CODECS = {"UTF-8": "utf-8-sig", "Windows-1252": "cp1252"}  # the latter contains Latin-1

_CONTROL_BYTES = bytes(byte for byte in range(1, 32) if byte not in b"\t\n\r\f\v")
# A comma that a stage direction left behind a sentence, as in "death! , What", but not the one in `"Go!", he said`.
_COMMA_AFTER_SENTENCE = re.compile(r"""([.!?…]|[.!?…]["')]+(?=\s))\s*,[\s,]*""")


@dataclass(frozen=True)
class Line:
    text: str
    speaker: str = ""  # empty if the source does not name one


@dataclass(frozen=True, eq=False)
class Lines(Sequence[Line]):
    """All or some lines of a corpus, in any order."""

    texts: list[str]
    speaker_ids: Int32Array  # index of the speaker of each line in `speaker_names` `[lines]`
    scene_ids: Int32Array  # number of the scene of each line `[lines]`
    speaker_names: tuple[str, ...]  # names of all speakers of the corpus; the first is empty

    def take(self, indices: npt.NDArray[np.integer]) -> "Lines":
        """Return the lines at `indices`, in this order."""
        texts = list(map(self.texts.__getitem__, indices.tolist()))
        return Lines(texts, self.speaker_ids[indices], self.scene_ids[indices], self.speaker_names)

    def scenes(self) -> Iterator[list[Turn]]:
        """Yield the scenes in file order. Lines without text are left out; those without a speaker are SOMEONE's."""
        for _, scene in groupby(zip(self, self.scene_ids.tolist(), strict=True), lambda item: item[1]):
            if turns := [Turn(line.speaker or SOMEONE, line.text) for line, _ in scene if line.text]:
                yield turns

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Line:  # type: ignore[override]  # slices are not needed
        return Line(self.texts[index], self.speaker_names[self.speaker_ids[index]])

    def __iter__(self) -> Iterator[Line]:
        return map(Line, self.texts, map(self.speaker_names.__getitem__, self.speaker_ids.tolist()))


def make_lines(texts: list[str], speakers: Sequence[str] = (), scene_ids: Sequence[int] = ()) -> Lines:
    """Return lines of clean texts; names that are equal up to spaces and hyphens become the most frequent of them."""
    spellings = {"": Counter([""])}
    for name, num_lines in Counter(speakers).items():
        spellings.setdefault(name.translate(JOINED), Counter())[name] += num_lines
    ids = {name: id for id, counts in enumerate(spellings.values()) for name in counts}
    return Lines(
        texts,
        np.array([ids[name] for name in speakers or [""] * len(texts)], np.int32),
        np.array(scene_ids or [0] * len(texts), np.int32),
        tuple(counts.most_common(1)[0][0] for counts in spellings.values()),
    )


@dataclass(frozen=True)
class Corpus:
    """All usable lines of a file or of three, in file order, and the detected format of the first."""

    source: str  # path of the first file
    lines: Lines
    file_ends: tuple[int, ...]  # number of lines up to the end of each file: one to split, or three that are splits
    num_rows: int  # number of rows before the clean-up
    encoding: str
    separator: str  # name of the CSV separator; "none" for another text, with its kind in brackets
    sha256: str  # hash of the files, which shows later whether a model was trained on this text


def read_corpus(config: DataConfig) -> Corpus:
    """Read the corpus of `config`, and its validation and test text if they are files of their own.

    Lines of `min_characters` or fewer are left out, and in a dialogue also those without a text. A scene ends at the
    end of a file, where the scene column changes or an empty line stands, after `scene_lines` lines, and with the
    blocks of a split by scenes. A file that is no such text raises a CorpusError.
    """
    if bool(config.valid_corpus) != bool(config.test_corpus):
        raise ConfigError("valid_corpus and test_corpus belong together; set both or neither")
    names = [name for name in (config.corpus, config.valid_corpus, config.test_corpus) if name]
    has_blocks, is_dialogue = config.split == "scenes" and len(names) == 1, config.mode == "dialogue"
    min_characters, scene_lines = config.min_characters, config.scene_lines
    texts: list[str] = []
    speakers: list[str] = []
    scene_ids = array.array("i")
    formats, hashes, file_ends, num_rows, scene = [], [], [0], 0, -1
    for name in names:
        path, options = Path(name), config
        if name == BUNDLED:
            path = assets_dir() / "dialogues.csv"
            options = replace(
                config, corpus_format="csv", text_column="dialog", speaker_column="char", scene_column="movie"
            )
        repairs = options.corpus_format == "csv" and config.tokenizer in OPEN_VOCABULARIES
        file = TextFile.read(path)
        separator, rows = _read_rows(file, str(path), options)
        section, length, rows_before = -1, 0, num_rows
        for raw_text, raw_speaker, row_section in rows:
            num_rows += 1
            written = " ".join(raw_text.split())
            text = repair_dialogue(written) if repairs else written
            if len(text) <= min_characters or (is_dialogue and not written):
                continue
            if len(text) > MAX_LINE_CHARACTERS:
                raise CorpusError(f"{path} has an utterance of {len(text):,} characters; shorten it")
            if row_section != section or length == scene_lines or (has_blocks and len(texts) % SCENE_LINES == 0):
                scene, length = scene + 1, 0
            section, length = row_section, length + 1
            texts.append(text)
            speakers.append(raw_speaker and normalize_speaker(raw_speaker))
            scene_ids.append(scene)
        if num_rows == rows_before:
            raise CorpusError(f"{path} has no rows below its header; use a file with text")
        if len(texts) == file_ends[-1]:
            raise CorpusError(
                f"{path}: none of the {num_rows - rows_before} lines is longer than {config.min_characters} "
                "characters; use more text, or lower the limit with --set min_characters=N"
            )
        formats.append((str(path), file.encoding, separator))
        hashes.append(file.sha256)
        file_ends.append(len(texts))
    source, encoding, separator = formats[0]
    return Corpus(
        source=source,
        lines=make_lines(texts, speakers, scene_ids),
        file_ends=tuple(file_ends[1:]),
        num_rows=num_rows,
        encoding=encoding,
        separator=separator,
        sha256=hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
    )


def check_columns(config: DataConfig) -> None:
    """Raise a ColumnError if a table does not say where its texts or speakers are; a CorpusError for no such file."""
    if config.corpus != BUNDLED:
        path = absolute_path(Path(config.corpus))
        _read_rows(TextFile.read(path), str(path), config)


def detect_format(corpus: str) -> Literal["csv", "text"]:
    """Return the format of a corpus by its name; a .txt file is a table if it has clear columns."""
    if corpus.lower().endswith((".txt", FOUNTAIN_SUFFIX)):
        try:
            check_columns(DataConfig(corpus, mode="dialogue"))
        except CorpusError:
            return "text"
    return "csv"


def names_speakers(corpus: str) -> bool:
    """Return True if a corpus says who speaks each line; False also for no such file."""
    with suppress(CorpusError):
        check_columns(DataConfig(corpus, detect_format(corpus), mode="dialogue"))
        return True
    return False


def repair_dialogue(line: str) -> str:
    """Return a line without the commas that removed stage directions left behind, as in "a fish , so juicy"."""
    if "," not in line:
        return line
    line = _COMMA_AFTER_SENTENCE.sub(r"\1 ", re.sub(r"^[\s,]+", "", line))
    return re.sub(r"\s+,[\s,]*", ", ", line).strip()


class TextFile(NamedTuple):
    """A text file that the user names."""

    stream: io.TextIOWrapper  # decoded, with line ends as written
    content: bytes
    encoding: str  # a key of `CODECS`
    sha256: str

    @classmethod
    def read(cls, path: Path, max_bytes: int = MAX_CORPUS_BYTES) -> "TextFile":
        """Read a file and detect its encoding, or raise a CorpusError if it is not a text."""
        try:
            content = read_limited(path, max_bytes)
        except FileNotFoundError as error:
            raise CorpusError(f"{path} does not exist; check the path") from error
        except (OSError, ValueError) as error:  # missing permissions, a name that is too long or has a zero byte
            raise CorpusError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from error
        if not content.removeprefix(b"\xef\xbb\xbf").strip():
            raise CorpusError(f"{path} is empty; use a file with text")
        if b"\0" in content or (len(content) - len(content.translate(None, _CONTROL_BYTES))) * 100 > len(content):
            raise CorpusError(f"{path} is UTF-16 or a binary file; name a CSV or text file, saved as UTF-8")
        for encoding, codec in CODECS.items():
            with suppress(UnicodeDecodeError):
                content.decode(codec)
                stream = io.TextIOWrapper(io.BytesIO(content), codec, newline="")
                return cls(stream, content, encoding, hashlib.sha256(content).hexdigest())
        raise CorpusError(f"{path} is not UTF-8, Latin-1 or Windows-1252; save it as UTF-8")


def read_whole_text(path: Path, max_bytes: int = MAX_CORPUS_BYTES) -> str:
    """Return a text file as written, with a line feed for each line end, or raise a CorpusError if it is not text."""
    text = TextFile.read(path, max_bytes).stream.read().replace("\r\n", "\n").replace("\r", "\n")
    check_line_lengths(text.split("\n"), str(path))
    return text


def _read_rows(file: TextFile, path: str, config: DataConfig) -> tuple[str, Iterator[tuple[str, str, int]]]:
    # The name of the separator, and the rows before the clean-up.
    if config.corpus_format == "csv":
        return read_table(file.stream, file.content, path, config)
    lines, sample = tee(line for block in file.stream for line in block.splitlines())
    beginning = list(islice(sample, scripts.SAMPLE_LINES))
    is_dialogue = config.mode == "dialogue"
    if path.lower().endswith(FOUNTAIN_SUFFIX) or scripts.is_screenplay(beginning, needs_scenes=not is_dialogue):
        return "none (screenplay)", scripts.read_screenplay(lines)
    if not is_dialogue:
        return "none", _read_plain_text(lines)
    utterances = scripts.read_utterances(lines)
    if utterances is None:
        raise CorpusError(
            f"{path} has no speakers, which dialogue mode needs: lines of the form 'NAME: text', or 'NAME:' or 'NAME' "
            "in capitals above the text; use such a file, or --mode line"
        )
    return "none", utterances


def _read_plain_text(lines: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    section = 0
    for line in lines:
        section += not line or line.isspace()
        yield line, "", section


def split_indices(num_lines: int, seed: int, split: str = "lines", held_out: float = 0.1) -> Sequence[Int32Array]:
    """Split line indices: shuffled "lines", or "scenes" of `SCENE_LINES` lines, each split in file order."""
    is_split_by_lines = split == "lines"
    size = num_lines if is_split_by_lines else -(-num_lines // SCENE_LINES)
    numbers = array.array("i", range(size))  # a list would need nine times the memory
    random.Random(seed).shuffle(numbers)
    shuffled = np.array(numbers, np.int32)
    if is_split_by_lines:
        splits = np.split(shuffled, [int((1 - 2 * held_out) * size), int((1 - held_out) * size)])
    else:
        num_blocks = max(1, int(held_out * size))
        block_of_line = np.arange(num_lines) // SCENE_LINES
        valid, test, train = (
            np.flatnonzero(np.isin(block_of_line, part)).astype(np.int32)
            for part in np.split(shuffled, [num_blocks, 2 * num_blocks])
        )
        splits = [train, valid, test]
    if not all(map(len, splits)):
        needed = 6 if is_split_by_lines else 3 * SCENE_LINES
        raise CorpusError(
            f"{num_lines} usable lines cannot be split into training, validation and test; at least {needed} are needed"
        )
    return splits
