"""Progress of a student in the class, and the file that keeps it."""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path

from engine.errors import InvalidInputError, RunError
from engine.storage.files import app_home, lock_file, read_limited, write_atomically
from lotr_tui.session.json_store import FailureReporter, decode_versioned, os_error_reason, quarantine_file

VERSION = 1
MAX_PROGRESS_BYTES = 100_000
LOCK_TIMEOUT = 2.0  # seconds to wait for another session that writes the file


@dataclass(frozen=True)
class Progress:
    """Names of the chapters that are done, of the one that was open last, and finished parts of the tasks by name."""

    done: tuple[str, ...] = ()
    last: str = ""
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def merged_with(self, change: "Progress | None") -> "Progress":
        """Return the progress after additions; None begins the class again."""
        if change is None:
            return Progress()
        parts = {
            name: tuple(sorted({*self.parts.get(name, ()), *change.parts.get(name, ())}))
            for name in {**self.parts, **change.parts}
        }
        return Progress(tuple(dict.fromkeys((*self.done, *change.done))), change.last or self.last, parts)

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Progress":
        return decode_versioned(cls, text, VERSION)


def progress_file() -> Path:
    """Return the path of the progress file."""
    return app_home() / "learn.json"


class ProgressStore:
    """Current progress and its file, which several sessions may share.

    A session writes only its own additions, under a lock, so that no chapter of another session is lost. `save` may run
    in another thread.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Read the file at `path`, or begin the class; `notice` says why a file could not be read."""
        self.path = path or progress_file()
        self._failures = FailureReporter()
        self._save_lock = threading.Lock()
        self._state_lock = threading.Lock()  # held while `current` and `_unsaved` change together
        self._unsaved: list[Progress | None] = []  # oldest first; None begins the class again
        stored, self.notice = self._read()
        self.current = stored or Progress()

    @property
    def has_unsaved_changes(self) -> bool:
        """True if a change was not written yet."""
        return bool(self._unsaved)

    def add(self, *, done: str = "", last: str = "", parts: Mapping[str, tuple[int, ...]] | None = None) -> None:
        """Record that a chapter is done, or open, or that parts of its task are finished; `save` writes it."""
        self._change(Progress((done,) if done else (), last, parts or {}))

    def reset(self) -> None:
        """Begin the class again; `save` writes it."""
        self._change(None)

    def _change(self, change: Progress | None) -> None:
        with self._state_lock:
            self.current = self.current.merged_with(change)
            self._unsaved.append(change)

    def save(self) -> str:
        """Write the additions. Return a line for the user, "" if there is nothing to report.

        If the file cannot be written, the first failure is reported, and the next `save` tries again.
        """
        with self._save_lock:
            if not self._unsaved:
                return ""
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with lock_file(self.path.with_name(f".{self.path.name}.lock"), LOCK_TIMEOUT):
                    notice, problem = self._merge()
            except BlockingIOError:  # the other session may have been suspended
                notice, problem = "", "another session is writing the file"
            except (OSError, RunError) as error:
                notice, problem = "", os_error_reason(error if isinstance(error, OSError) else error.__cause__)
            if problem:
                return self._failures.report(f"progress is not saved: {self.path}: {problem}")
            self._failures.report("")
            return notice

    def _merge(self) -> tuple[str, str]:
        """Add to the stored progress; return a line about a damaged file, and why nothing could be written."""
        stored, notice = self._read()
        if notice and os.path.lexists(self.path):
            return "", "it cannot be read"  # a file that could not be set aside must not be overwritten
        with self._state_lock:
            written, current = list(self._unsaved), self.current
        # A file that is gone is written again in full.
        merged = reduce(Progress.merged_with, written, stored or current)
        write_atomically(self.path, merged.to_json().encode())
        with self._state_lock:
            del self._unsaved[: len(written)]
            self.current = reduce(Progress.merged_with, self._unsaved, merged)
        return notice, ""

    def _read(self) -> tuple[Progress | None, str]:
        try:
            return Progress.from_json(read_limited(self.path, MAX_PROGRESS_BYTES).decode()), ""
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"{self.path} cannot be read: {os_error_reason(error)}; the class begins again"
        except (ValueError, InvalidInputError) as error:
            return None, f"{quarantine_file(self.path, error)}; the class begins again"
