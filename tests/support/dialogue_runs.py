"""Runs of dialogue models on disk: one with random weights, and the lines to train one whose speakers are distinct."""

import csv
import random
from types import SimpleNamespace
from typing import cast

import numpy as np
from safetensors.numpy import save_file

from engine.config import Config
from engine.data.dataset import Dataset
from engine.data.tokenizers.words import WordTokenizer
from engine.generation.turns import Turn, encode_turns
from engine.models.numpy_lstm import weight_shapes
from engine.runs.directory import MODEL_FILE
from engine.runs.locked_run import create_run
from engine.training.dialogue_parts import fit_dialogue_parts
from tests.support.files import KNOWN_WORDS

CAST = ("FRODO", "SAM", "GOLLUM", "KING OF THE DEAD", "SOMEONE")
TURNS = (
    *(Turn("FRODO", "the road is old"), Turn("SAM", "a friend of mine"), Turn("FRODO", "the river")),
    *(Turn("GOLLUM", "mine"), Turn("SOMEONE", "bilbo baggins is a friend"), Turn("KING OF THE DEAD", "the road")),
)
"""Scene that the run with random weights knows its speakers from."""
WORDS = {
    "FRODO": ("ring", "burden", "mordor", "shadow"),
    "SAM": ("garden", "potatoes", "supper", "kettle"),
    "GOLLUM": ("precious", "wants", "nasty", "fishes"),
}
"""Words that only one of the speakers says."""
COMMON_WORDS = ("the", "it", "now", "here", "go")


def write_dialogue_run(path, seed=0):
    """Write a run in dialogue mode with random weights and the vocabulary `KNOWN_WORDS`, and return its path."""
    config = Config("tiny").with_values(embedding_size=8, hidden_size=8, mode="dialogue")
    tokenizer = WordTokenizer(("<unk>", "<eos>", *KNOWN_WORDS)).with_cast(CAST)
    train = np.array(encode_turns(tokenizer, TURNS), np.int32)
    files = fit_dialogue_parts(cast(Dataset, SimpleNamespace(tokenizer=tokenizer, train=train)))
    create_run(config, tokenizer, path.name, path.parent, dialogue_files=files).lock.release()
    rng = np.random.default_rng(seed)
    shapes = weight_shapes(config.model, len(tokenizer))
    save_file({name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}, path / MODEL_FILE)
    return path


def write_distinct_dialogues(path, num_lines=400):
    """Write a CSV in which the speakers of `WORDS` take turns in a fixed order, and return its path."""
    rng = random.Random(1)
    speakers = list(WORDS)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("char", "dialog"))
        for number in range(num_lines):
            speaker = speakers[number % len(speakers)]
            words = [rng.choice(WORDS[speaker] if rng.random() < 0.6 else COMMON_WORDS) for _ in range(6)]
            writer.writerow((speaker, " ".join([*words, rng.choice(WORDS[speaker])])))
    return path
