"""History of prompts across sessions, and navigation in it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from engine.errors import LotrError, RunError
from engine.storage.files import JsonLinesAppender, app_home, lock_file, open_regular_file, write_atomically
from lotr_tui.session.json_store import FailureReporter, os_error_reason

MAX_PROMPTS = 1000
MAX_BYTES = 2_000_000  # at the end of the file that are read; older prompts are dropped when it is next shortened
LOCK_TIMEOUT = 0.2  # seconds to wait while another session writes; the interface is blocked meanwhile


class HistoryError(LotrError):
    """Failure to save a prompt."""


def history_file() -> Path:
    """Return the path of the history: one JSON string per line, oldest first."""
    return app_home() / "history.jsonl"


class PromptHistory:
    """The latest prompts, oldest first: those in the file at the start, to which all sessions append, and new ones."""

    def __init__(self, path: Path | None = None, max_entries: int = MAX_PROMPTS) -> None:
        """Read the history; an unreadable file counts as empty, and damaged lines are skipped."""
        self.path = path or history_file()
        self._max_entries = max_entries
        self._failures = FailureReporter()
        self._unsaved: list[str] = []
        try:
            self.entries = _parse_entries(_read_tail(self.path), max_entries)
        except OSError:
            self.entries = []

    def add(self, text: str) -> None:
        """Save a prompt, unless it is blank or the latest one; the first of several failures raises a HistoryError."""
        if not text.strip() or self.entries[-1:] == [text]:
            return
        for texts in (self.entries, self._unsaved):
            texts.append(text)
            del texts[: -self._max_entries]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The lock is a separate file, since the history itself is replaced when it is shortened.
            with lock_file(self.path.with_suffix(".lock"), LOCK_TIMEOUT):
                problem = self._flush()
        except BlockingIOError:  # the other session may have been suspended
            problem = f"{self.path} is locked by another session"
        except (OSError, RunError) as error:
            problem = f"{self.path}: {os_error_reason(error)}"
        if message := self._failures.report(f"prompts are not saved: {problem}" if problem else ""):
            raise HistoryError(message)

    def _flush(self) -> str:
        """Append the unsaved prompts, shorten a file that is too long, and return why this failed, or ""."""
        appender = JsonLinesAppender(self.path)
        while self._unsaved and not appender.problem:
            appender.append(self._unsaved[0])
            if not appender.problem:
                del self._unsaved[0]
        appender.close()
        tail = b"" if appender.problem else _read_tail(self.path)
        if self.path.stat().st_size > MAX_BYTES or tail.count(b"\n") > 2 * self._max_entries:
            entries = _parse_entries(tail, self._max_entries)
            write_atomically(self.path, b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
        return appender.problem


class HistoryNavigator:
    """Cursor over the older prompts that start with a draft: each text once, newest first, then back to the draft."""

    def __init__(self, entries: Sequence[str], draft: str) -> None:
        unique = dict.fromkeys(entry for entry in reversed(entries) if entry.startswith(draft))
        self.draft = draft
        self._texts = [draft, *(text for text in unique if text != draft)]
        self._index = 0

    def older(self) -> str | None:
        """Move to the next older prompt and return it; return None at the oldest."""
        return self._move(1)

    def newer(self) -> str | None:
        """Move to the next newer prompt, or from the newest to the draft, and return it; return None at the draft."""
        return self._move(-1)

    def _move(self, step: int) -> str | None:
        if not 0 <= self._index + step < len(self._texts):
            return None
        self._index += step
        return self._texts[self._index]


def _read_tail(path: Path) -> bytes:
    """Return the last `MAX_BYTES` of the file, from the start of a line on."""
    with os.fdopen(open_regular_file(path), "rb") as file:
        file.seek(max(0, file.seek(0, 2) - MAX_BYTES))
        if file.tell():
            file.readline()
        return file.read()


def _parse_entries(content: bytes, max_entries: int) -> list[str]:
    """Return the latest prompts without consecutive duplicates; damaged lines are skipped."""
    max_lines = 4 * max_entries  # a file is shortened long before it has more
    entries: list[str] = []
    for line in content.rsplit(b"\n", max_lines)[-max_lines:]:
        try:
            text = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(text, str) and text.strip() and entries[-1:] != [text]:
            entries.append(text)
    return entries[-max_entries:]
