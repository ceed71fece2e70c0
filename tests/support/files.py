"""Corpora, datasets and run directories, generators that load them, and a limit on the size of files."""

import csv
import os
import random
import resource
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors.numpy import save

from engine.config import Config, DataConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers import TOKENIZER_FILES, WordTokenizer
from tests.support.models import random_weights

CHECKOUT = Path(__file__).resolve().parents[2]
# Command of two processes, without the module that they run; the dashes keep torchrun from parsing its options.
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]

KNOWN_WORDS = ("bilbo", "baggins", "is", "the", "road", "river", "and", "a", "friend", "of", "mine", "old")


def sentences(number, seed=7):
    """Return `number` short utterances, the same for the same seed, with words frequent enough for a vocabulary."""
    rng = random.Random(seed)
    subjects = ["the miller", "our neighbour", "my old friend", "the ferryman", "a stranger"]
    verbs = ["carries", "forgets", "watches", "counts", "paints", "sells"]
    objects = ["the green barrels", "a bag of apples", "seven lanterns", "the north gate", "his wet boots"]
    times = ["before sunrise", "all winter long", "in the evening", "when nobody looks"]
    return [" ".join(rng.choice(part) for part in (subjects, verbs, objects, times)) for _ in range(number)]


def write_csv(path, texts, columns=("char", "dialog")):
    """Write a CSV with one speaker and one text per row, and return its path."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows((f"SPEAKER{i % 3}", text) for i, text in enumerate(texts))
    return path


def write_run(folder, config=None, tokenizer=None, weights=None):
    """Write a run directory that can be loaded and played, by default tiny with random weights; return its path."""
    config = config or Config("tiny").with_values(embedding_size=8, hidden_size=8)
    tokenizer = tokenizer or WordTokenizer(("<unk>", "<eos>", *KNOWN_WORDS))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    (folder / TOKENIZER_FILES[config.data.tokenizer]).write_text(tokenizer.to_json())
    (folder / "model.safetensors").write_bytes(save(weights or random_weights(config.model, tokenizer)))
    return folder


def write_sparse_file(path, start=b"", size=50_000_000_000):
    """Write a file that seems to have `size` bytes and takes no space on the disk."""
    path.write_bytes(start)
    os.truncate(path, size)
    return path


def load_rows(tmp_path, lines, **values):
    """Return a dataset whose training split consists of these speakers and lines, in order."""
    for name, rows in (("train", lines), ("valid", [("X", "one more line")]), ("test", [("X", "one more line")])):
        records = "".join(f'{speaker},"{line}"\n' for speaker, line in rows)
        (tmp_path / f"{name}.csv").write_text("char,dialog\n" + records)
    paths = {
        "corpus": str(tmp_path / "train.csv"),
        "valid_corpus": str(tmp_path / "valid.csv"),
        "test_corpus": str(tmp_path / "test.csv"),
    }
    return load_dataset(DataConfig(**{**paths, "min_characters": 0, "min_count": 1, **values}))


def encode_lines(lines, tokenizer):
    return tuple(ids for line in lines if (ids := tokenizer.encode(line.text)).size)


ENGLISH = "the ring is lost and we must find it before night falls on this old road my friend"
CYRILLIC = "кольцо потеряно и мы должны найти его до ночи на этой старой дороге мой друг"


def write_corpus(path, num_lines=300, words=ENGLISH):
    rng = random.Random(1)
    lines = (f"SAM,{' '.join(rng.choices(words.split(), k=9))}\n" for _ in range(num_lines))
    path.write_text("char,dialog\n" + "".join(lines), encoding="utf-8")
    return DataConfig(corpus=str(path))


def run_to_end(loading):
    """Run a generator; return its value and its lines of progress."""
    lines = []
    while True:
        try:
            lines.append(next(loading))
        except StopIteration as end:
            return end.value, lines


@contextmanager
def no_file_longer_than(size):
    """Let no file of this process and of those it starts grow beyond `size` bytes; writes fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patch:
        # Python would keep the beginning of a compiled module.
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
