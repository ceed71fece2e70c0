"""History of prompts across sessions, and navigation in it."""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

from engine.errors import LotrError
from engine.storage.files import app_home, lock_file, open_regular_file
from lotr_tui.session.json_store import FailureReporter, os_error_reason

MAX_PROMPTS = 1000
MAX_BYTES = 2_000_000  # at the end of the file that are read; older prompts are dropped
LOCK_TIMEOUT = 0.2  # seconds to wait while another session writes; the interface is blocked meanwhile


class HistoryError(LotrError):
    """Failure to save a prompt."""


def history_file() -> Path:
    """Return the path of the history: one JSON string per line, oldest first."""
    return app_home() / "history.jsonl"


class PromptHistory:
    """The latest prompts, oldest first: those in the file at the start, to which all sessions add, and new ones."""

    def __init__(self, path: Path | None = None, max_entries: int = MAX_PROMPTS) -> None:
        """Read the history; an unreadable file counts as empty, and damaged lines are skipped."""
        self.path = path or history_file()
        self._max_entries = max_entries
        self._failures = FailureReporter()
        self._unsaved: list[str] = []
        try:
            self.entries = self._read()
        except OSError:
            self.entries = []

    def add(self, text: str) -> None:
        """Save a prompt, unless it is blank or the latest one; the first of several failures raises a HistoryError."""
        if not text.strip() or self.entries[-1:] == [text]:
            return
        for texts in (self.entries, self._unsaved):
            texts.append(text)
            del texts[: -self._max_entries]
        problem = ""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The lock is a separate file, since the history itself is replaced, without fsync, which takes long.
            with lock_file(self.path.with_suffix(".lock"), LOCK_TIMEOUT):
                if self.path.is_symlink():
                    raise OSError(errno.ELOOP, "it is a symbolic link")
                entries = [*(self._read() if self.path.exists() else ()), *self._unsaved][-self._max_entries :]
                new = self.path.with_suffix(".new")
                new.unlink(missing_ok=True)  # of a session that was killed
                with new.open("xb") as file:  # which follows no link
                    file.writelines(json.dumps(entry).encode() + b"\n" for entry in entries)
                new.replace(self.path)
            self._unsaved = []
        except BlockingIOError:  # the other session may have been suspended
            problem = f"{self.path} is locked by another session"
        except OSError as error:
            problem = f"{self.path}: {os_error_reason(error)}"
        if message := self._failures.report(f"prompts are not saved: {problem}" if problem else ""):
            raise HistoryError(message)

    def _read(self) -> list[str]:
        """Return the latest prompts in the file without consecutive duplicates; damaged lines are skipped."""
        with os.fdopen(open_regular_file(self.path), "rb") as file:
            file.seek(max(0, file.seek(0, 2) - MAX_BYTES))
            if file.tell():
                file.readline()
            lines = file.read().splitlines()
        entries: list[str] = []
        for line in lines:
            try:
                text = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(text, str) and text.strip() and entries[-1:] != [text]:
                entries.append(text)
        return entries[-self._max_entries :]


class HistoryNavigator:
    """Cursor over the older prompts that start with a draft: each text once, newest first, then back to the draft."""

    def __init__(self, entries: Sequence[str], draft: str) -> None:
        unique = dict.fromkeys(entry for entry in reversed(entries) if entry.startswith(draft))
        self.draft = draft
        self._texts = [draft, *(text for text in unique if text != draft)]
        self._index = 0

    def move(self, step: int) -> str | None:
        """Move to the next older (1) or newer (-1) prompt and return it; return None at the oldest or the draft."""
        if not 0 <= self._index + step < len(self._texts):
            return None
        self._index += step
        return self._texts[self._index]
