"""Progress of a student in the class, and the file that keeps it."""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engine.errors import RunError
from engine.storage.files import app_home, lock_file, write_atomically
from lotr_tui.session.settings import FailureReporter, os_error_reason, read_versioned

VERSION = 1
MAX_PROGRESS_BYTES = 100_000
LOCK_TIMEOUT = 2.0  # seconds to wait for another session that writes the file


@dataclass(frozen=True)
class Progress:
    """Names of the chapters that are done, of the one that was open last, and finished parts of the tasks by name."""

    done: tuple[str, ...] = ()
    last: str = ""
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def merged_with(self, more: "Progress") -> "Progress":
        parts = {
            name: tuple(sorted({*self.parts.get(name, ()), *more.parts.get(name, ())}))
            for name in {**self.parts, **more.parts}
        }
        return Progress(tuple(dict.fromkeys((*self.done, *more.done))), more.last or self.last, parts)

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, **asdict(self)}, indent=2) + "\n"


def progress_file() -> Path:
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
        self._save_lock, self._state_lock = threading.Lock(), threading.Lock()
        self._additions = Progress()  # since the last save
        stored, self.notice = self._read()
        self.current = stored or Progress()

    def add(self, *, done: str = "", last: str = "", parts: Mapping[str, tuple[int, ...]] | None = None) -> None:
        """Record that a chapter is done, or open, or that parts of its task are finished; `save` writes it."""
        addition = Progress((done,) if done else (), last, parts or {})
        with self._state_lock:
            self.current, self._additions = (each.merged_with(addition) for each in (self.current, self._additions))

    def save(self) -> str:
        """Write the additions, if there are any, and return a line for the user, or "".

        If the file cannot be written, the first failure is reported, and the next `save` tries again.
        """
        with self._save_lock:
            with self._state_lock:
                current, additions = self.current, self._additions
            if additions == Progress():
                return ""
            problem = ""
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with lock_file(self.path.with_name(f".{self.path.name}.lock"), LOCK_TIMEOUT):
                    stored, notice = self._read()
                    merged = current if stored is None else stored.merged_with(additions)
                    if notice and os.path.lexists(self.path):
                        problem = "it cannot be read"  # it could not be set aside, and must not be overwritten
                    else:
                        write_atomically(self.path, merged.to_json().encode())
            except BlockingIOError:  # the other session may have been suspended
                problem = "another session is writing the file"
            except (OSError, RunError) as error:
                problem = os_error_reason(error)
            if problem:
                return self._failures.report(f"progress is not saved: {self.path}: {problem}")
            self._failures.report("")
            with self._state_lock:
                if self._additions is additions:  # or else the next save merges them again, which changes nothing
                    self.current, self._additions = merged, Progress()
            return notice

    def _read(self) -> tuple[Progress | None, str]:
        return read_versioned(Progress, self.path, VERSION, MAX_PROGRESS_BYTES, "the class begins again")
