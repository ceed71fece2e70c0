"""Fit of the parts that a dialogue model has besides its network."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from engine.data.lines import Lines
from engine.data.script_form import iter_scenes
from engine.data.speakers import SOMEONE
from engine.data.tokenizers.loading import CAST_FILE, cast_to_json
from engine.models.speaker_text import SpeakerTextModel
from engine.models.turn_taking import SpokenLine, TurnModel, cast_index
from engine.runs.dialogue_parts import DIALOGUE_FILE, WHO_FILE


def fit_dialogue_parts(lines: Lines, cast: Sequence[str]) -> dict[str, bytes]:
    """Fit the models of the speakers to the lines of a training split, in file order.

    Returns:
        Name and content of each file of a run that `engine.runs.dialogue_parts` reads.
    """
    scenes = spoken_scenes(lines, cast)
    return {
        CAST_FILE: cast_to_json(cast).encode(),
        DIALOGUE_FILE: _to_json(TurnModel.fit(cast, scenes)),
        WHO_FILE: _to_json(SpeakerTextModel.fit(len(cast), scenes)),
    }


def spoken_scenes(lines: Lines, cast: Sequence[str]) -> list[list[SpokenLine]]:
    """Return the scenes of lines in file order, with the speakers as indices in the cast."""
    indices = {name: cast_index(name, cast) for name in (SOMEONE, *lines.speaker_names)}
    return [[SpokenLine(indices[turn.speaker], turn.text) for turn in scene] for scene in iter_scenes(lines)]


def _to_json(part: TurnModel | SpeakerTextModel) -> bytes:
    return json.dumps(asdict(part)).encode()
