"""Fit of the parts that a dialogue model has besides its network."""

import json
from dataclasses import asdict

from engine.data.dataset import Dataset
from engine.models.speaker_text import SpeakerTextModel
from engine.models.speaker_words import SpeakerWords
from engine.models.turn_taking import TurnModel, decode_scenes
from engine.runs.dialogue_parts import CACHE_SETTINGS, DIALOGUE_FILE, WHO_FILE, DialogueParts
from engine.training.speaker_text import fit_speaker_text


def fit_dialogue_parts(dataset: Dataset) -> dict[str, bytes]:
    """Fit the statistics of the speakers to the training split of a dataset in dialogue mode.

    Returns:
        Name and content of each file of a run that `engine.runs.dialogue_parts` reads.
    """
    tokenizer = dataset.tokenizer
    scenes = decode_scenes(dataset.train, tokenizer)
    parts = DialogueParts(
        version=1,
        cache=CACHE_SETTINGS,
        turn_model=TurnModel.fit(tokenizer.cast, scenes),
        speaker_words=SpeakerWords.fit(dataset.train, tokenizer),
    )
    text_model = fit_speaker_text(len(tokenizer.cast), scenes)
    return {DIALOGUE_FILE: _to_json(parts), WHO_FILE: _to_json(text_model)}


def _to_json(part: DialogueParts | SpeakerTextModel) -> bytes:
    return json.dumps(asdict(part)).encode()
