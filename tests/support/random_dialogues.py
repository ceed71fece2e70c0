"""Random scenes of a small cast as token ids, models of them, and runs of dialogue models on disk."""

import csv
import random
from types import SimpleNamespace

import numpy as np
from safetensors.numpy import save_file

from engine.config import Config, ModelConfig
from engine.data.tokenizers.base import EOS_ID
from engine.data.tokenizers.words import WordTokenizer
from engine.generation.turns import Turn, encode_turns
from engine.models.ngram import KneserNey
from engine.models.speaker_words import SpeakerWords
from engine.models.turn_features import SpokenLine
from engine.models.turn_taking import TurnModel
from engine.runs.directory import MODEL_FILE
from engine.runs.locked_run import create_run
from engine.training.dialogue_parts import fit_dialogue_parts
from tests.support.files import KNOWN_WORDS
from tests.support.models import make_tokenizer, random_lstm, random_weights

CAST = ("FRODO", "SAM", "GOLLUM", "SOMEONE")
NUM_TEXT_TOKENS = 8
TOKENIZER = make_tokenizer(NUM_TEXT_TOKENS).with_cast(CAST)
SPEAKER_IDS = range(NUM_TEXT_TOKENS, NUM_TEXT_TOKENS + len(CAST))


def random_scenes(num_scenes, seed=0):
    """Return scenes with random words in which a speaker answers the speaker before more often than not."""
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(num_scenes):
        speakers = []
        for _ in range(rng.integers(1, 7)):
            answers = len(speakers) > 1 and rng.random() < 0.7
            speakers.append(speakers[-2] if answers else int(rng.integers(len(CAST))))
        words = [TOKENIZER.decode(rng.integers(2, NUM_TEXT_TOKENS, rng.integers(1, 5)).tolist()) for _ in speakers]
        scenes.append([SpokenLine(speaker, text) for speaker, text in zip(speakers, words, strict=True)])
    return scenes


def encode_scenes(scenes):
    """Return the token ids of scenes as in a split: one more `<eos>` before each scene but the first."""
    ids = []
    for scene in scenes:
        if ids:
            ids.append(EOS_ID)
        for line in scene:
            ids += [NUM_TEXT_TOKENS + line.speaker, *TOKENIZER.encode(line.text).tolist(), EOS_ID]
    return np.array(ids, np.int32)


TRAIN_SCENES = random_scenes(60)
TURN_MODEL = TurnModel.fit(CAST, TRAIN_SCENES)
SPEAKER_WORDS = SpeakerWords.fit(encode_scenes(TRAIN_SCENES), TOKENIZER)
LSTM = random_lstm(ModelConfig(embedding_size=6, hidden_size=6), TOKENIZER)
KNESER_NEY = KneserNey(encode_scenes(TRAIN_SCENES), TOKENIZER, order=5)


RUN_CAST = ("FRODO", "SAM", "GOLLUM", "KING OF THE DEAD", "SOMEONE")
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


def write_dialogue_run(path):
    """Write a run in dialogue mode with random weights and the vocabulary `KNOWN_WORDS`, and return its path."""
    config = Config("tiny").with_values(embedding_size=8, hidden_size=8, mode="dialogue")
    tokenizer = WordTokenizer(("<unk>", "<eos>", *KNOWN_WORDS)).with_cast(RUN_CAST)
    train = np.array(encode_turns(tokenizer, TURNS), np.int32)
    files = fit_dialogue_parts(SimpleNamespace(tokenizer=tokenizer, train=train))
    create_run(config, tokenizer, path.name, path.parent, dialogue_files=files).lock.release()
    save_file(random_weights(config.model, tokenizer), path / MODEL_FILE)
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
