"""The lines of a corpus, kept as one text and where each begins: a line is made when it is asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Growing, mapped

BLOCK_BYTES = 2**20
"""Of text that is worked on at once."""

Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Line:
    """One utterance, cleaned up, and who speaks it (empty where the source does not say)."""

    text: str
    speaker: str = ""


class Lines(Sequence[Line]):
    """Lines of a `LineStore`, all or some, in any order."""

    def __init__(
        self,
        text: npt.NDArray[np.uint8],
        bounds: npt.NDArray[np.int64],
        speakers: Numbers,
        names: Sequence[str],
        numbers: Numbers | None = None,
    ) -> None:
        """See them.

        Args:
            text: UTF-8, a line feed after every line.
            bounds: where each begins, and the last one ends: `[lines + 1]`.
            speakers: of each, as a place in `names`.
            names: of all speakers; the first one is empty.
            numbers: of the lines that are seen; None: all.
        """
        self._text, self._bounds, self.speakers, self.names = text, bounds, speakers, tuple(names)
        self._numbers = numbers

    def take(self, numbers: npt.NDArray[np.integer]) -> "Lines":
        """Those of these places, in this order."""
        its = numbers.astype(np.int32) if self._numbers is None else self._numbers[numbers]
        return Lines(self._text, self._bounds, self.speakers, self.names, its)

    def __len__(self) -> int:
        return len(self.speakers) if self._numbers is None else len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Line: ...
    @overload
    def __getitem__(self, place: slice) -> "Lines": ...
    def __getitem__(self, place: int | slice) -> "Line | Lines":
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        number = range(len(self))[place]  # raises IndexError as every sequence does
        if self._numbers is not None:
            number = int(self._numbers[number])
        text = self._text[int(self._bounds[number]) : int(self._bounds[number + 1]) - 1]
        return Line(text.tobytes().decode(errors="replace"), self.names[self.speakers[number]])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def blocks(self) -> Iterator[str]:
        """All lines of the store, some at a time, a line feed after each."""
        begin = 0
        while begin < len(self._bounds) - 1:
            reach = self._bounds[begin] + BLOCK_BYTES
            end = max(begin + 1, int(np.searchsorted(self._bounds, reach, side="right")) - 1)
            yield self._text[int(self._bounds[begin]) : int(self._bounds[end])].tobytes().decode(errors="replace")
            begin = end


class LineStore:
    """Where lines are kept as they are read: in memory, or in the files of a folder."""

    def __init__(self, folder: Path | None = None) -> None:
        """Write to `folder`; None: keep them in memory.

        Raises:
            OSError: it cannot be written; so too when something is added.
        """
        self._text = Growing(np.uint8, folder and folder / "text")
        self._bounds = Growing(np.int64, folder and folder / "bounds")
        self._speakers = Growing(np.int32, folder and folder / "speakers")
        self._bounds.add(np.zeros(1, np.int64))
        self._names = {"": 0}

    def __len__(self) -> int:
        return self._speakers.size

    def add(self, texts: Sequence[str], speakers: Sequence[str] = ()) -> None:
        """Keep lines whose white space is clean: single spaces between words, none at the ends.

        Args:
            texts: one each.
            speakers: as many, or none.
        """
        if not texts:
            return
        text = np.frombuffer(("\n".join(texts) + "\n").encode(), np.uint8)
        self._bounds.add(np.flatnonzero(text == ord("\n")) + (self._text.size + 1))
        self._text.add(text)
        codes = [self._names.setdefault(name, len(self._names)) for name in speakers]
        self._speakers.add(np.array(codes, np.int32) if codes else np.zeros(len(texts), np.int32))

    def lines(self) -> Lines:
        """All that were added so far."""
        return Lines(self._text.array(), self._bounds.array(), self._speakers.array(), tuple(self._names))


def lines_in(folder: Path, names: Sequence[str]) -> Lines:
    """What a `LineStore` left in a folder.

    Raises:
        OSError: a file is not there.
        ValueError: the files do not fit each other.
    """
    text, bounds = mapped(folder / "text", np.uint8), mapped(folder / "bounds", np.int64)
    speakers = mapped(folder / "speakers", np.int32)
    if (
        len(bounds) != len(speakers) + 1
        or (int(bounds[0]), int(bounds[-1])) != (0, len(text))
        or not bool(np.all(bounds[1:] > bounds[:-1]))
        or (len(speakers) and not 0 <= int(speakers.min()) <= int(speakers.max()) < len(names))
        or not all(isinstance(name, str) for name in names)
    ):
        raise ValueError("text, bounds and speakers are not of the same lines")
    return Lines(text, bounds, speakers, names)
