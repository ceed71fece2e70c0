"""Lines of a corpus with their speakers and scenes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Int32Array
from engine.data.speakers import merge_key


@dataclass(frozen=True)
class Line:
    """One cleaned utterance and its speaker; the speaker is empty if the source does not name one."""

    text: str
    speaker: str = ""


@dataclass(frozen=True, eq=False)
class Lines(Sequence[Line]):
    """All or some lines of a corpus, in any order."""

    texts: list[str]
    speaker_ids: Int32Array  # index of the speaker of each line in `speaker_names` `[lines]`
    scene_ids: Int32Array  # number of the scene of each line `[lines]`
    speaker_names: tuple[str, ...]  # names of all speakers of the corpus; the first is empty

    def take(self, indices: npt.NDArray[np.integer]) -> "Lines":
        """Return the lines at `indices`, in this order."""
        texts = [self.texts[index] for index in indices.tolist()]
        return Lines(texts, self.speaker_ids[indices], self.scene_ids[indices], self.speaker_names)

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> "Lines": ...
    def __getitem__(self, index: int | slice) -> "Line | Lines":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return Line(self.texts[index], self.speaker_names[self.speaker_ids[index]])

    def __iter__(self) -> Iterator[Line]:
        return map(Line, self.texts, map(self.speaker_names.__getitem__, self.speaker_ids.tolist()))


def make_lines(texts: list[str], speakers: Sequence[str] = (), scene_ids: Sequence[int] = ()) -> Lines:
    """Return lines, by default of no speaker and in one scene.

    Args:
        texts: Texts of the lines, with single spaces between words and no other white space.
        speakers: Canonical name of the speaker of each line; empty if it is unknown. Names that are equal up to spaces
            and hyphens become the most frequent one of them.
        scene_ids: Number of the scene of each line.
    """
    spellings = {"": Counter([""])}
    for name, num_lines in Counter(speakers).items():
        spellings.setdefault(merge_key(name), Counter())[name] += num_lines
    ids = {name: id for id, counts in enumerate(spellings.values()) for name in counts}
    return Lines(
        texts,
        np.array([ids[name] for name in speakers or [""] * len(texts)], np.int32),
        np.array(scene_ids or [0] * len(texts), np.int32),
        tuple(counts.most_common(1)[0][0] for counts in spellings.values()),
    )
