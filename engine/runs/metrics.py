"""Reading of `metrics.jsonl` and `samples.jsonl`: the lines that were added, whatever the files contain."""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from engine.storage.files import open_regular_file

Row = dict[str, Any]
"""One line of a metrics file: an event as a flat JSON object."""
_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# Nested values are refused: empty lists take 30 times their size in the file as memory.
decode_line = msgspec.json.Decoder(dict[str, _Integer | float | str | bool | None]).decode

READ_CHUNK_BYTES = 1 << 16
"""Bytes per read; larger buffers are returned to the system after each read, which makes reading slower."""
MAX_LINE_BYTES = 1_000_000
"""Length from which a line is skipped."""
MAX_FILE_BYTES = 4_000_000_000
"""Size from which a file is not read; two months of step rows take less."""
MAX_NON_STEP_LINES = 300_000
"""Number of lines other than step rows that are read; a checkpoint every 30 s writes fewer in 100 days."""
MAX_ROW_FIELDS = 64
FINGERPRINT_BYTES = 64
"""Number of bytes before the read position that are compared to detect a replaced file."""
_STEP_PREFIX = b'{"event": "step"'


@dataclass(frozen=True)
class RowBatch:
    rows: list[Row]
    is_new_record: bool
    """True if the file was replaced: these rows are from its start, and earlier rows are obsolete."""


class RecordFollower:
    """Incremental reader of a JSON-lines file that another process may be writing.

    Only lines that end in a newline count. Lines that are not a flat object with an event are skipped, and no content
    of the file raises an exception. With `subsample`, only the last of consecutive step rows is returned.
    """

    def __init__(self, path: Path, *, subsample: bool = False) -> None:
        self.path = path
        self.at_end = False
        """True if the last call read to the end of the file."""
        self.file_size = 0
        self.problem = ""
        """Reason why the file cannot be read; empty if it can."""
        self._subsample = subsample
        self._identity = (0, 0)  # device and inode
        self._offset = self._num_others = 0
        self._fingerprint = b""  # last bytes before the offset
        self._is_in_long_line = False

    @property
    def fraction_read(self) -> float:
        """Fraction of the file that has been read, 0 to 1."""
        return min(1.0, self._offset / max(1, self.file_size))

    def read_batch(self, max_seconds: float) -> RowBatch:
        """Read new rows for about `max_seconds`, but at least one chunk."""
        deadline = time.perf_counter() + max_seconds
        rows: list[Row] = []
        is_new_record, self.problem, self.at_end = False, "", False
        try:
            with os.fdopen(open_regular_file(self.path), "rb") as file:
                fd, status = file.fileno(), os.fstat(file.fileno())
                identity, read_before = (status.st_dev, status.st_ino), len(self._fingerprint)
                if self._offset:
                    is_same = os.pread(fd, read_before, self._offset - read_before) == self._fingerprint
                    is_new_record = identity != self._identity or not is_same
                if is_new_record:
                    self._offset = self._num_others = 0
                    self._fingerprint, self._is_in_long_line = b"", False
                self._identity, self.file_size = identity, status.st_size
                while not self.at_end:
                    if self._num_others > MAX_NON_STEP_LINES or self.file_size > MAX_FILE_BYTES:
                        self.problem, self.at_end = "larger than the limits of a file that lotr-tui writes", True
                        break
                    rows += self._read_chunk(fd)
                    if time.perf_counter() >= deadline:
                        break
        except OSError as error:
            self.problem, self.at_end = error.strerror or type(error).__name__, True
        return RowBatch(rows, is_new_record)

    def _read_chunk(self, fd: int) -> list[Row]:
        """Read complete lines at the offset, which is moved after them; a line without an end is read again later."""
        chunk, limit = os.pread(fd, READ_CHUNK_BYTES, self._offset), READ_CHUNK_BYTES
        if len(chunk) == limit and b"\n" not in chunk:
            chunk, limit = os.pread(fd, MAX_LINE_BYTES, self._offset), MAX_LINE_BYTES
        self.at_end = len(chunk) < limit
        *lines, partial_line = chunk.split(b"\n")
        if self._is_in_long_line and lines:
            del lines[0]
            self._is_in_long_line = False
        if len(partial_line) == MAX_LINE_BYTES:
            partial_line, self._is_in_long_line = b"", True
        end = len(chunk) - len(partial_line)
        self._offset += end
        self._fingerprint = (self._fingerprint + chunk[max(0, end - FINGERPRINT_BYTES) : end])[-FINGERPRINT_BYTES:]
        is_step = [line.startswith(_STEP_PREFIX) and line.endswith(b"}") for line in lines]
        self._num_others += len(lines) - sum(is_step)
        if self._subsample:
            precedes_step = zip(lines, is_step, [*is_step[1:], False], strict=False)
            lines = [line for line, step, next_is_step in precedes_step if not (step and next_is_step)]
        return [row for line in lines if (row := _parse_row(line)) is not None]


def _parse_row(line: bytes) -> Row | None:
    try:
        row: Row = decode_line(line)
    except (msgspec.DecodeError, ValueError):  # also NaN and numbers beyond the range of a float
        return None
    return row if isinstance(row.get("event"), str) and len(row) <= MAX_ROW_FIELDS else None


def read_rows(path: Path, *, subsample: bool = False) -> Iterator[Row]:
    """Yield the rows that a file contains now. A missing file has no rows, and a torn last line is ignored."""
    follower = RecordFollower(path, subsample=subsample)
    while not follower.at_end:
        yield from follower.read_batch(0).rows


def read_current_rows(path: Path, *, subsample: bool = False) -> list[Row]:
    """Return the rows of a file as `read_rows` does, without rows that a resumed training has superseded."""
    return drop_superseded_rows(read_rows(path, subsample=subsample))


def drop_superseded_rows(rows: Iterable[Row]) -> list[Row]:
    """Drop the steps that a resumed training repeats, from the step of its "resume" row, and the earlier end."""
    kept: list[Row] = []
    for row in rows:
        first_step = row.get("step")
        if row["event"] == "resume" and isinstance(first_step, int):
            kept = [
                earlier
                for earlier in kept
                if earlier["event"] not in ("finished", "failed")
                and not (isinstance(step := earlier.get("step"), int) and step >= first_step)
            ]
        kept.append(row)
    return kept


def number_or_none(value: object) -> float | None:
    """Return a number of a row as a float; None for any other value."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
