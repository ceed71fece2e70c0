"""Summary of a dataset, as `lotr-tui data info` shows it: its splits, its speakers, and who speaks after whom."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.data.corpus import Lines
from engine.data.dataset import CorpusSplits, Dataset
from engine.data.tokenizers import EOS_ID

MAX_NEXT_SPEAKERS = 3  # number of next speakers that a summary names for a speaker
_WORD_BYTES = bytes(b if b >= 128 or chr(b).isalnum() or chr(b) == "'" else ord(" ") for b in range(256))
"""The UTF-8 bytes of words: letters, digits, apostrophes and all beyond ASCII; the others are spaces."""


@dataclass(frozen=True)
class SplitSummary:
    num_lines: int
    num_tokens: int  # without `<eos>`
    unk_rate: float


@dataclass(frozen=True)
class SpeakerSummary:
    name: str
    num_lines: int
    num_words: int
    num_followed: int  # number of lines after which somebody speaks in the same scene
    next_speakers: tuple[tuple[str, int], ...]  # most frequent speakers of the next line, with their numbers of lines


@dataclass(frozen=True)
class DatasetSummary:
    """Summary of a dataset. Speakers are sorted by their numbers of lines, most lines first."""

    num_rows: int
    num_lines: int
    num_tokens: int
    num_distinct_tokens: int
    vocabulary_size: int
    cast: tuple[str, ...]
    num_scenes: int
    speakers: tuple[SpeakerSummary, ...]
    splits: dict[str, SplitSummary]  # "train", "valid" and "test"


def summarize_dataset(dataset: Dataset) -> DatasetSummary:
    """Count the lines, tokens and speakers of a dataset."""
    lines, stats, unk_id = dataset.corpus.lines, dataset.stats, dataset.tokenizer.unk_id
    splits = {}
    for name, part in zip(CorpusSplits._fields, dataset.split_lines, strict=True):
        ids = getattr(dataset, name)
        num_tokens = int(np.count_nonzero(ids != EOS_ID))
        num_unknown = 0 if unk_id is None else int(np.count_nonzero(ids == unk_id))
        splits[name] = SplitSummary(len(part), num_tokens, num_unknown / max(1, num_tokens))
    return DatasetSummary(
        num_rows=dataset.corpus.num_rows,
        num_lines=len(lines),
        num_tokens=stats.num_tokens,
        num_distinct_tokens=stats.num_distinct_tokens,
        vocabulary_size=len(dataset.tokenizer),
        cast=dataset.cast,
        num_scenes=len(np.unique(lines.scene_ids)),
        speakers=summarize_speakers(lines),
        splits=splits,
    )


def count_pairs(lines: Lines) -> Iterator[tuple[str, str, int]]:
    """Yield a speaker, the one of the next line of the scene, and how often that occurs, most frequent first."""
    names, speakers, scenes = lines.speaker_names, lines.speaker_ids.astype(np.int64), lines.scene_ids
    is_pair = (scenes[1:] == scenes[:-1]) & (speakers[1:] > 0) & (speakers[:-1] > 0)
    codes, counts = np.unique((speakers[:-1] * len(names) + speakers[1:])[is_pair], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    for code, count in zip(codes[order].tolist(), counts[order].tolist(), strict=True):
        yield names[code // len(names)], names[code % len(names)], count


def summarize_speakers(lines: Lines) -> tuple[SpeakerSummary, ...]:
    """Count the lines and words of each speaker of `lines`, most lines first."""
    names, speakers = lines.speaker_names, lines.speaker_ids
    num_lines = np.bincount(speakers, minlength=len(names))
    words = [len(text.encode().translate(_WORD_BYTES).split()) for text in lines.texts] if any(names) else None
    num_words = np.bincount(speakers, words, len(names))
    following: dict[str, list[tuple[str, int]]] = {name: [] for name in names}
    for speaker, next_speaker, count in count_pairs(lines):
        following[speaker].append((next_speaker, count))
    return tuple(
        SpeakerSummary(
            name,
            int(num_lines[id]),
            int(num_words[id]),
            sum(count for _, count in following[name]),
            tuple(following[name][:MAX_NEXT_SPEAKERS]),
        )
        for id in np.argsort(-num_lines, kind="stable").tolist()
        if (name := names[id]) and num_lines[id]
    )
