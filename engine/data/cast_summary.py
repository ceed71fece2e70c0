"""Summary of the speakers of a corpus: lines and words of each, and who speaks after whom."""

from dataclasses import dataclass

import numpy as np

from engine.data.arrays import chunked_bincount
from engine.data.lines import Lines

MAX_NEXT_SPEAKERS = 3
"""Number of next speakers that a summary names for a speaker."""
MAX_PAIRS = 20
"""Number of pairs of speakers in a summary."""


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
    num_followed: int
    """Number of lines after which somebody speaks in the same scene."""
    next_speakers: tuple[tuple[str, int], ...]
    """The most frequent speakers of the next line, with their numbers of lines."""


@dataclass(frozen=True)
class CastSummary:
    """Counts of the scenes and of all speakers of a corpus."""

    num_scenes: int
    speakers: tuple[SpeakerSummary, ...]
    """All speakers, most lines first."""
    pairs: tuple[SpeakerPair, ...]
    """The most frequent pairs of speakers, most frequent first."""


def summarize_cast(lines: Lines) -> CastSummary:
    """Count the lines and words of each speaker of `lines`, which are in file order, and who speaks after whom.

    Lines without a speaker count for their scene only.
    """
    names, speakers = lines.speaker_names, lines.speaker_ids
    num_scenes = len(np.unique(lines.scene_ids))
    if not any(names):
        return CastSummary(num_scenes, (), ())
    num_lines = chunked_bincount(speakers, len(names))
    num_words = np.bincount(speakers, lines.count_words(), len(names))
    pairs = _count_pairs(lines)
    next_speakers: dict[int, list[tuple[str, int]]] = {}
    num_followed = np.zeros(len(names), np.int64)
    for (speaker, next_speaker), count in pairs:
        num_followed[speaker] += count
        following = next_speakers.setdefault(speaker, [])
        if len(following) < MAX_NEXT_SPEAKERS:
            following.append((names[next_speaker], count))
    by_line_count = [int(id) for id in np.argsort(-num_lines, kind="stable") if names[id] and num_lines[id]]
    return CastSummary(
        num_scenes=num_scenes,
        speakers=tuple(
            SpeakerSummary(
                names[id],
                int(num_lines[id]),
                int(num_words[id]),
                int(num_followed[id]),
                tuple(next_speakers.get(id, ())),
            )
            for id in by_line_count
        ),
        pairs=tuple(SpeakerPair(names[first], names[second], count) for (first, second), count in pairs[:MAX_PAIRS]),
    )


def _count_pairs(lines: Lines) -> list[tuple[tuple[int, int], int]]:
    """Return each pair of indices of speakers of neighbouring lines in a scene, and its count, most frequent first.

    Pairs that are equally frequent are in the order of the speakers' first lines.
    """
    num_speakers = len(lines.speaker_names)
    speakers, scenes = lines.speaker_ids.astype(np.int64), lines.scene_ids
    is_pair = (scenes[1:] == scenes[:-1]) & (speakers[1:] > 0) & (speakers[:-1] > 0)
    codes = speakers[:-1] * num_speakers + speakers[1:]
    unique, counts = np.unique(codes[is_pair], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        (divmod(int(code), num_speakers), int(count)) for code, count in zip(unique[order], counts[order], strict=True)
    ]
