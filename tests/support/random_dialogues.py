"""Random scenes of a small cast as scripts, models of them, and runs of dialogue models on disk."""

import csv
import random

import numpy as np
from safetensors.numpy import save_file

from engine.config import Config, ModelConfig
from engine.data.corpus import make_lines
from engine.data.scripts import SCENE_END, Turn, encode_turns, script_text, turn_text
from engine.data.tokenizers import BPETokenizer
from engine.models.dialogue import SpokenLine, TurnModel
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.directory import MODEL_FILE
from engine.runs.locked_run import create_run
from engine.training.job import fit_dialogue_parts
from tests.support.files import KNOWN_WORDS
from tests.support.models import random_weights

CAST = ("FRODO", "SAM", "GOLLUM", "SOMEONE")
TREES = ("oak", "elm", "fir", "ash", "yew", "bay")


def random_scenes(num_scenes, seed=0):
    """Return scenes with random words in which a speaker answers the speaker before more often than not."""
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(num_scenes):
        speakers = []
        for _ in range(rng.integers(1, 7)):
            answers = len(speakers) > 1 and rng.random() < 0.7
            speakers.append(speakers[-2] if answers else CAST[rng.integers(len(CAST))])
        scenes.append([Turn(speaker, " ".join(rng.choice(TREES, rng.integers(1, 5)))) for speaker in speakers])
    return scenes


def encode_scenes(scenes, tokenizer=None):
    """Return the token ids of scenes as in a split, without the `<eos>` at its end."""
    tokenizer = tokenizer or TOKENIZER
    parts = [part for scene in scenes for part in (tokenizer.encode(SCENE_END), encode_turns(tokenizer, scene))]
    return np.concatenate(parts[1:]).astype(np.int32)


def spoken(scenes, cast=CAST):
    return [[SpokenLine(cast.index(turn.speaker), turn.text) for turn in scene] for scene in scenes]


def scripted_lstm(tokenizer, script, embedding_size=6, seed=0, scale=1.0):
    """Return an LSTM with random weights that writes the tokens of `script`, and others hardly ever."""
    config = ModelConfig(embedding_size=embedding_size, hidden_size=embedding_size)
    weights = random_weights(config, tokenizer, seed, scale)
    counts = np.bincount(tokenizer.encode(script), minlength=len(tokenizer))
    weights["output.bias"] = np.where(counts > 0, weights["output.bias"], -12).astype(np.float32)
    return NumpyLSTM(config, tokenizer, weights)


TRAIN_SCENES = random_scenes(60)
TOKENIZER = BPETokenizer.train([part for scene in TRAIN_SCENES for part in map(turn_text, scene)], 300)
"""Each name and each word with the space before it is one token."""
WORD_IDS = {word: int(TOKENIZER.encode(f" {word}")[0]) for word in TREES}
LINE_END_ID = int(TOKENIZER.encode("\n")[0])
TURN_MODEL = TurnModel.fit(CAST, spoken(TRAIN_SCENES))
LSTM = scripted_lstm(TOKENIZER, script_text([[Turn("X", " ".join(TREES))]]).partition(":")[2])
KNESER_NEY = KneserNey(encode_scenes(TRAIN_SCENES), TOKENIZER, order=5)


RUN_CAST = ("FRODO", "SAM", "GOLLUM", "KING OF THE DEAD", "SOMEONE")
TURNS = (
    *(Turn("FRODO", "the road is old"), Turn("SAM", "a friend of mine"), Turn("FRODO", "the river")),
    *(Turn("GOLLUM", "mine"), Turn("SOMEONE", "bilbo baggins is a friend"), Turn("KING OF THE DEAD", "the road")),
)  # scene that the run with random weights knows its speakers from
WORDS = {
    "FRODO": ("ring", "burden", "mordor", "shadow"),
    "SAM": ("garden", "potatoes", "supper", "kettle"),
    "GOLLUM": ("precious", "wants", "nasty", "fishes"),
}  # words that only one of the speakers says
COMMON_WORDS = ("the", "it", "now", "here", "go")


def write_dialogue_run(path):
    """Write a run in dialogue mode with random weights and the words `KNOWN_WORDS`, and return its path."""
    lines = make_lines([turn.text for turn in TURNS], [turn.speaker for turn in TURNS])
    words = [f" {word}" for word in KNOWN_WORDS]
    tokenizer = BPETokenizer.train([*words * 3, *map(turn_text, TURNS), *map(turn_text, TURNS)], 330)
    settings = {"embedding_size": 8, "hidden_size": 8, "mode": "dialogue", "tokenizer": "bpe", "punctuation": False}
    config = Config("tiny").with_values(**settings)
    files = fit_dialogue_parts(lines, lines, RUN_CAST)
    create_run(config, tokenizer, path.name, path.parent, None, files).lock.close()
    save_file(scripted_lstm(tokenizer, "".join([*words, "\n"]), 8, scale=0.3).weights, path / MODEL_FILE)
    return path


def write_distinct_dialogues(path, num_lines=400):
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
