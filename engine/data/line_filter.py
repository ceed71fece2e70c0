"""Clean-up of the lines of a corpus, selection by length, and division into scenes."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from engine.data.arrays import Int64Array
from engine.data.clean_up import repair_dialogue
from engine.data.file_scan import MAX_LINE_CHARACTERS
from engine.data.lines import Lines, LineStore
from engine.data.scenes import SceneDivider, SceneRules
from engine.data.speakers import MAX_WRITTEN_CHARACTERS, Speaker, normalize_speaker
from engine.errors import CorpusError


class LineFilter:
    """Filter that cleans the lines of a file and stores the lines of sufficient length."""

    def __init__(
        self,
        path: Path,
        min_characters: int,
        store: LineStore,
        scenes: SceneRules,
        *,
        repair: bool = False,
        drop_empty: bool = False,
        empty_lines_end_scenes: bool = False,
    ) -> None:
        """Create a filter of the lines of more than `min_characters`.

        Args:
            path: Path of the file, for error messages.
            min_characters: Length of the longest lines that are left out; -1 keeps empty lines.
            store: Store that the other lines are appended to.
            scenes: Rules that say where a scene ends.
            repair: If True, apply `repair_dialogue` to every line.
            drop_empty: If True, leave out lines that are empty before the repair, whatever `min_characters` says.
            empty_lines_end_scenes: If True, end a scene at each empty line of the file.
        """
        self.num_rows = 0
        """Number of lines before the filter."""
        self.marks: Counter[str] = Counter()
        """Number of lines with each mark that was separated from the name of a speaker."""
        self._path, self._min_characters, self._store, self._repair = path, min_characters, store, repair
        self._drop_empty, self._empty_lines_end_scenes = drop_empty, empty_lines_end_scenes
        self._initial_store_size = len(store)
        self._speakers: dict[str, Speaker] = {}
        self._divider = SceneDivider(scenes)
        self._section, self._last_scene_name = 0, ""

    def add(
        self, texts: Sequence[str], speakers: Sequence[str] | None = None, scene_names: Sequence[str] | None = None
    ) -> None:
        """Clean lines, and store every line of sufficient length. An overlong line raises a CorpusError.

        `speakers` has the names as written, and a scene ends where `scene_names` changes; both may be unknown.
        """
        longest = max(map(len, texts), default=0)
        if longest > MAX_LINE_CHARACTERS:
            raise CorpusError(
                f"{self._path} has an utterance of {longest:,} characters; the maximum is {MAX_LINE_CHARACTERS:,}"
            )
        self.num_rows += len(texts)
        written = [" ".join(text.split()) for text in texts]
        cleaned = [repair_dialogue(text) for text in written] if self._repair else written
        kept = [index for index, text in enumerate(cleaned) if len(text) > self._min_characters]
        if self._drop_empty:
            kept = [index for index in kept if written[index]]
        kept_speakers = [] if speakers is None else [self._normalize(speakers[index]) for index in kept]
        starts_scene = self._divider.find_starts(self._number_sections(cleaned, scene_names)[kept])
        self._store.add([cleaned[index] for index in kept], kept_speakers, starts_scene)

    def _normalize(self, name: str) -> str:
        """Return the canonical name of a speaker, and count the marks beside it."""
        speaker = self._speakers.get(name)
        if speaker is None:
            speaker = normalize_speaker(name)
            if len(name) <= MAX_WRITTEN_CHARACTERS:
                self._speakers[name] = speaker
        if speaker.marks:
            self.marks.update(speaker.marks)
        return speaker.name

    def _number_sections(self, texts: Sequence[str], scene_names: Sequence[str] | None) -> Int64Array:
        """Return the number of the section of each line `[lines]`."""
        is_break = [False] * len(texts)
        if scene_names is not None:
            names = [self._last_scene_name, *(name.strip() for name in scene_names)]
            is_break = [name != before for before, name in pairwise(names)]
            self._last_scene_name = names[-1]
        elif self._empty_lines_end_scenes:
            is_break = [not text for text in texts]
        sections = self._section + np.cumsum(is_break, dtype=np.int64)
        self._section = int(sections[-1]) if len(sections) else self._section
        return sections

    def lines(self) -> Lines:
        """Return all lines of the store, or raise a CorpusError if none of them came from this file."""
        if len(self._store) == self._initial_store_size:
            raise CorpusError(
                f"{self._path}: none of the {self.num_rows} lines is longer than {self._min_characters} characters; "
                "lower the limit with --set min_characters=N"
            )
        return self._store.lines()
