"""Script form: a conversation as plain text, "Gandalf: text" on each line, and an empty line between two scenes.

Every model with an open vocabulary reads and writes this text; nothing else says who speaks. The name, the text
with its line end, and an empty line are encoded separately, so that their tokens do not depend on each other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Int64Array
from engine.data.lines import Lines
from engine.data.speakers import SOMEONE, display_name, normalize_speaker
from engine.data.tokenizers.base import TokenIds, Tokenizer

SCENE_END = "\n"  # the empty line after a scene


@dataclass(frozen=True)
class Turn:
    """A line of a conversation."""

    speaker: str  # canonical name of the speaker, such as "GANDALF"
    text: str


def speaker_head(name: str) -> str:
    """Return the beginning of the line of a speaker with a canonical name: "Gandalf:"."""
    return f"{display_name(name)}:"


def said_text(text: str) -> str:
    """Return the rest of a line after its head: a space, the text with single spaces, and a line feed."""
    words = " ".join(text.split())
    return f" {words}\n" if words else "\n"


def turn_text(turn: Turn) -> str:
    """Return a turn as its line of a script, with the line feed."""
    return speaker_head(turn.speaker) + said_text(turn.text)


def script_text(scenes: Iterable[Sequence[Turn]]) -> str:
    """Return scenes as a script."""
    return SCENE_END.join("".join(map(turn_text, scene)) for scene in scenes)


def iter_scenes(lines: Lines) -> Iterator[list[Turn]]:
    """Yield the scenes of lines in file order. Lines without text are left out; those without a speaker are SOMEONE's.

    The speaker of every other line is called as in the corpus, in the cast or not.
    """
    scene: list[Turn] = []
    scene_before = -1
    for line, scene_id in zip(lines, lines.scene_ids.tolist(), strict=True):
        if scene and scene_id != scene_before:
            yield scene
            scene = []
        if line.text:
            scene.append(Turn(line.speaker or SOMEONE, line.text))
        scene_before = scene_id
    if scene:
        yield scene


def parse_line(line: str) -> Turn | None:
    """Return the turn of a line of a script; None if the line is empty or names no speaker."""
    head, colon, text = line.partition(":")
    speaker = normalize_speaker(head).name if colon else ""
    return Turn(speaker, " ".join(text.split())) if speaker else None


def encode_speaker(tokenizer: Tokenizer, name: str) -> tuple[int, ...]:
    """Return the token ids of the head of a line, by the canonical name of its speaker."""
    return tuple(tokenizer.encode(speaker_head(name)).tolist())


def encode_turn(tokenizer: Tokenizer, turn: Turn) -> tuple[int, ...]:
    """Return the token ids of a turn: the head, the text and the line end. White space counts as single spaces."""
    return (*encode_speaker(tokenizer, turn.speaker), *tokenizer.encode(said_text(turn.text)).tolist())


def encode_turns(tokenizer: Tokenizer, turns: Sequence[Turn]) -> tuple[int, ...]:
    """Return the token ids of several turns of one scene."""
    return tuple(id for turn in turns for id in encode_turn(tokenizer, turn))


def utterance_mask(tokenizer: Tokenizer, ids: TokenIds) -> npt.NDArray[np.bool_]:
    """Return `[time]` True for the tokens of texts and their line ends, and False for heads and empty lines.

    The head of a line are the tokens up to the first one that ends with a colon; a line without one is all head.
    """
    positions = np.arange(len(ids))
    is_line_end = np.isin(ids, tokenizer.line_end_ids)
    starts_line = np.concatenate([[True], is_line_end[:-1]])[: len(ids)]
    line_starts = np.maximum.accumulate(np.where(starts_line, positions, 0))
    is_colon = np.isin(ids, tokenizer.colon_ids)
    num_colons_before: Int64Array = np.cumsum(is_colon) - is_colon
    mask: npt.NDArray[np.bool_] = num_colons_before > num_colons_before[line_starts]
    return mask
