"""Folder of a search: its plan, and a record of each trial, from which a resumed search continues."""

import json
import re
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from engine.config import Config
from engine.errors import ConfigError, InvalidInputError, RunError, suggest_nearest
from engine.runs.directory import MAX_CONFIG_BYTES, MAX_RUN_NAME_LENGTH, check_run_name, find_run_dirs
from engine.storage.files import default_runs_dir, read_limited, write_atomically
from engine.storage.json_lines import JsonLinesAppender
from engine.storage.lock import FileLock
from engine.storage.schema import decode_json
from engine.training.search.plan import SearchPlan
from engine.training.search.space import Value, parse_space

SEARCH_FILE, TRAINING_FILE, TRIALS_FILE, LOCK_FILE = "search.json", "training.json", "trials.jsonl", "lock"
MAX_TRIALS_BYTES = 20_000_000
MAX_NAME_LENGTH = MAX_RUN_NAME_LENGTH - 40
"""Maximum characters of a search's name. The names of its runs add a number and a split."""

Perplexity = Annotated[float, Meta(ge=1)]
TrialState = Literal["running", "complete", "pruned", "diverged", "failed", "stopped"]
UNFINISHED: tuple[TrialState, ...] = ("running", "stopped")
"""States of a trial that a resumed search trains further; a running one was killed."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial: its settings, its runs and its result so far."""

    number: Annotated[int, Meta(ge=0, le=1_000_000)]
    state: TrialState
    settings: dict[str, Value]
    """Values of the settings that are searched."""
    runs: list[str]
    """Names of its runs, one for each split."""
    perplexities: list[Perplexity] = field(default_factory=list)
    """Best validation perplexity of each run that is complete."""
    reports: list[tuple[Annotated[float, Meta(gt=0)], Perplexity]] = field(default_factory=list)
    """Number of runs, with fraction, and the best validation perplexity until then, as geometric mean over the runs."""
    seconds: Annotated[float, Meta(ge=0)] = 0.0
    message: str = ""
    """Reason for a failure."""

    @property
    def value(self) -> float | None:
        """Latest reported perplexity; None without any."""
        return self.reports[-1][1] if self.reports else None


@dataclass(frozen=True)
class _SearchFile:
    """Content of `search.json`."""

    space: list[str]
    split_seeds: list[int]
    corpus_sha256: str


class SearchFolder:
    """Folder of a search, locked by this process until `close`."""

    def __init__(self, path: Path, plan: SearchPlan, lock: FileLock) -> None:
        """Read the records in `path`, and prepare to append others.

        Raises:
            RunError: If the file of the records cannot be read or written.
        """
        self.path = path
        self.plan = plan
        self._lock = lock
        try:
            self.records, self.num_damaged = self._read_records()
            """Latest record of each trial by its number, and the number of lines that are no records."""
            self._appender = JsonLinesAppender(path / TRIALS_FILE)
        except OSError as error:
            raise RunError(f"{path / TRIALS_FILE} cannot be read and written: {error.strerror}") from error

    @classmethod
    def create(cls, name: str, runs_dir: Path | None, plan: SearchPlan) -> "SearchFolder":
        """Create the folder of a new search, beside its runs.

        Raises:
            RunError: If the name is invalid or taken, or the folder cannot be written.
        """
        runs_dir = runs_dir or default_runs_dir()
        check_run_name(name)
        if len(name) > MAX_NAME_LENGTH:
            raise RunError(f"--name {name} is too long for the names of its runs; use {MAX_NAME_LENGTH} characters")
        path = runs_dir / name
        if (path / SEARCH_FILE).exists():
            raise RunError(f"search {name!r} exists in {runs_dir}; continue it with --resume, or choose another --name")
        trial_name = re.compile(rf"{re.escape(name)}-\d{{3,}}(-split\d+)?")
        if path.exists() or any(trial_name.fullmatch(run.name) for run in find_run_dirs(runs_dir)):
            raise RunError(f"{runs_dir} has a run {name!r} or {name}-000 already; choose another --name")
        try:
            path.mkdir(parents=True)
            lock = _acquire_lock(path)
        except OSError as error:
            raise RunError(
                f"runs folder {runs_dir} cannot be written: {error.strerror}; choose another with --runs-dir"
            ) from error
        content = _SearchFile(plan.space.to_texts(), list(plan.split_seeds), plan.corpus_sha256)
        write_atomically(path / TRAINING_FILE, plan.config.to_json().encode())
        write_atomically(path / SEARCH_FILE, json.dumps(asdict(content), indent=2).encode())
        return cls(path, plan, lock)

    @classmethod
    def open(cls, name: str, runs_dir: Path | None) -> "SearchFolder":
        """Open the folder of a search, to resume it.

        Raises:
            RunError: If there is no such search, it is damaged, or another process runs it.
        """
        runs_dir = runs_dir or default_runs_dir()
        path = runs_dir / name
        if not (path / SEARCH_FILE).is_file():
            names = [file.parent.name for file in runs_dir.glob(f"*/{SEARCH_FILE}")]
            raise RunError(f"there is no search {name!r} in {runs_dir}{suggest_nearest(name, names)}")
        try:
            lock = _acquire_lock(path)
            plan = _read_plan(path)
        except OSError as error:
            raise RunError(f"search {name!r} in {runs_dir} cannot be opened: {error.strerror}") from error
        except (InvalidInputError, UnicodeDecodeError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(
                f"search {name!r} in {runs_dir} is damaged ({error}); start a new one; its runs are not affected"
            ) from error
        return cls(path, plan, lock)

    def run_names(self, number: int) -> list[str]:
        """Return the names of the runs of a trial: NAME-007, or one for each of several splits."""
        stem, seeds = f"{self.path.name}-{number:03}", self.plan.split_seeds
        return [stem] if len(seeds) == 1 else [f"{stem}-split{seed}" for seed in seeds]

    def write(self, record: TrialRecord) -> str:
        """Append a record. Return "", or why it waits in memory, as on a full disk."""
        self.records[record.number] = record
        self._appender.append(asdict(record))
        return self._appender.problem

    def close(self) -> str:
        """Write the records that wait in memory, and release the lock. Return "", or why they could not be written."""
        self._appender.close()
        self._lock.release()
        return self._appender.problem

    def _read_records(self) -> tuple[dict[int, TrialRecord], int]:
        """Return the latest record of each trial by its number, and the number of lines that are no records."""
        records: dict[int, TrialRecord] = {}
        num_damaged = 0
        if (self.path / TRIALS_FILE).exists():
            for line in BytesIO(read_limited(self.path / TRIALS_FILE, MAX_TRIALS_BYTES)):
                if line == b"\n":  # millions of them would take a minute to decode
                    continue
                try:
                    record = decode_json(TrialRecord, line)
                except InvalidInputError:
                    num_damaged += 1
                    continue
                if record.settings in self.plan.space and record.runs == self.run_names(record.number):
                    records[record.number] = record
                else:
                    num_damaged += 1
        return dict(sorted(records.items())), num_damaged


def _acquire_lock(path: Path) -> FileLock:
    lock = FileLock(path / LOCK_FILE)
    if not lock.acquire():
        raise RunError(f"another process runs the search in {path}; wait until it ends, or stop it")
    return lock


def _read_plan(path: Path) -> SearchPlan:
    file = decode_json(_SearchFile, read_limited(path / SEARCH_FILE, MAX_CONFIG_BYTES))
    text = read_limited(path / TRAINING_FILE, MAX_CONFIG_BYTES).decode()
    fixed, space = parse_space(file.space)
    if fixed or not space.dimensions or not file.split_seeds:
        raise ConfigError(f"{SEARCH_FILE} has no range, or no seed of a split")
    return SearchPlan(Config.from_json(text, TRAINING_FILE), space, tuple(file.split_seeds), file.corpus_sha256)
