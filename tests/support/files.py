"""Corpora and run directories for tests."""

import csv
import os
import random
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from engine.config import Config
from engine.data.tokenizers.loading import tokenizer_file_name
from engine.data.tokenizers.words import WordTokenizer
from engine.models.decoders import weight_shapes

CHECKOUT = Path(__file__).resolve().parents[2]

KNOWN_WORDS = ("bilbo", "baggins", "is", "the", "road", "river", "and", "a", "friend", "of", "mine", "old")


def sentences(number, seed=7):
    """Return `number` short utterances, the same for the same seed, with words frequent enough for a vocabulary."""
    rng = random.Random(seed)
    subjects = ["the miller", "our neighbour", "my old friend", "the ferryman", "a stranger"]
    verbs = ["carries", "forgets", "watches", "counts", "paints", "sells"]
    objects = ["the green barrels", "a bag of apples", "seven lanterns", "the north gate", "his wet boots"]
    times = ["before sunrise", "all winter long", "in the evening", "when nobody looks"]
    return [" ".join(rng.choice(part) for part in (subjects, verbs, objects, times)) for _ in range(number)]


def write_csv(path, texts, encoding="utf-8", separator=",", columns=("char", "dialog")):
    """Write a CSV with one speaker and one text per row, and return its path."""
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(columns)
        writer.writerows((f"SPEAKER{i % 3}", text) for i, text in enumerate(texts))
    return path


def write_run(folder, seed=0):
    """Write a run directory with random weights that can be loaded and played, and return its path."""
    config = Config("tiny").with_values(embedding_size=8, hidden_size=8)
    return write_random_run(folder, config, WordTokenizer(("<unk>", "<eos>", *KNOWN_WORDS)), seed)


def write_random_run(folder, config, tokenizer, seed=0):
    """Write a run directory of a configuration and tokenizer with random weights, and return its path."""
    rng = np.random.default_rng(seed)
    shapes = weight_shapes(config.model, len(tokenizer))
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    (folder / tokenizer_file_name(config.data.tokenizer)).write_text(tokenizer.to_json())
    (folder / "model.safetensors").write_bytes(save(weights))
    return folder


def write_sparse_file(path, start=b"", size=50_000_000_000):
    """Write a file that seems to have `size` bytes and takes no space on the disk."""
    path.write_bytes(start)
    os.truncate(path, size)
    return path
