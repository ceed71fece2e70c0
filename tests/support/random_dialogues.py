"""A small vocabulary with a cast, random scenes as token ids, and models of them."""

import numpy as np

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID
from engine.models.ngram import KneserNey
from engine.models.speaker_words import SpeakerWords
from engine.models.turn_features import SpokenLine
from engine.models.turn_taking import TurnModel
from tests.support.models import make_tokenizer, random_lstm

CAST = ("FRODO", "SAM", "GOLLUM", "SOMEONE")
NUM_TEXT_TOKENS = 8
TOKENIZER = make_tokenizer(NUM_TEXT_TOKENS).with_cast(CAST)
SPEAKER_IDS = range(NUM_TEXT_TOKENS, NUM_TEXT_TOKENS + len(CAST))


def random_scenes(num_scenes, seed=0, max_lines=6):
    """Return scenes with random words in which a speaker answers the speaker before more often than not."""
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(num_scenes):
        speakers = []
        for _ in range(rng.integers(1, max_lines + 1)):
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
