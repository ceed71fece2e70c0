"""Cast of a dialogue: the speakers of a training text that have a token of their own."""

from collections.abc import Sequence

import numpy as np

from engine.data.arrays import Int32Array, chunked_bincount
from engine.data.lines import Lines
from engine.data.speakers import SOMEONE, display_name, find_member
from engine.data.tokenizers.base import TokenIds, Tokenizer, speaker_text
from engine.data.tokenizers.loading import MAX_CAST_SIZE
from engine.errors import CorpusError


def choose_cast(lines: Lines, min_lines: int, source: str) -> tuple[str, ...]:
    """Return the speakers with at least `min_lines` of the training lines `lines`, most lines first, then SOMEONE.

    Speakers with equally many lines are in the order of their first lines in the file.

    Raises:
        CorpusError: If no speaker has `min_lines` lines. The message names the file `source`.
    """
    counts = chunked_bincount(lines.speaker_ids, len(lines.speaker_names))
    named = [id for id, name in enumerate(lines.speaker_names) if name not in ("", SOMEONE)]
    by_count = sorted(named, key=lambda id: -int(counts[id]))
    cast = [lines.speaker_names[id] for id in by_count if counts[id] >= min_lines]
    if not named:
        raise CorpusError(
            f"{source} names no speakers, which dialogue mode needs; name another column with --speaker-column, "
            "or use --mode line"
        )
    if not cast:
        most = int(counts[by_count[0]])
        leading = f": {display_name(lines.speaker_names[by_count[0]])} has most, {most}" if most else ""
        raise CorpusError(
            f"{source}: no speaker has {min_lines} lines in the training split{leading}; "
            "use more text, or lower --set min_speaker_lines=N"
        )
    return (*cast, SOMEONE)


def add_cast(tokenizer: Tokenizer, cast: Sequence[str], source: str) -> Tokenizer:
    """Return `tokenizer` with the tokens of `cast`; too many raise a CorpusError that names the file `source`."""
    if len(cast) > MAX_CAST_SIZE:
        raise CorpusError(
            f"{source} has {len(cast):,} speakers with tokens of their own, but a model has {MAX_CAST_SIZE:,} at most; "
            "raise --set min_speaker_lines=N"
        )
    return tokenizer.with_cast(cast)


def speaker_tokens(lines: Lines, tokenizer: Tokenizer) -> TokenIds:
    """Return the token of the speaker of each line `[lines]`. Speakers outside the cast have the token of SOMEONE."""
    token_of_member = {name: tokenizer.num_text_tokens + index for index, name in enumerate(tokenizer.cast)}
    members = _find_members(lines.speaker_names, tokenizer.cast)
    token_of_name: Int32Array = np.array([token_of_member[member] for member in members], np.int32)
    return token_of_name[lines.speaker_ids]


def _find_members(names: Sequence[str], cast: Sequence[str]) -> list[str]:
    """Return the member of `cast` that speaks for each of `names` `[names]`: SOMEONE for names outside the cast."""
    return [find_member(name, cast) or SOMEONE for name in names]


def script_text(lines: Lines, cast: Sequence[str]) -> str:
    """Return lines as a script: "NAME: text" for each line, and an empty line between two scenes.

    Speakers outside the cast are called SOMEONE, and lines without text are left out.
    """
    names = _find_members(lines.speaker_names, cast)
    parts: list[str] = []
    scene_before = -1
    for line, speaker_id, scene in zip(lines, lines.speaker_ids.tolist(), lines.scene_ids.tolist(), strict=True):
        if line.text:
            parts.append("\n" if parts and scene != scene_before else "")
            parts.append(f"{speaker_text(names[speaker_id])}{line.text}\n")
            scene_before = scene
    return "".join(parts)
