"""Reading of `metrics.jsonl` and `samples.jsonl`, incrementally and within bounds whatever the files contain."""

import os
import re
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
"""Length from which a line is skipped without being kept in memory."""
MAX_FILE_BYTES = 4_000_000_000
"""Size from which a file is not read; two months of step rows take less."""
MAX_NON_STEP_LINES = 300_000
"""Number of lines other than step rows that are read; a checkpoint every 30 s writes fewer in 100 days."""
MAX_ROW_FIELDS = 64
FINGERPRINT_BYTES = 64
"""Number of bytes before the read position that are compared to detect a replaced file."""
_STEP_PREFIX = b'{"event": "step"'
_NON_STEP_LINE_START = re.compile(rb"\n(?!%b)" % re.escape(_STEP_PREFIX))
"""Newline that is not followed by a step row; most rows are step rows."""


@dataclass(frozen=True)
class RowBatch:
    """Rows that were read by one call of `RecordFollower.read_batch`."""

    rows: list[Row]
    is_new_record: bool
    """True if the file was replaced: these rows are from its start, and earlier rows are obsolete."""


class RecordFollower:
    """Incremental reader of a JSON-lines file that another process may be writing.

    Only lines that end in a newline count. Lines that are not a flat object with an event are skipped, and no content
    of the file raises an exception.
    """

    def __init__(self, path: Path, *, subsample: bool = False) -> None:
        """Prepare to read `path`; with `subsample`, only the last of consecutive step rows is returned."""
        self.path = path
        self.at_end = False
        """True if the last call read to the end of the file."""
        self.file_size = 0
        self.problem = ""
        """Reason why the file cannot be read; empty if it can."""
        self._subsample = subsample
        self._identity = (0, 0)  # device and inode
        self._offset = 0
        self._non_step_lines = 0
        self._fingerprint = b""  # last bytes before the partial line
        self._partial_line = b""  # start of a line whose newline has not been written yet
        self._is_skipping_line = False

    @property
    def fraction_read(self) -> float:
        """Fraction of the file that has been read, 0 to 1."""
        return self._offset / max(1, self.file_size)

    def read_batch(self, max_seconds: float) -> RowBatch:
        """Read new rows for about `max_seconds`, but at least one chunk."""
        deadline = time.perf_counter() + max_seconds
        rows: list[Row] = []
        is_new_record, self.problem = False, ""
        try:
            fd = open_regular_file(self.path)
        except OSError as error:
            self._set_problem(error)
            return RowBatch(rows, is_new_record)
        try:
            is_new_record = self._was_replaced(fd)
            if is_new_record:
                self._offset = self._non_step_lines = 0
                self._fingerprint = self._partial_line = b""
                self._is_skipping_line = False
            self.problem = self._limit_problem(os.fstat(fd).st_size)
            if self.problem:
                self.at_end = True
                return RowBatch(rows, is_new_record)
            os.lseek(fd, self._offset, os.SEEK_SET)
            self.at_end = False
            while not self.at_end:
                chunk = os.read(fd, READ_CHUNK_BYTES)
                rows += self._parse_chunk(chunk)
                self.at_end = not chunk or self._non_step_lines > MAX_NON_STEP_LINES
                if time.perf_counter() >= deadline:
                    break
            self.file_size = max(self._offset, os.fstat(fd).st_size)
        except OSError as error:
            self._set_problem(error)
        finally:
            os.close(fd)
        return RowBatch(rows, is_new_record)

    def _was_replaced(self, fd: int) -> bool:
        """Return True if the file was truncated, rewritten or replaced since the last call.

        A torn last line that its writer has removed since is forgotten, and is no replacement.
        """
        status = os.fstat(fd)
        identity, previous = (status.st_dev, status.st_ino), self._identity
        self._identity = identity
        if not self._offset:
            return False
        end_of_lines = self._offset - len(self._partial_line)
        if identity != previous or not _has_content(fd, self._fingerprint, end_of_lines):
            return True
        if not _has_content(fd, self._partial_line, self._offset):
            self._offset, self._partial_line = end_of_lines, b""
        return False

    def _limit_problem(self, size: int) -> str:
        """Return why no more of a file of `size` bytes is read; "" if it is within the limits."""
        if size > MAX_FILE_BYTES:
            return f"larger than the limit of {MAX_FILE_BYTES:,} bytes"
        if self._non_step_lines > MAX_NON_STEP_LINES:
            return f"more than {MAX_NON_STEP_LINES:,} lines are not step rows; the lines after them are not read"
        return ""

    def _remember(self, content: bytes) -> None:
        """Add bytes that will not be read again to the fingerprint."""
        self._fingerprint = (self._fingerprint + content[-FINGERPRINT_BYTES:])[-FINGERPRINT_BYTES:]

    def _set_problem(self, error: OSError) -> None:
        self.problem, self.at_end = error.strerror or type(error).__name__, True

    def _parse_chunk(self, chunk: bytes) -> list[Row]:
        self._offset += len(chunk)
        end = chunk.rfind(b"\n") + 1
        lines: list[bytes] = []
        if end:
            complete = self._partial_line + chunk[:end]
            self._remember(complete)
            if self._is_skipping_line:
                complete = complete[complete.find(b"\n") + 1 :]
            # The last element is the empty text after the last newline.
            lines = (list(_last_step_lines(complete)) if self._subsample else complete.split(b"\n"))[:-1]
            num_lines = complete.count(b"\n") if self._subsample else len(lines)
            self._non_step_lines += max(0, num_lines - complete.count(_STEP_PREFIX))
            self._partial_line, self._is_skipping_line = b"", False
        self._partial_line += chunk[end:]
        if self._is_skipping_line or len(self._partial_line) > MAX_LINE_BYTES:
            self._remember(self._partial_line)
            self._partial_line, self._is_skipping_line = b"", True
        return [row for line in lines if (row := _parse_row(line)) is not None]


def _has_content(fd: int, content: bytes, end: int) -> bool:
    """Return True if the bytes of a file before the offset `end` are `content`."""
    return os.pread(fd, len(content), end - len(content)) == content


def _last_step_lines(text: bytes) -> Iterator[bytes]:
    """Yield the lines of `text` without the step rows that another step row follows.

    The other lines are found by a regular expression, which takes 0.1 s for a million step rows.
    """
    text = b"\n" + text
    start = 0
    for match in _NON_STEP_LINE_START.finditer(text):
        end = newline = match.start()
        # The last step row before this line. A torn one, whose writer was killed, does not count.
        while (previous := text.rfind(b"\n", 0, end)) >= start:
            line = text[previous + 1 : end]
            if _parse_row(line) is not None:
                yield line
                break
            end = previous
        start = text.find(b"\n", newline + 1)
        yield text[newline + 1 : start]


def _parse_row(line: bytes) -> Row | None:
    try:
        row: Row = decode_line(line)
    except (msgspec.DecodeError, ValueError):  # also NaN and numbers beyond the range of a float
        return None
    if not isinstance(row.get("event"), str) or len(row) > MAX_ROW_FIELDS:
        return None
    return row


def read_rows(path: Path, *, subsample: bool = False) -> Iterator[Row]:
    """Yield the rows that a file contains now. A missing file has no rows, and a torn last line is ignored.

    With `subsample`, only the last of consecutive step rows is yielded, which is many times as fast.
    """
    follower = RecordFollower(path, subsample=subsample)
    while not follower.at_end:
        yield from follower.read_batch(0).rows


def read_current_rows(path: Path, *, subsample: bool = False) -> list[Row]:
    """Return the rows of a file as `read_rows` does, without rows that a resumed training has superseded."""
    return drop_superseded_rows(read_rows(path, subsample=subsample))


def drop_superseded_rows(rows: Iterable[Row]) -> list[Row]:
    """Drop rows that are obsolete after a resume: steps that are repeated, and the end of the earlier training.

    A "resume" row names the first step that is repeated.
    """
    kept: list[Row] = []
    for row in rows:
        first_step = row.get("step")
        if row["event"] == "resume" and isinstance(first_step, int):
            kept = [earlier for earlier in kept if not _is_superseded(earlier, first_step)]
        kept.append(row)
    return kept


def _is_superseded(row: Row, first_step: int) -> bool:
    step = row.get("step")
    return row["event"] in ("finished", "failed") or (isinstance(step, int) and step >= first_step)


def number_or_none(value: object) -> float | None:
    """Return a number of a row as a float; None for any other value."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
