"""What is fuzzed: each parser, valid files to begin with, and what must be true of whatever it makes of a file.

A parser is fine where it returns or refuses with a `LotrError`; what it returns is compared with a plain way to it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from engine.analysis import token_scores
from engine.config import PRESETS, Config, DataConfig
from engine.control import Command
from engine.data.corpus import Corpus, read_csv, read_text
from engine.data.dataset import encode_lines, join_lines, prepare, summarize
from engine.data.encoding import CorpusWords, Mode
from engine.data.vocabulary import EOS, UNK, Tokenizer, Vocabulary, tokenize
from engine.runs.control_files import Requests
from engine.runs.store import REQUESTS, check_name, load_named
from engine.storage.tensor_file import read_header, read_weights
from tests.conftest import sentences

TOKENIZERS: tuple[Tokenizer, ...] = ("words", "spaces")
MODES: tuple[Mode, ...] = ("line", "stream")


@dataclass(frozen=True)
class Parser:
    """Something that reads what others wrote."""

    read: Callable[[bytes, Path], object]
    """Reads the content, in a folder of its own where it has to be a file."""
    seeds: tuple[bytes, ...]


def put(path: Path, content: bytes) -> Path:
    """The content as a file, in place of what was there."""
    path.write_bytes(content)
    return path


# Corpora


def _csv(content: bytes, folder: Path) -> None:
    corpus = read_csv(put(folder / "corpus.csv", content), "dialog", "char", 0)
    assert all(line.speaker == line.speaker.strip() for line in corpus.lines)
    _check_corpus(corpus, "words")


def _text(content: bytes, folder: Path) -> None:
    corpus = read_text(put(folder / "corpus.txt", content), 0)
    codec = {"Latin-1": "latin-1", "Windows-1252": "cp1252"}.get(corpus.encoding, "utf-8")
    plain = [" ".join(line.split()) for line in content.removeprefix(b"\xef\xbb\xbf").decode(codec).splitlines()]
    assert [line.text for line in corpus.lines] == [line for line in plain if line]
    _check_corpus(corpus, "spaces")


def _check_corpus(corpus: Corpus, tokenizer: Tokenizer) -> None:
    assert 0 < len(corpus.lines) <= corpus.rows
    texts = [line.text for line in corpus.lines]
    assert all(text and text == " ".join(text.split()) for text in texts)
    words = [tokenize(text, tokenizer) for text in texts]
    read = CorpusWords(corpus.lines, tokenizer, None)
    assert read.lengths.tolist() == [len(line) for line in words]
    if any(words):
        assert read.facts().distinct_words == len({word for line in words for word in line})
        vocabulary, _ = read.vocabulary(np.arange(len(texts), dtype=np.int32), 1)
        assert vocabulary == Vocabulary.from_words((word for line in words for word in line), 1, tokenizer)


def _lens(content: bytes, folder: Path) -> None:
    text = token_scores.read_file(put(folder / "text.txt", content))
    for tokenizer in TOKENIZERS:
        vocabulary = Vocabulary((UNK, EOS, "the", "road"), tokenizer)
        words = token_scores.split(text, vocabulary)
        assert words.ids.tolist() == vocabulary.encode(tokenize(text, tokenizer)).tolist()
        assert all(words[place].strip() for place in range(len(words)))
        with_ends = token_scores.split(text, vocabulary, line_ends=True)
        assert len(with_ends) >= len(words)
        assert [with_ends.sentence_of(place) for place in range(len(with_ends))] == sorted(
            with_ends.sentence_of(place) for place in range(len(with_ends))
        )


def _dataset(content: bytes, folder: Path) -> None:
    """A text made ready for a training."""
    path = put(folder / "corpus.txt", content)
    for mode in MODES:
        config = DataConfig(str(path), "text", tokenizer="spaces", mode=mode, min_characters=0, min_count=1)
        dataset = prepare(config)
        summary = summarize(dataset)
        parts = (dataset.split.train, dataset.split.valid, dataset.split.test)
        assert sum(map(len, parts)) == summary.lines == len(dataset.corpus.lines)
        for part, ids in zip(parts, (dataset.train, dataset.valid, dataset.test), strict=True):
            assert ids.tolist() == join_lines(encode_lines(part, dataset.vocabulary), mode).tolist()


# What a run is made of


def _vocabulary(content: bytes, folder: Path) -> None:
    text = content.decode(errors="replace")
    for tokenizer in TOKENIZERS:
        vocabulary = Vocabulary.from_json(text, "vocabulary.json", tokenizer)
        assert vocabulary.words == tuple(json.loads(text))
        assert all(word.isprintable() for word in vocabulary.words)
        assert Vocabulary.from_json(vocabulary.to_json(), "again", tokenizer) == vocabulary
        assert vocabulary.encode(vocabulary.words).tolist() == [*range(len(vocabulary))]


def _configuration(content: bytes, folder: Path) -> None:
    config = Config.from_json(content.decode(errors="replace"), "config.json")
    assert Config.from_json(config.to_json(), "again") == config
    config.model.layer_sizes()


def _assignments(content: bytes, folder: Path) -> None:
    config = Config().with_settings(content.decode(errors="surrogateescape").split("\n"))
    assert Config.from_json(config.to_json(), "again") == config


def _weights(content: bytes, folder: Path) -> None:
    path = put(folder / "model.safetensors", content)
    header = read_header(path)
    weights = read_weights(path, {name: shape for name, (_, shape) in header.shapes.items()})
    assert {name: (str(array.dtype), array.shape) for name, array in weights.items()} == header.shapes


def _resume(content: bytes, folder: Path) -> None:
    from engine.training.checkpoint import Saved  # with torch

    saved = Saved(put(folder / "resume.safetensors", content))
    saved.check(Config())


def _requests(content: bytes, folder: Path) -> None:
    half = len(content) // 2
    put(folder / REQUESTS, content)
    commands = Requests(folder)()
    assert all(Command(command.what, command.value) == command and command.value.isprintable() for command in commands)
    requests = Requests(folder)
    put(folder / REQUESTS, content[:half])
    first = requests()
    put(folder / REQUESTS, content)
    assert first + requests() == commands


def _names(content: bytes, folder: Path) -> None:
    name = content.decode(errors="surrogateescape")
    load_named(name, folder)
    check_name(name)


def _tensors() -> bytes:
    return save({"embedding.weight": np.zeros((3, 2), np.float32), "layers.0.bias": np.ones(4, np.float32)})


def _left() -> bytes:
    rest = {
        "step": 5, "epoch": 1.5, "epoch_number": 1, "last_epoch": 2, "position": 3, "evaluations_since_best": 0,
        "seconds": 1.5, "plateau_factor": 1.0, "lr_share": 0.5, "history": [9.5, 8.5], "sample_prompt": "the road",
        "config": json.loads(Config().to_json()), "chance": [3, [1, 2], None],
    }  # fmt: skip
    return save({"masks": np.zeros(3, np.uint8)}, metadata={"format": "lotr-tui resume", "rest": json.dumps(rest)})


ENGINE_PARSERS = {
    "csv": Parser(
        _csv,
        (
            b'char,dialog\nSAM,the road goes on\nBILBO,"well, now: ""yes""\nand no"\n',
            b"\xef\xbb\xbfid;dialog;char\r\n1;what is this?;SAM\r\n2;a road;\r\n",
            "char\tdialog\nSAM\tThéoden… said K\n".encode(),
            "dialog\nil était là, déjà\n".encode("latin-1"),
            b'dialog\nit\x92s a road\n\n"a"\n',
        ),
    ),
    "text": Parser(
        _text,
        (
            b"the road goes on\nwell, now: <unk> <eos> N $\n\nagain\n",
            "\ufeffThéoden said…\r\nno\u2028yes\u0085\x0bİK\n".encode(),
            "il était là, déjà\n".encode("latin-1"),
            b"it\x92s a road",
        ),
    ),
    "lens": Parser(_lens, (b"The road. Goes on! \n\nthe road\r\n", "\ufeffThéoden… “İ K” the?\u2028road".encode())),
    "dataset": Parser(
        _dataset,
        (
            "\n".join(sentences(12)).encode(),
            "\n".join(f"{text} <eos> {number} <unk> … é" for number, text in enumerate(sentences(10))).encode(),
        ),
    ),
    "vocabulary": Parser(
        _vocabulary,
        (
            Vocabulary((UNK, EOS, "the", "don't", "3")).to_json().encode(),
            json.dumps([UNK, EOS, "mr.", "N", "\u00e9"]).encode(),
        ),
    ),
    "configuration": Parser(_configuration, tuple(config.to_json().encode() for config in PRESETS.values())),
    "assignments": Parser(
        _assignments,
        (
            b"epochs=3\nlr=1e-2\ntied=false\nmode=stream",
            b"sample_prompt=a = b\nseed=9223372036854775807\noptimizer=sgd",
            *(
                b"dropout_words = 0.5",
                b"batchsize=3",
                b"epochs",
                b"=1",
                b"softmax_samples=2000",
                b"lr=nan",
                b"mode=lines",
            ),
        ),
    ),
    "weights": Parser(_weights, (_tensors(), save({}, metadata={"a": "b"}))),
    "resume": Parser(_resume, (_left(), _tensors())),
    "requests": Parser(
        _requests,
        (
            b'{"what": "pause", "value": ""}\n{"what": "lr", "value": "0.5"}\n',
            b'{"what": "prompt", "value": "the road"}\n{"what": "detach", "value": ""}\n',
        ),
    ),
    "names": Parser(_names, (b"a-run", b"latest", b"bundled@3", b"run_1.x@12", b"/tmp/x", b"~/x", b"../a")),
}
