"""The record of a run, `metrics.jsonl` and `samples.jsonl`: one JSON object a line."""

import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from engine.storage.files import open_file

Row = dict[str, Any]

AT_ONCE = 1 << 16
"""Bytes read between two looks at the clock; where it is more, the memory for it is fetched anew each time."""
LONGEST_LINE = 1_000_000
"""Bytes; what is longer is no row of ours and is passed over without being kept."""
MOST_BYTES = 4_000_000_000
"""Of a record: reports of two months. What is larger was made by somebody else, and is not read."""
MOST_OTHERS = 300_000
"""Lines that are no reports; a checkpoint every 30 s makes as many in a hundred days."""
MOST_FIELDS = 64
"""Of a row of ours, which has no lists or objects in it."""
SEEN = 64
"""Bytes remembered of what was read last: where they stand no longer, the file is another one."""
_REPORT = b'{"event": "step"'
_NO_REPORT = re.compile(rb"\n(?!%b)" % re.escape(_REPORT))
"""The end of a line that no report follows; most lines are reports."""


@dataclass(frozen=True)
class Piece:
    """What a follower has read since it was last asked."""

    rows: list[Row]
    again: bool
    """Whether the file is another one than before: it is read from its start, and earlier rows do not count."""


class Follower:
    """Reads a record that may still grow, a piece at a time. Nothing that the file holds can stop it.

    A line counts once its end is there; what is no object with an event is passed over.
    """

    def __init__(self, path: Path, *, outline: bool = False) -> None:
        """Follow `path`; with `outline` without the reports that another one follows."""
        self.path = path
        self.at_end = False
        """Whether all was read that was there."""
        self.size = 0
        """Bytes that were there."""
        self.problem = ""
        """Why the file cannot be read; empty where it can."""
        self._outline = outline
        self._identity = (0, 0)  # device and number of the file
        self._forget()

    @property
    def share(self) -> float:
        """How much of it is read."""
        return self._read / max(1, self.size)

    def more(self, seconds: float) -> Piece:
        """Read what is new, for about so long."""
        deadline = time.perf_counter() + seconds
        rows: list[Row] = []
        again, self.problem = False, ""
        try:
            file = open_file(self.path)
        except OSError as error:
            self._cannot(error)
            return Piece(rows, again)
        try:
            again = self._is_another(file)
            if again:
                self._forget()
            self.problem = self._too_much(os.fstat(file).st_size)
            if self.problem:
                self.at_end = True
                return Piece(rows, again)
            os.lseek(file, self._read, os.SEEK_SET)
            self.at_end = False
            while not self.at_end:
                read = os.read(file, AT_ONCE)
                rows += self._take(read)
                self.at_end = not read or self._others > MOST_OTHERS
                if time.perf_counter() >= deadline:
                    break
            self.size = max(self._read, os.fstat(file).st_size)
        except OSError as error:
            self._cannot(error)
        finally:
            os.close(file)
        return Piece(rows, again)

    def _is_another(self, file: int) -> bool:
        """Whether it was emptied, cut or replaced since it was last read."""
        status = os.fstat(file)
        identity, before = (status.st_dev, status.st_ino), self._identity
        self._identity = identity
        if not self._read:
            return False
        return (
            identity != before
            or status.st_size < self._read
            or os.pread(file, len(self._seen), self._read - len(self._seen)) != self._seen
        )

    def _too_much(self, size: int) -> str:
        """Why no more of it is read; "" where there is nothing against it."""
        if size > MOST_BYTES:
            return f"it is larger than the {MOST_BYTES:,} bytes that are read"
        if self._others > MOST_OTHERS:
            return f"it has more than {MOST_OTHERS:,} lines that are no reports; those behind are not read"
        return ""

    def _forget(self) -> None:
        self._read = self._others = 0
        self._seen = b""
        self._begun = b""  # a line whose end is not there yet
        self._too_long = False

    def _cannot(self, error: OSError) -> None:
        self.problem, self.at_end = error.strerror or type(error).__name__, True

    def _take(self, read: bytes) -> list[Row]:
        self._read += len(read)
        self._seen = (self._seen + read[-SEEN:])[-SEEN:]
        end = read.rfind(b"\n") + 1
        lines: list[bytes] = []
        text = b""
        if end:
            whole = self._begun + read[:end]
            if self._too_long:
                whole = whole[whole.find(b"\n") + 1 :]
            # Without what stands behind the last line end: nothing.
            lines = (list(_outline(whole)) if self._outline else whole.split(b"\n"))[:-1]
            ends = whole.count(b"\n") if self._outline else len(lines)
            self._others += max(0, ends - whole.count(_REPORT))
            text = b"\n".join(lines) if self._outline else whole
            self._begun, self._too_long = b"", False
        if not self._too_long:
            self._begun += read[end:]
            self._too_long = len(self._begun) > LONGEST_LINE
            if self._too_long:
                self._begun = b""
        rows = [row for line in lines if (row := _row(line)) is not None]
        nests = b"[" in text or text.count(b"{") > len(rows)  # a list somewhere, or an object in another
        return [row for row in rows if _is_flat(row)] if nests else rows


def _outline(lines: bytes) -> Iterator[bytes]:
    """The lines but reports that another one follows. By a search for the others: of a million, in 0.1 s."""
    lines = b"\n" + lines
    taken = 0
    for found in _NO_REPORT.finditer(lines):
        end = place = found.start()
        # The report before it; one that is torn, as its writer was killed, counts for nothing.
        while (before := lines.rfind(b"\n", 0, end)) >= taken:
            line = lines[before + 1 : end]
            if (row := _row(line)) is not None and _is_flat(row):
                yield line
                break
            end = before
        taken = lines.find(b"\n", place + 1)
        yield lines[place + 1 : taken]


def _row(line: bytes) -> Row | None:
    try:
        row = orjson.loads(line)
    except ValueError:  # too deep ones, NaN and numbers beyond those of a float too
        return None
    if not isinstance(row, dict) or not isinstance(row.get("event"), str) or len(row) > MOST_FIELDS:
        return None
    return row


def _is_flat(row: Row) -> bool:
    """Whether all values are plain. A list of nothing takes 30 times the memory that it takes in the file."""
    return not any(isinstance(value, (list, dict)) for value in row.values())


def read_rows(path: Path, *, outline: bool = False) -> Iterator[Row]:
    """The objects of a record as it is now; a torn last line is the end, not an error, and no file has no rows.

    With `outline` without the reports that another one follows, which is many times as fast.
    """
    follower = Follower(path, outline=outline)
    while not follower.at_end:
        yield from follower.more(0).rows


def current_rows(path: Path, *, outline: bool = False) -> list[Row]:
    """The rows of a record, as `read_rows` has them, without those that a resume did again."""
    return without_repeated(read_rows(path, outline=outline))


def without_repeated(rows: Iterable[Row]) -> list[Row]:
    """Drop what came before a resume and was done again after it, and the end that was none.

    A row of an update counts as done again from the update that the resume names on.
    """
    kept: list[Row] = []
    for row in rows:
        first = row.get("step")
        if row["event"] == "resume" and isinstance(first, int):
            kept = [
                earlier
                for earlier in kept
                if earlier["event"] not in ("finished", "failed") and not _from(earlier.get("step"), first)
            ]
        kept.append(row)
    return kept


def _from(step: object, first: int) -> bool:
    return isinstance(step, int) and step >= first
