"""Speakers of a corpus: the cast of a dialogue, lines and words of each speaker, and who speaks after whom."""

from dataclasses import dataclass

import numpy as np

from engine.data.corpus import Lines
from engine.data.speakers import MAX_CAST_SIZE, SOMEONE, display_name
from engine.errors import CorpusError

MAX_NEXT_SPEAKERS = 3  # number of next speakers that a summary names for a speaker
_WORD_BYTES = bytes(b if b >= 128 or chr(b).isalnum() or chr(b) == "'" else ord(" ") for b in range(256))
"""The UTF-8 bytes of words: letters, digits, apostrophes and all beyond ASCII; the others are spaces."""


@dataclass(frozen=True)
class SpeakerPair:
    """Two speakers of which the second one speaks after the first one."""

    speaker: str
    next_speaker: str
    count: int
    """Number of times that a line of the second speaker comes after a line of the first one in the same scene."""


@dataclass(frozen=True)
class SpeakerSummary:
    """Counts of one speaker."""

    name: str
    num_lines: int
    num_words: int
    num_followed: int  # number of lines after which somebody speaks in the same scene
    next_speakers: tuple[tuple[str, int], ...]
    """The most frequent speakers of the next line, with their numbers of lines."""


def choose_cast(lines: Lines, min_lines: int, source: str) -> tuple[str, ...]:
    """Return the speakers with at least `min_lines` of the training lines `lines`, most lines first, then SOMEONE.

    Speakers with equally many lines are in the order of their first lines in the file.

    Raises:
        CorpusError: If no speaker has `min_lines` lines, or too many have. The message names the file `source`.
    """
    counts = np.bincount(lines.speaker_ids, minlength=len(lines.speaker_names))
    named = [id for id, name in enumerate(lines.speaker_names) if name not in ("", SOMEONE)]
    if not named:
        raise CorpusError(
            f"{source} names no speakers, which dialogue mode needs; name another column with --speaker-column, "
            "or use --mode line"
        )
    by_count = sorted(named, key=lambda id: -int(counts[id]))
    cast = [lines.speaker_names[id] for id in by_count if counts[id] >= min_lines]
    if not cast:
        most = int(counts[by_count[0]])
        leading = f": {display_name(lines.speaker_names[by_count[0]])} has most, {most}" if most else ""
        raise CorpusError(
            f"{source}: no speaker has {min_lines} lines in the training split{leading}; "
            "use more text, or lower --set min_speaker_lines=N"
        )
    if len(cast) >= MAX_CAST_SIZE:
        raise CorpusError(
            f"{source} has {len(cast):,} speakers with {min_lines} lines, but a cast has {MAX_CAST_SIZE - 1:,} at "
            "most; raise --set min_speaker_lines=N"
        )
    return (*cast, SOMEONE)


def count_pairs(lines: Lines) -> list[SpeakerPair]:
    """Return the pairs of speakers of neighbouring lines of a scene, most frequent first.

    Pairs that are equally frequent are in the order of the speakers' first lines.
    """
    names, speakers, scenes = lines.speaker_names, lines.speaker_ids.astype(np.int64), lines.scene_ids
    is_pair = (scenes[1:] == scenes[:-1]) & (speakers[1:] > 0) & (speakers[:-1] > 0)
    codes, counts = np.unique((speakers[:-1] * len(names) + speakers[1:])[is_pair], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    pairs = zip(codes[order].tolist(), counts[order].tolist(), strict=True)
    return [SpeakerPair(names[code // len(names)], names[code % len(names)], count) for code, count in pairs]


def summarize_speakers(lines: Lines, pairs: list[SpeakerPair]) -> tuple[SpeakerSummary, ...]:
    """Count the lines and words of each speaker of `lines`, most lines first, given the pairs of all speakers."""
    names, speakers = lines.speaker_names, lines.speaker_ids
    if not any(names):
        return ()
    num_lines = np.bincount(speakers, minlength=len(names))
    words = [len(text.encode().translate(_WORD_BYTES).split()) for text in lines.texts]
    num_words = np.bincount(speakers, words, len(names))
    following: dict[str, list[tuple[str, int]]] = {name: [] for name in names}
    for pair in pairs:
        following[pair.speaker].append((pair.next_speaker, pair.count))
    return tuple(
        SpeakerSummary(
            names[id],
            int(num_lines[id]),
            int(num_words[id]),
            sum(count for _, count in following[names[id]]),
            tuple(following[names[id]][:MAX_NEXT_SPEAKERS]),
        )
        for id in np.argsort(-num_lines, kind="stable").tolist()
        if names[id] and num_lines[id]
    )
