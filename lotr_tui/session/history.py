"""Prompts kept across sessions, and recalling them."""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.errors import LotrError, RunError
from engine.storage.files import home, open_file, take_lock, write_all, write_atomically
from lotr_tui.session.json_store import reason

MOST = 1000
"""Prompts kept."""
MOST_BYTES = 2_000_000
"""Of the file; what is older is not read, and goes when the file is next shortened."""

LOCK_SECONDS = 0.2
"""Waited at most for another session to have written, since nothing else is done meanwhile."""


class HistoryError(LotrError):
    """A prompt cannot be kept."""


def history_file() -> Path:
    """Where prompts are kept: a JSON string a line, latest last."""
    return home() / "history.jsonl"


class History:
    """The latest prompts. Several sessions may add to one file; each sees its own and those before it began."""

    def __init__(self, path: Path | None = None, most: int = MOST) -> None:
        """Read what is kept; a file that cannot be read counts as none, damaged lines as not there."""
        self.path = path or history_file()
        self._most = most
        self._said = False
        self._waiting: list[str] = []
        """Prompts that could not be written yet."""
        try:
            self.entries = _entries(_tail(self.path), most)
        except OSError:
            self.entries = []

    def add(self, text: str) -> None:
        """Keep a prompt; one like the last is not kept twice.

        Raises:
            HistoryError: it cannot be written; it can be recalled in this session all the same, and is written with
                the next one. Raised the first time, not for each prompt.
        """
        if not text.strip() or self.entries[-1:] == [text]:
            return
        self.entries.append(text)
        self._waiting.append(text)
        for texts in (self.entries, self._waiting):
            del texts[: -self._most]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path):
                self._write()
        except (OSError, RunError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not self._said:
                self._said = True
                raise HistoryError(f"prompts are not kept: {self.path}: {reason(cause)}") from error
        else:
            self._said = False

    def _write(self) -> None:
        """Append what waits; a file that has become too long is shortened to the latest."""
        lines = _lines(self._waiting)
        path = Path(os.path.realpath(self.path))  # it may be kept elsewhere
        with os.fdopen(open_file(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), "ab+", buffering=0) as file:
            size = file.seek(0, 2)
            if size:  # a session that died while it wrote has left a part of a line
                file.seek(size - 1)
                lines = lines if file.read(1) == b"\n" else b"\n" + lines
            write_all(file, lines, size)
        self._waiting.clear()
        tail = _tail(self.path)
        if size > MOST_BYTES or tail.count(b"\n") > 2 * self._most:
            kept = _entries(tail, self._most)
            write_atomically(self.path, _lines(kept))


class Recall:
    """Walks through older prompts that start with what was typed, each text once, and back to what was typed."""

    def __init__(self, entries: Sequence[str], draft: str) -> None:
        self.draft = draft
        found = dict.fromkeys(entry for entry in reversed(entries) if entry.startswith(draft))
        self._texts = [text for text in found if text != draft]
        self._at = -1

    def older(self) -> str | None:
        """The next older prompt; None where there is none."""
        if self._at + 1 == len(self._texts):
            return None
        self._at += 1
        return self._texts[self._at]

    def newer(self) -> str | None:
        """The next newer prompt, after the newest what was typed; None where nothing is recalled."""
        if self._at < 0:
            return None
        self._at -= 1
        return self.draft if self._at < 0 else self._texts[self._at]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else writes: the lock is a file beside, since the file itself is replaced when it is shortened.

    Raises:
        BlockingIOError: another session has it for too long; it may have been suspended.
    """
    with os.fdopen(open_file(path.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT), "w") as lock:
        if not take_lock(lock, LOCK_SECONDS):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        yield


def _lines(texts: list[str]) -> bytes:
    return b"".join(json.dumps(text).encode() + b"\n" for text in texts)


def _tail(path: Path) -> bytes:
    """The end of the file, from the start of a line on."""
    with os.fdopen(open_file(path), "rb") as file:
        file.seek(max(0, file.seek(0, 2) - MOST_BYTES))
        if file.tell():
            file.readline()
        return file.read()


def _entries(content: bytes, most: int) -> list[str]:
    """The latest prompts, without those that follow one like them; damaged lines are passed over."""
    entries: list[str] = []
    for line in content.rsplit(b"\n", 4 * most)[-4 * most :]:  # a file is shortened long before it has more
        try:
            text = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(text, str) and text.strip() and entries[-1:] != [text]:
            entries.append(text)
    return entries[-most:]
