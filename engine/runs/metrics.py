"""Events in `metrics.jsonl` and `samples.jsonl`: the lines that were added, whatever the files hold."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from engine import events
from engine.events import RecordedEvent
from engine.storage.files import open_regular_file

READ_CHUNK_BYTES = 1 << 16  # larger buffers are returned to the system after each read, which makes reading slower
MAX_LINE_BYTES = 1_000_000  # longer lines are skipped
MAX_FILE_BYTES = 4_000_000_000  # larger files are not read; two months of steps take less
MAX_OTHER_LINES = 300_000  # lines other than steps; a checkpoint every 30 s writes fewer in 100 days
_STEP_PREFIX = b'{"event": "step"'
_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# Nested values are refused: empty lists take 30 times their size in the file as memory.
_decode_row = msgspec.json.Decoder(dict[str, _Integer | float | str | bool | None]).decode
_decode_step = msgspec.json.Decoder(events.Step).decode


class RecordFollower:
    """Incremental reader of a file of events that another process may be writing, whatever the file contains.

    Lines that are not an event are skipped. With `subsample`, only the last of consecutive steps is returned.
    """

    def __init__(self, path: Path, *, subsample: bool = False) -> None:
        self.path, self._subsample = path, subsample
        self.at_end = False  # True if the last call read to the end of the file
        # True if the last call found another file: its events are from the start, and earlier ones are obsolete.
        self.is_replaced = False
        self.fraction_read, self.file_size = 0.0, 0
        self.problem = ""  # reason why the file cannot be read
        self._identity: tuple[int, int] | None = None  # device and inode
        self._offset = self._num_others = 0
        self._start_of_line = b""

    def read(self, max_seconds: float) -> list[RecordedEvent]:
        """Read the events that were added for about `max_seconds`, but at least one chunk."""
        deadline = time.perf_counter() + max_seconds
        added: list[RecordedEvent] = []
        self.is_replaced, self.at_end, self.problem = False, True, ""
        try:
            with os.fdopen(open_regular_file(self.path), "rb") as file:
                status = os.fstat(file.fileno())
                identity, self.file_size = (status.st_dev, status.st_ino), status.st_size
                if self._offset and (identity != self._identity or self.file_size < self._offset):
                    self._offset, self._num_others, self._start_of_line, self.is_replaced = 0, 0, b"", True
                self._identity = identity
                if self.file_size > MAX_FILE_BYTES or self._num_others > MAX_OTHER_LINES:
                    self.problem = "larger than any file that lotr-tui writes"
                    return []
                file.seek(self._offset)
                rest = self._start_of_line
                self.at_end = False
                while not self.at_end and self._num_others <= MAX_OTHER_LINES:
                    chunk = file.read(READ_CHUNK_BYTES)
                    self.at_end = len(chunk) < READ_CHUNK_BYTES
                    *lines, rest = (rest + chunk).split(b"\n")
                    if len(rest) > MAX_LINE_BYTES:
                        rest = b"\0"  # with which no line is valid
                    is_step = [line.startswith(_STEP_PREFIX) and line.endswith(b"}") for line in lines]
                    self._num_others += len(lines) - sum(is_step)
                    if self._subsample:
                        precedes_step = zip(lines, is_step, [*is_step[1:], False], strict=False)
                        lines = [line for line, step, next_is_step in precedes_step if not (step and next_is_step)]
                    added += [event for line in lines if (event := parse_line(line)) is not None]
                    if (is_step or rest[:1] == b"\0") and time.perf_counter() >= deadline:  # each call makes progress
                        break
                # An unfinished line is read again, since the next writer may remove it.
                self._start_of_line = rest if rest[:1] == b"\0" else b""
                self._offset = file.tell() - len(rest) + len(self._start_of_line)
                self.fraction_read = min(1.0, self._offset / max(1, self.file_size))
        except OSError as error:
            self.problem, self._identity = error.strerror or type(error).__name__, None
        return added


def parse_line(line: bytes) -> RecordedEvent | None:
    if line.startswith(_STEP_PREFIX):  # most lines
        try:
            return _decode_step(line)
        except (msgspec.DecodeError, ValueError):  # null for a number that is not finite
            pass
    try:
        return events.event_from_dict(_decode_row(line))
    except (msgspec.DecodeError, ValueError):  # also NaN and numbers beyond the range of a float
        return None


def read_events(path: Path, *, subsample: bool = False) -> Iterator[RecordedEvent]:
    """Yield the events that a file contains now. A missing file has none, and a torn last line is ignored."""
    follower = RecordFollower(path, subsample=subsample)
    while not follower.at_end:
        yield from follower.read(0)


def read_current_events(path: Path, *, subsample: bool = False) -> list[RecordedEvent]:
    """Return the events of a file as `read_events` does, without the ones that a resumed training has superseded."""
    return drop_superseded(read_events(path, subsample=subsample))


def drop_superseded(recorded: Iterable[RecordedEvent]) -> list[RecordedEvent]:
    """Drop the steps that a resumed training repeats, from the step of its `Resume`, and the earlier end."""
    kept: list[RecordedEvent] = []
    for event in recorded:
        if isinstance(event, events.Resume):
            ends = events.Finished, events.Failed
            kept = [each for each in kept if not isinstance(each, ends) and getattr(each, "step", -1) < event.step]
        kept.append(event)
    return kept
