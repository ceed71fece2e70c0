"""Lines of a corpus, stored as one text with offsets, so that a corpus can be larger than memory."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from engine.data.arrays import AppendableArray, Int32Array, Int64Array, iter_line_chunks, line_positions, memory_map
from engine.data.speakers import merge_key

BLOCK_BYTES = 2**20
"""Size of the blocks of text that are processed at once."""
_IS_WORD_BYTE = np.array([byte >= 128 or chr(byte).isalnum() or chr(byte) == "'" for byte in range(256)])
"""`[256]`: True for the UTF-8 bytes of words: of letters and digits, apostrophes, and all characters beyond ASCII."""


@dataclass(frozen=True)
class Line:
    """One cleaned utterance and its speaker; the speaker is empty if the source does not name one."""

    text: str
    speaker: str = ""


class Lines(Sequence[Line]):
    """Immutable sequence of all or some lines of a `LineStore`, in any order."""

    def __init__(
        self,
        buffer: npt.NDArray[np.uint8],
        offsets: Int64Array,
        speaker_ids: Int32Array,
        speaker_names: Sequence[str],
        scene_ids: Int32Array,
        indices: Int32Array | None = None,
    ) -> None:
        """Create a view of the stored lines `indices`, or of all lines if `indices` is None.

        `buffer` is the UTF-8 text of all lines, each ended by a line feed; `offsets` `[lines + 1]` has the start of
        each line in `buffer` and the end of the last one. `speaker_ids` `[lines]` are indices into `speaker_names`;
        `scene_ids` `[lines]` are the numbers of the scenes, from 0, in file order.
        """
        self._buffer, self._offsets, self._indices = buffer, offsets, indices
        self._speaker_ids, self._speaker_names = speaker_ids, tuple(speaker_names)
        self._scene_ids = scene_ids

    @property
    def speaker_ids(self) -> Int32Array:
        """Index of the speaker of each line in `speaker_names` `[lines]`."""
        return self._speaker_ids if self._indices is None else self._speaker_ids[self._indices]

    @property
    def speaker_names(self) -> tuple[str, ...]:
        """Names of all speakers of the store; the first is empty."""
        return self._speaker_names

    @property
    def scene_ids(self) -> Int32Array:
        """Number of the scene of each line `[lines]`."""
        return self._scene_ids if self._indices is None else self._scene_ids[self._indices]

    def count_words(self) -> Int64Array:
        """Return the number of words of each line `[lines]`: runs of letters, digits and apostrophes."""
        indices = np.arange(len(self)) if self._indices is None else self._indices
        counts = [np.empty(0, np.int64)]
        for chunk in iter_line_chunks(self._offsets, indices):
            in_word = _IS_WORD_BYTE[self._buffer[line_positions(self._offsets, chunk)]]
            starts_word = in_word & ~np.concatenate([[False], in_word[:-1]])  # a line feed ends every line
            lengths = self._offsets[chunk + 1] - self._offsets[chunk]
            counts.append(np.add.reduceat(starts_word, np.cumsum(lengths) - lengths, dtype=np.int64))
        return np.concatenate(counts)

    def take(self, indices: npt.NDArray[np.integer]) -> "Lines":
        """Return the lines at `indices`, in this order."""
        store_indices = indices.astype(np.int32) if self._indices is None else self._indices[indices]
        return Lines(
            self._buffer, self._offsets, self._speaker_ids, self._speaker_names, self._scene_ids, store_indices
        )

    def __len__(self) -> int:
        return len(self._speaker_ids) if self._indices is None else len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> "Lines": ...
    def __getitem__(self, index: int | slice) -> "Line | Lines":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        line = range(len(self))[index]  # resolves negative indices and raises IndexError
        if self._indices is not None:
            line = int(self._indices[line])
        text = self._buffer[int(self._offsets[line]) : int(self._offsets[line + 1]) - 1]
        return Line(text.tobytes().decode(errors="replace"), self._speaker_names[self._speaker_ids[line]])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def iter_blocks(self) -> Iterator[str]:
        """Yield the text of the whole store in blocks of about `BLOCK_BYTES`; each line is ended by a line feed."""
        begin = 0
        while begin < len(self._offsets) - 1:
            limit = self._offsets[begin] + BLOCK_BYTES
            end = max(begin + 1, int(np.searchsorted(self._offsets, limit, side="right")) - 1)
            yield self._buffer[int(self._offsets[begin]) : int(self._offsets[end])].tobytes().decode(errors="replace")
            begin = end


class LineStore:
    """Append-only storage of lines, in memory or in the files of a folder."""

    def __init__(self, folder: Path | None = None) -> None:
        """Create an empty store, in the files of `folder`, or in memory if `folder` is None.

        Raises:
            OSError: If the folder cannot be written; `add` raises it too.
        """
        self._buffer = AppendableArray(np.uint8, folder and folder / "text")
        self._offsets = AppendableArray(np.int64, folder and folder / "offsets")
        self._speaker_ids = AppendableArray(np.int32, folder and folder / "speaker_ids")
        self._scene_ids = AppendableArray(np.int32, folder and folder / "scene_ids")
        self._offsets.extend(np.zeros(1, np.int64))
        self._speaker_key_to_id = {"": 0}
        self._spellings: defaultdict[int, Counter[str]] = defaultdict(Counter, {0: Counter([""])})
        """Number of lines with each spelling of the name of each speaker."""
        self._num_scenes = 0

    def __len__(self) -> int:
        return self._speaker_ids.size

    def add(
        self,
        texts: Sequence[str],
        speakers: Sequence[str] = (),
        starts_scene: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Append lines with single spaces between words and no other white space.

        Args:
            texts: Texts of the lines.
            speakers: Canonical name of the speaker of each line; empty if the speakers are unknown. Names that are
                equal up to spaces and hyphens become the most frequent one of them.
            starts_scene: True for each line that starts a scene `[lines]`; None: all continue the scene before.
        """
        if not texts:
            return
        text = np.frombuffer(("\n".join(texts) + "\n").encode(), np.uint8)
        self._offsets.extend(np.flatnonzero(text == ord("\n")) + (self._buffer.size + 1))
        self._buffer.extend(text)
        id_of_name = {}
        for name, num_lines in Counter(speakers).items():
            id = self._speaker_key_to_id.setdefault(merge_key(name), len(self._speaker_key_to_id))
            id_of_name[name] = id
            self._spellings[id][name] += num_lines
        ids = [id_of_name[name] for name in speakers]
        self._speaker_ids.extend(np.array(ids, np.int32) if ids else np.zeros(len(texts), np.int32))
        starts = np.zeros(len(texts), np.int32) if starts_scene is None else starts_scene.astype(np.int32)
        starts[0] |= self._num_scenes == 0
        scene_ids = self._num_scenes - 1 + np.cumsum(starts, dtype=np.int32)
        self._scene_ids.extend(scene_ids)
        self._num_scenes = int(scene_ids[-1]) + 1

    def lines(self) -> Lines:
        """Return all lines appended so far."""
        return Lines(
            buffer=self._buffer.to_array(),
            offsets=self._offsets.to_array(),
            speaker_ids=self._speaker_ids.to_array(),
            speaker_names=[self._spellings[id].most_common(1)[0][0] for id in self._speaker_key_to_id.values()],
            scene_ids=self._scene_ids.to_array(),
        )


def load_lines(folder: Path, speaker_names: Sequence[str]) -> Lines:
    """Map the lines that a `LineStore` wrote to a folder.

    Raises:
        OSError: If a file is missing.
        ValueError: If the files do not match each other.
    """
    buffer = memory_map(folder / "text", np.uint8)
    offsets = memory_map(folder / "offsets", np.int64)
    speaker_ids = memory_map(folder / "speaker_ids", np.int32)
    scene_ids = memory_map(folder / "scene_ids", np.int32)
    scene_steps = np.diff(scene_ids, prepend=np.int32(0))
    if (
        len(offsets) != len(speaker_ids) + 1
        or (int(offsets[0]), int(offsets[-1])) != (0, len(buffer))
        or not bool(np.all(offsets[1:] > offsets[:-1]))
        or (len(speaker_ids) and not 0 <= int(speaker_ids.min()) <= int(speaker_ids.max()) < len(speaker_names))
        or not all(isinstance(name, str) for name in speaker_names)
        or len(scene_ids) != len(speaker_ids)
        or not bool(np.all((scene_steps == 0) | (scene_steps == 1)))
    ):
        raise ValueError("text, offsets, speaker_ids and scene_ids do not match")
    return Lines(buffer, offsets, speaker_ids, speaker_names, scene_ids)
