"""A search: its folder beside the runs of its trials, and the processes that work on it until a budget is used."""

import json
import math
import multiprocessing
import os
import re
import signal
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal

import optuna
from optuna.trial import TrialState as StudyState

from engine.config import Config
from engine.errors import ConfigError, InvalidInputError, RunError, suggest_nearest
from engine.runs.directory import MAX_CONFIG_BYTES, MAX_RUN_NAME_LENGTH, check_run_name, find_run_dirs
from engine.storage.files import default_runs_dir, read_limited, write_atomically
from engine.storage.lock import FileLock
from engine.storage.schema import decode_json
from engine.training.initial_run import INHERITED_SETTINGS, canonical_name, canonical_teachers, load_training_input
from engine.training.job import with_absolute_paths
from engine.training.search.space import SearchSpace, parse_space
from engine.training.search.study import (
    NUM_RANDOM_TRIALS,
    RECORD,
    TRIALS_FILE,
    Limits,
    SearchPlan,
    TrialRecord,
    have_failed,
    open_study,
    read_records,
    to_record,
    typical_seconds,
)
from engine.training.search.worker import run_worker

SEARCH_FILE, TRAINING_FILE, LOCK_FILE = "search.json", "training.json", "lock"
MAX_NAME_LENGTH = MAX_RUN_NAME_LENGTH - 40
"""The names of its runs add a number and a split."""
POLL_INTERVAL = 0.2
"""Maximum seconds between two looks at the clock and at the trials."""
EXIT_TIMEOUT = 10.0
"""Seconds that a worker has to save and stop its trial after the end of the search, before it is killed."""
NVIDIA_DEVICE = Path("/dev/nvidiactl")
EndReason = Literal["budget", "trials", "interrupted", "exhausted", "failures"]


@dataclass(frozen=True)
class Budget:
    """Limits of a search; whichever is reached first ends it."""

    seconds: float = math.inf
    num_trials: float = math.inf
    """Number of trials to start."""


@dataclass(frozen=True)
class _SearchFile:
    """Content of `search.json`."""

    space: list[str]
    split_seeds: list[int]
    corpus_sha256: str


class Search:
    """A search in its folder, locked by this process until `close`."""

    def __init__(self, path: Path, plan: SearchPlan, lock: FileLock) -> None:
        """Open the study in `path`; a damaged one raises a RunError."""
        self.path, self.plan, self._lock = path, plan, lock
        _cut_torn_line(path / TRIALS_FILE)
        self._study = open_study(path, plan, plan.config.training.seed)
        self._end_running()

    @classmethod
    def create(cls, name: str, runs_dir: Path | None, plan: SearchPlan) -> "Search":
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
        content = _SearchFile(plan.space.assignments, list(plan.split_seeds), plan.corpus_sha256)
        try:
            path.mkdir(parents=True)
            lock = _acquire_lock(path)
            write_atomically(path / TRAINING_FILE, plan.config.to_json().encode())
            write_atomically(path / SEARCH_FILE, json.dumps(asdict(content), indent=2).encode())
        except OSError as error:
            raise RunError(
                f"runs folder {runs_dir} cannot be written: {error.strerror}; choose another with --runs-dir"
            ) from error
        return cls(path, plan, lock)

    @classmethod
    def open(cls, name: str, runs_dir: Path | None) -> "Search":
        """Open the folder of a search, to resume it.

        Raises:
            InvalidInputError: If there is no such search, it is damaged, another process runs it, or its corpus has
                changed.
        """
        runs_dir = runs_dir or default_runs_dir()
        path = runs_dir / name
        if not (path / SEARCH_FILE).is_file():
            names = [file.parent.name for file in runs_dir.glob(f"*/{SEARCH_FILE}")]
            raise RunError(f"there is no search {name!r} in {runs_dir}{suggest_nearest(name, names)}")
        lock = _acquire_lock(path)
        try:
            plan = _read_plan(path)
        except OSError as error:
            raise RunError(f"search {name!r} in {runs_dir} cannot be opened: {error.strerror}") from error
        except (InvalidInputError, UnicodeDecodeError) as error:
            raise RunError(
                f"search {name!r} in {runs_dir} is damaged ({error}); start a new one; its runs are not affected"
            ) from error
        if load_training_input(plan.config, runs_dir).dataset.corpus.sha256 != plan.corpus_sha256:
            raise ConfigError(
                f"{plan.config.data.corpus} has changed since the search was started; restore the file, or start a "
                "new one"
            )
        return cls(path, plan, lock)

    def close(self) -> None:
        self._lock.release()

    def records(self) -> list[TrialRecord]:
        """Return all trials by number, including trials of earlier budgets."""
        return read_records(self._study)

    def best(self) -> TrialRecord | None:
        """Return the complete trial with the lowest perplexity, or None if no trial is complete."""
        complete = [record for record in self.records() if record.state == "complete"]
        return min(complete, key=lambda record: record.valid_perplexity or math.inf, default=None)

    def importances(self) -> dict[str, float]:
        """Return the importance of each setting (PED-ANOVA), highest first; {} with too few complete trials."""
        complete = [record for record in self.records() if record.state == "complete"]
        if len(complete) < NUM_RANDOM_TRIALS or len(self.plan.space.distributions) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(self._study, evaluator=evaluator)

    def run(
        self, budget: Budget, num_jobs: int, cancelled: Callable[[], bool]
    ) -> Generator[tuple[TrialRecord, float], None, EndReason]:
        """Try settings in `num_jobs` processes until the budget is used or `cancelled` returns True.

        Yield each trial when it has ended, and the seconds that are left. Trials that are still trained at the end are
        saved and stopped; a search that is resumed trains them first. Return why the search has ended.
        """
        records = self.records()
        limits = Limits(time.monotonic() + budget.seconds, len(records) + budget.num_trials, len(records))
        self._enqueue_unfinished(records)
        context = multiprocessing.get_context("spawn")  # not forked: torch's threads do not survive a fork
        stop, lock = context.Event(), context.Lock()
        workers = [
            context.Process(target=run_worker, args=(self.path, self.plan, limits, index, stop, lock))
            for index in range(num_jobs)
        ]
        # A ctrl+c while a worker still imports would end it with a traceback; an ignored signal stays ignored.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for worker in workers:
                worker.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        reason: EndReason | None = None
        shown = {record.number: record for record in records}
        try:
            while running := [worker.sentinel for worker in workers if worker.is_alive()]:
                wait(running, POLL_INTERVAL)
                if reason is None and (cancelled() or not limits.seconds_left):
                    reason = "interrupted" if limits.seconds_left else "budget"
                    stop.set()
                for record in self.records():
                    if record.state != "running" and record != shown.get(record.number):
                        shown[record.number] = record
                        yield record, limits.seconds_left
        finally:
            stop.set()  # the caller may have left
            for worker in workers:
                worker.join(EXIT_TIMEOUT)
                worker.kill()
                worker.join()
        if exit_code := next((worker.exitcode for worker in workers if worker.exitcode), 0):
            name = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
            for record in self._end_running():
                yield replace(record, message=f"its process ended {name}; fewer --jobs need less memory"), 0.0
            return reason or "failures"
        return reason or self._end_reason(limits)

    def _end_reason(self, limits: Limits) -> EndReason:
        """Return why the workers have ended by themselves."""
        records = self.records()
        if have_failed(records, limits):
            return "failures"
        if len(records) >= limits.num_trials:
            return "trials"
        return "budget" if limits.seconds_left < typical_seconds(records) else "exhausted"

    def _end_running(self) -> list[TrialRecord]:
        """End and return the trials whose worker is gone; they count as stopped."""
        running = self._study.get_trials(deepcopy=False, states=[StudyState.RUNNING])
        for trial in running:
            self._study.tell(trial.number, state=StudyState.FAIL)
        return [replace(to_record(trial), state="stopped") for trial in running if RECORD in trial.user_attrs]

    def _enqueue_unfinished(self, records: list[TrialRecord]) -> None:
        """Let a worker continue each trial that was stopped."""
        waiting = self._study.get_trials(deepcopy=False, states=[StudyState.WAITING])
        numbers = {to_record(trial).number for trial in waiting}
        for record in records:
            if record.state == "stopped" and record.number not in numbers:
                self._study.enqueue_trial(record.settings, {RECORD: asdict(record)})


def make_plan(
    config: Config, space: SearchSpace, split_seeds: Sequence[int] = (), runs_dir: Path | None = None
) -> SearchPlan:
    """Read the corpus, check that the space fits the configuration, and return the plan.

    Without `split_seeds`, trials are trained on the split of `config`.

    Raises:
        InvalidInputError: If the input is unusable.
    """
    if not space.distributions:
        raise ConfigError(
            "nothing to search: give at least one --set a range or a choice, such as --set lr=0.002..0.02 or "
            "--set optimizer=adamw,sgd"
        )
    if split_seeds and config.data.valid_corpus:
        raise ConfigError("--split-seeds has no effect on a corpus that is already split; omit it")
    config = with_absolute_paths(config)
    training = config.training
    for name in space.distributions:
        if training.init and name in INHERITED_SETTINGS:
            raise ConfigError(f"{name} cannot be searched: run {training.init!r}, where training starts, determines it")
    # The name "latest" would mean the trial before.
    if training.init:
        config = config.with_values(init=canonical_name(training.init, runs_dir))
    if training.teachers:
        config = config.with_values(teachers=canonical_teachers(training.teacher_names, runs_dir))
    seeds = tuple(split_seeds) or (config.data.split_seed,)
    config = config.with_values(split_seed=seeds[0])
    return SearchPlan(config, space, seeds, load_training_input(config, runs_dir).dataset.corpus.sha256)


def default_num_jobs(config: Config) -> int:
    """Return the number of trainings that run at the same time by default: one per core, or one on a GPU."""
    device = config.training.device
    uses_gpu = device in ("cuda", "mps") or (device == "auto" and NVIDIA_DEVICE.exists())
    return 1 if uses_gpu else os.cpu_count() or 1


def _cut_torn_line(file: Path) -> None:
    """Cut a last line that a killed process or a full disk left incomplete, to which optuna would append."""
    with suppress(FileNotFoundError), file.open("r+b") as lines:
        content = lines.read()
        lines.truncate(content.rfind(b"\n") + 1)


def _acquire_lock(path: Path) -> FileLock:
    lock = FileLock(path / LOCK_FILE)
    try:
        if not lock.acquire():
            raise RunError(f"another process runs the search in {path}; wait until it ends, or stop it")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error
    return lock


def _read_plan(path: Path) -> SearchPlan:
    file = decode_json(_SearchFile, read_limited(path / SEARCH_FILE, MAX_CONFIG_BYTES))
    text = read_limited(path / TRAINING_FILE, MAX_CONFIG_BYTES).decode()
    fixed, space = parse_space(file.space)
    if fixed or not space.distributions or not file.split_seeds:
        raise ConfigError(f"{SEARCH_FILE} has no range, or no seed of a split")
    return SearchPlan(Config.from_json(text, TRAINING_FILE), space, tuple(file.split_seeds), file.corpus_sha256)
