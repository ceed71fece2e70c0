"""Parsers to fuzz: seeds, and comparisons of their results with simpler computations.

A parser must return or raise a `LotrError`; a failed assertion about its result is a finding too.
"""

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import save

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.config import Config, DataConfig
from engine.control import ControlCommand
from engine.data.corpus import Corpus, read_csv, read_script, read_text
from engine.data.dataset import concatenate_lines, load_dataset, summarize_dataset
from engine.data.encoding import TokenizedCorpus
from engine.data.file_scan import BOM, CODECS
from engine.data.speakers import normalize_speaker
from engine.data.token_indexer import TokenIndexer
from engine.data.tokenizers.base import EOS, UNK
from engine.data.tokenizers.words import WordTokenizer, WordTokenizerName, split_words
from engine.presets import PRESETS
from engine.runs.control_files import CommandFileReader
from engine.runs.directory import COMMANDS_FILE, check_run_name
from engine.runs.loading import load_model_by_name
from engine.storage.quantization import Int8Rows
from engine.storage.tensor_file import SCALE_SUFFIX, read_header, read_weights
from engine.storage.text_files import read_text_file
from lotr_tui.learn.progress import Progress
from tests.support.datasets import encode_lines
from tests.support.files import sentences
from tests.support.open_models import bpe_tokenizer, character_tokenizer

TOKENIZERS: tuple[WordTokenizerName, ...] = ("words", "whitespace")
MODES: tuple[Literal["line", "stream"], ...] = ("line", "stream")


@dataclass(frozen=True)
class Parser:
    """Parser of untrusted content."""

    read: Callable[[bytes, Path], object]
    """Function of the content and of a folder for files. It parses the content and checks the result."""
    seeds: tuple[bytes, ...]
    """Valid inputs, to begin with."""


def write_file(path: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content)
    return path


# Corpora


def _parse_csv(content: bytes, folder: Path) -> None:
    corpus = read_csv(
        write_file(folder / "corpus.csv", content), text_column="dialog", speaker_column="char", min_characters=0
    )
    assert all(normalize_speaker(line.speaker) == (line.speaker, ()) for line in corpus.lines)
    if corpus.separator == "comma" and b"\\" not in content:
        text = content.removeprefix(BOM).decode(CODECS[corpus.encoding])
        table = csv.reader(io.StringIO(text, newline=""))
        header = next(row for row in table if "".join(row).strip())
        rows = [row for row in table if len(row) > 1 or (row and len(header) == 1) or "".join(row).strip()]
        assert len(set(map(len, rows))) == 1
        assert corpus.num_rows == len(rows)
        if len(header) == len(rows[0]):
            column = header.index("dialog")
            texts = [" ".join(row[column].split()) for row in rows]
            assert [line.text for line in corpus.lines] == [text for text in texts if text]
    _check_corpus(corpus, "words")


def _parse_text(content: bytes, folder: Path) -> None:
    corpus = read_text(write_file(folder / "corpus.txt", content), min_characters=0)
    text = content.removeprefix(BOM).decode(CODECS[corpus.encoding])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert [line.text for line in corpus.lines] == [line for line in lines if line]
    _check_corpus(corpus, "whitespace")


def _parse_script(content: bytes, folder: Path) -> None:
    corpus = read_script(write_file(folder / "corpus.txt", content), min_characters=0)
    text = content.removeprefix(BOM).decode(CODECS[corpus.encoding])
    rest = iter("".join(text.split()))
    for line in corpus.lines:
        assert normalize_speaker(line.speaker) == (line.speaker, ())
        assert all(character in rest for character in line.text.replace(" ", ""))  # in the order of the file
    steps = np.diff(corpus.lines.scene_ids)
    assert set(steps.tolist()) <= {0, 1}
    _check_corpus(corpus, "whitespace")


def _check_corpus(corpus: Corpus, name: WordTokenizerName) -> None:
    assert 0 < len(corpus.lines) <= corpus.num_rows
    texts = [line.text for line in corpus.lines]
    assert all(text and text == " ".join(text.split()) for text in texts)
    lines = [split_words(text, name) for text in texts]
    tokenized = TokenizedCorpus(corpus.lines, TokenIndexer(name), None)
    assert tokenized.line_lengths.tolist() == [len(line) for line in lines]
    if any(lines):
        tokens = [token for line in lines for token in line]
        assert tokenized.stats().num_distinct_tokens == len(set(tokens))
        tokenizer, _ = tokenized.build_word_tokenizer(np.arange(len(texts), dtype=np.int32), 1, name)
        assert tokenizer == WordTokenizer.from_words(tokens, 1, name)


def _parse_lens_text(content: bytes, folder: Path) -> None:
    text = read_text_file(write_file(folder / "text.txt", content))
    for open_tokenizer in (bpe_tokenizer(), character_tokenizer()):
        tokens = tokenize_with_offsets(text, open_tokenizer, eos_per_line=True)
        assert "".join(tokens[index] for index in range(len(tokens))) == text
        assert tokens.word_starts.tolist() == sorted(set(tokens.word_starts.tolist()))
        assert tokens.sentence_starts.tolist() == sorted(set(tokens.sentence_starts.tolist()))
    for name in TOKENIZERS:
        tokenizer = WordTokenizer((UNK, EOS, "the", "road"), name)
        tokens = tokenize_with_offsets(text, tokenizer)
        assert tokens.ids.tolist() == tokenizer.encode(text).tolist()
        assert all(tokens[index].strip() for index in range(len(tokens)))
        with_line_ends = tokenize_with_offsets(text, tokenizer, eos_per_line=True)
        assert len(with_line_ends) >= len(tokens)
        sentence_indices = [with_line_ends.sentence_index(index) for index in range(len(with_line_ends))]
        assert sentence_indices == sorted(sentence_indices)


def _prepare_dataset(content: bytes, folder: Path) -> None:
    path = write_file(folder / "corpus.txt", content)
    for mode in MODES:
        config = DataConfig(
            str(path), corpus_format="text", tokenizer="whitespace", mode=mode, min_characters=0, min_count=1
        )
        dataset = load_dataset(config)
        splits = (dataset.splits.train, dataset.splits.valid, dataset.splits.test)
        assert sum(map(len, splits)) == summarize_dataset(dataset).num_lines == len(dataset.corpus.lines)
        for lines, ids in zip(splits, (dataset.train, dataset.valid, dataset.test), strict=True):
            assert ids.tolist() == concatenate_lines(encode_lines(lines, dataset.tokenizer), mode).tolist()


# Files of a run


def _parse_vocabulary(content: bytes, folder: Path) -> None:
    text = content.decode(errors="replace")
    for name in TOKENIZERS:
        tokenizer = WordTokenizer.from_json(text, "vocabulary.json", name)
        assert tokenizer.tokens == tuple(json.loads(text))
        assert all(token.isprintable() for token in tokenizer.tokens)
        assert WordTokenizer.from_json(tokenizer.to_json(), "round trip", name) == tokenizer
        assert tokenizer.encode_words(tokenizer.tokens).tolist() == [*range(len(tokenizer))]


def _parse_config(content: bytes, folder: Path) -> None:
    config = Config.from_json(content.decode(errors="replace"), "config.json")
    assert Config.from_json(config.to_json(), "round trip") == config
    config.model.layer_sizes()


def _parse_progress(content: bytes, folder: Path) -> None:
    progress = Progress.from_json(content.decode(errors="replace"))
    assert Progress.from_json(progress.to_json()) == progress
    assert progress.merged_with(Progress(("tokens",))).done.count("tokens") == 1


def _parse_overrides(content: bytes, folder: Path) -> None:
    config = Config().with_overrides(content.decode(errors="surrogateescape").split("\n"))
    assert Config.from_json(config.to_json(), "round trip") == config


def _parse_weights(content: bytes, folder: Path) -> None:
    path = write_file(folder / "model.safetensors", content)
    header = read_header(path)
    shapes = {name: shape for name, (_, shape) in header.tensors.items()}
    for name, (dtype, shape) in header.tensors.items():
        if dtype == "int8" and len(shape) == 2:
            shapes.pop(name + SCALE_SUFFIX, None)
    weights = read_weights(path, shapes)
    for name, tensor in weights.items():
        array = tensor.to_float32() if isinstance(tensor, Int8Rows) else tensor
        assert (str(array.dtype), array.shape) == ("float32", shapes.pop(name))
    assert not shapes


def _parse_checkpoint(content: bytes, folder: Path) -> None:
    from engine.training.checkpoint import ResumeCheckpoint  # imports PyTorch

    ResumeCheckpoint(write_file(folder / "resume.safetensors", content)).check_config(Config())


def _parse_commands(content: bytes, folder: Path) -> None:
    path = write_file(folder / COMMANDS_FILE, content)
    commands = CommandFileReader(folder)()
    assert all(
        ControlCommand(command.kind, command.value) == command and command.value.isprintable() for command in commands
    )
    # A reader that follows a growing file finds the same commands.
    reader = CommandFileReader(folder)
    write_file(path, content[: len(content) // 2])
    first_commands = reader()
    write_file(path, content)
    assert first_commands + reader() == commands


def _parse_run_name(content: bytes, folder: Path) -> None:
    name = content.decode(errors="surrogateescape")
    load_model_by_name(name, folder)
    check_run_name(name)


def _weights_seed() -> bytes:
    return save({"embedding.weight": np.zeros((3, 2), np.float32), "layers.0.bias": np.ones(4, np.float32)})


def _checkpoint_seed() -> bytes:
    progress = {
        "step": 5, "epoch": 1.5, "epoch_index": 1, "end_epoch": 2, "evaluation_due": False, "evaluations_since_best": 0,
        "valid_perplexities": [9.5, 8.5], "best_perplexity": 8.5, "notebook_perplexity": math.nan,
        "initial_perplexity": math.nan,
        "plateau_factor": 1.0, "lr_scale": 0.5, "sample_prompt": "the road",
        "fine_tuning": False, "early_stopped": False, "seconds": 1.5,
    }  # fmt: skip
    windows = {"position": 3, "rng_state": [3, [1, 2], None], "epoch_rng_state": None}
    trainer_state = {"windows": windows, "averaged_updates": None, "progress": progress}
    metadata = {"config": Config().to_json(), "trainer_state": json.dumps(trainer_state)}
    return save({"dropout_generator": np.zeros(3, np.uint8)}, metadata={"format": "lotr-tui resume"} | metadata)


ENGINE_PARSERS = {
    "csv": Parser(
        _parse_csv,
        (
            b'char,dialog\nSAM,the road goes on\nBILBO,"well, now: ""yes""\nand no"\n',
            b"\xef\xbb\xbfid;dialog;char\r\n1;what is this?;SAM\r\n2;a road;\r\n",
            "char\tdialog\nSAM\tThéoden… said K\n".encode(),
            'dialog\n"il était là, déjà"\n'.encode("latin-1"),
            b'dialog\nit\x92s a road\n\n"a"\n',
            b'"char" "dialog"\n"1" "SAM" "He said \\"no\\""\n"2" "ROSA" "a road; \\\\"\n',
            b"char;dialog,,,,\r\nSAM;well, now,,,\r\nROSA;a road,,,,\r\n",
            b"id,char,dialog\n1,SAM,a road,\n2,ROSA,the road,\n",
            b"id\tchar\tdialog\t\rx\tSAM\ta road\t\r",
        ),
    ),
    "text": Parser(
        _parse_text,
        (
            b"the road goes on\nwell, now: <unk> <eos> N $\n\nagain\n",
            "\ufeffThéoden said…\r\nno\u2028yes\u0085\x0bİK\n".encode(),
            "il était là, déjà\n".encode("latin-1"),
            b"it\x92s a road",
        ),
    ),
    "script": Parser(
        _parse_script,
        (
            b"SAM: the road goes on\nFRODO (V.O.): no: never\nand more\n\n(GOLLUM: yes\nGAN DALF:\nwell\nGANDALF: n\n",
            b"preface\n\nFirst Citizen:\nBefore we go:\nhear.\n\nAll:\nSpeak!\n\n\nFirst Citizen:\nNo.\n",
            "sam: h\u00e9\nfrodo: http://a.b 12:30\nsam: \u2028no\n[\x1b[1m] Uruk-Hai V.O.: the\r\n".encode(),
        ),
    ),
    "lens": Parser(
        _parse_lens_text, (b"The road. Goes on! \n\nthe road\r\n", "\ufeffThéoden… “İ K” the?\u2028road".encode())
    ),
    "dataset": Parser(
        _prepare_dataset,
        (
            "\n".join(sentences(12)).encode(),
            "\n".join(f"{text} <eos> {number} <unk> … é" for number, text in enumerate(sentences(10))).encode(),
        ),
    ),
    "vocabulary": Parser(
        _parse_vocabulary,
        (
            WordTokenizer((UNK, EOS, "the", "don't", "3")).to_json().encode(),
            json.dumps([UNK, EOS, "mr.", "N", "\u00e9"]).encode(),
        ),
    ),
    "config": Parser(_parse_config, tuple(config.to_json().encode() for config in PRESETS.values())),
    "progress": Parser(
        _parse_progress,
        (Progress(("tokens", "counting"), "perplexity").to_json().encode(), Progress().to_json().encode()),
    ),
    "overrides": Parser(
        _parse_overrides,
        (
            b"epochs=3\nlr=1e-2\ntie_weights=false\nmode=stream",
            b"sample_prompt=a = b\nseed=9223372036854775807\noptimizer=sgd",
            *(
                b"embedding_dropout = 0.5",
                b"batchsize=3",
                b"epochs",
                b"=1",
                b"softmax_samples=2000",
                b"lr=nan",
                b"mode=lines",
            ),
        ),
    ),
    "weights": Parser(_parse_weights, (_weights_seed(), save({}, metadata={"a": "b"}))),
    "resume": Parser(_parse_checkpoint, (_checkpoint_seed(), _weights_seed())),
    "commands": Parser(
        _parse_commands,
        (
            b'{"kind": "pause", "value": ""}\n{"kind": "lr", "value": "0.5"}\n',
            b'{"kind": "prompt", "value": "the road"}\n{"kind": "detach", "value": ""}\n',
        ),
    ),
    "run-name": Parser(_parse_run_name, (b"a-run", b"latest", b"bundled@3", b"run_1.x@12", b"/tmp/x", b"~/x", b"../a")),
}
