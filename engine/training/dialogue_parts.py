"""Fit of the parts that a dialogue model has besides its network."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from engine.data.arrays import Float64Array
from engine.data.corpus import Lines
from engine.data.speakers import CAST_FILE, SOMEONE, cast_to_json
from engine.models.speakers import (
    MAX_DESIGN_ELEMENTS,
    MAX_POWER,
    EvidencePowers,
    SpeakerTextModel,
    SpokenLine,
    TurnModel,
    TurnState,
    cast_index,
    fit_conditional_logit,
)
from engine.runs.directory import DIALOGUE_FILE, WHO_FILE

POWER_L2 = 5.0  # of 2, 5, 10 and 20 the best on validation lines of other splits of the film dialogues
MAX_POWER_LINES = 4000  # that the powers are fitted to, fewer for a large cast; of a longer split, the first ones


def fit_dialogue_parts(train: Lines, valid: Lines, cast: Sequence[str]) -> dict[str, bytes]:
    """Fit the models of the speakers to training lines, and their powers to validation lines; return their files."""
    scenes = spoken_scenes(train, cast)
    turn_model, text_model = TurnModel.fit(cast, scenes), SpeakerTextModel.fit(len(cast), scenes)
    powers = fit_powers(turn_model, text_model, spoken_scenes(valid, cast))
    parts = {DIALOGUE_FILE: asdict(turn_model), WHO_FILE: asdict(replace(text_model, powers=powers))}
    files = {name: json.dumps(part).encode() for name, part in parts.items()}
    return {CAST_FILE: cast_to_json(cast).encode(), **files}


def fit_powers(
    turn_model: TurnModel, text_model: SpeakerTextModel, scenes: Sequence[Sequence[SpokenLine]]
) -> tuple[EvidencePowers, EvidencePowers]:
    """Return the powers without and with a scene that make the speakers of held-out scenes likeliest."""
    evidence: list[tuple[Float64Array, Float64Array, Float64Array]] = []
    speakers: list[int] = []
    max_lines = min(MAX_POWER_LINES, 1 + MAX_DESIGN_ELEMENTS // (3 * len(turn_model.cast)))
    for scene in scenes:
        state = TurnState()
        for line in scene[: max_lines - len(speakers)]:
            evidence.append((turn_model.log_frequencies, turn_model.log_probs(state), text_model.scores(line.text)))
            speakers.append(line.speaker)
            state = state.after(line, turn_model.cast)
    if not speakers:
        return EvidencePowers(), EvidencePowers()
    features, chosen = np.array(evidence).transpose(0, 2, 1), np.array(speakers)  # [lines, cast, evidence]
    fits = [fit_conditional_logit(features[:, :, [prior, 2]], chosen, POWER_L2) for prior in (0, 1)]
    without, after = (EvidencePowers(*np.clip(fit, 0, MAX_POWER).tolist()) for fit in fits)
    return without, after


def spoken_scenes(lines: Lines, cast: Sequence[str]) -> list[list[SpokenLine]]:
    """Return the scenes of lines in file order, with the speakers as indices in the cast."""
    indices = {name: cast_index(name, cast) for name in (SOMEONE, *lines.speaker_names)}
    return [[SpokenLine(indices[turn.speaker], turn.text) for turn in scene] for scene in lines.scenes()]
