"""Hyperparameter search: a study of optuna in a folder, whose trials worker processes train as ordinary runs."""

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
from functools import cached_property
from multiprocessing.connection import wait
from multiprocessing.synchronize import Event, Lock
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import optuna
from msgspec import Meta, convert
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend

from engine.config import SETTINGS, Config, read_setting, split_assignment
from engine.control import ControlCommand
from engine.errors import ConfigError, InvalidInputError, RunError, TrainingError, describe_error, suggest_nearest
from engine.events import Evaluated, Finished, Warned
from engine.runs import directory
from engine.storage.files import decode, default_runs_dir, lock_file, open_regular_file, read_limited, write_atomically
from engine.training.job import INHERITED_SETTINGS, canonical_config, load_training_input, prepare_job, resume_job

SEARCH_FILE, TRIALS_FILE, LOCK_FILE = "search.json", "trials.log", "lock"
MAX_NAME_LENGTH = directory.MAX_RUN_NAME_LENGTH - 8  # the names of its runs add a number
POLL_INTERVAL = 0.2  # maximum seconds between two looks at the clock and at the trials
EXIT_TIMEOUT = 10.0  # seconds that a worker has to save and stop its trial before it is killed
NVIDIA_DEVICE = Path("/dev/nvidiactl")
RECORD = "record"  # attribute of a trial with its `TrialRecord`; proposals that were tried before have none
MAX_FAILURES = 5  # trials in a row that diverge or fail, after which the search ends
MAX_DUPLICATES = 20  # proposals in a row that were tried before, after which the space counts as exhausted
NUM_RANDOM_TRIALS = 10  # before the model of optuna's TPE sampler is used
SIGNIFICANT_DIGITS = 4  # of the numbers that are tried, so that a printed setting is exactly the one that was trained
# Fraction of a run after which trials are compared, and the worse half ends. Kendall's tau of the order of 14 trials
# then and at the end was 0.05 after a quarter, 0.45 after half and 0.80 after two thirds.
COMPARED_AT = 0.66
LOGARITHMIC_RATIO = 5  # ratio of the ends of a range from which it is logarithmic, unless the setting is a fraction
SCALES = {"log": True, "linear": False}  # marks after a range, as in `lr=0.002..0.02:log`
NOT_COMPARABLE = ("max_eval_tokens", "validation_metric")  # they change what the validation perplexity is
# Settings whose best value would say nothing about the model.
NOT_OF_THE_MODEL = (
    "seed", "device", "threads", "score_test", "keep_epoch_checkpoints", "checkpoint_seconds", "sample_seed",
    "sample_temperature", "eval_every_epochs", "eval_every_steps",
)  # fmt: skip
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

Value = bool | int | float | str
TrialState = Literal["running", "complete", "pruned", "diverged", "failed", "stopped"]
EndReason = Literal["budget", "trials", "interrupted", "exhausted", "failures"]


@dataclass(frozen=True)
class SearchPlan:
    """Everything that determines a search, except for its budget: the content of `search.json`."""

    config: Config
    space: tuple[str, ...]  # assignments that `parse_space` reads
    corpus_sha256: str

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        return parse_space(self.space)

    def round(self, params: dict[str, Any]) -> dict[str, Value]:
        rounded = dict(params)
        for name, distribution in self.distributions.items():
            if isinstance(distribution, FloatDistribution):
                value = float(f"{params[name]:.{SIGNIFICANT_DIGITS}g}")
                rounded[name] = min(max(value, distribution.low), distribution.high)
        return rounded


@dataclass(frozen=True)
class Budget:
    """Limits of a search; whichever is reached first ends it."""

    seconds: float = math.inf
    num_trials: float = math.inf  # to start
    num_earlier: int = 0  # trials of earlier budgets, whose failures do not end the search


@dataclass(frozen=True)
class TrialRecord:
    """One trial: its settings, its run and its result so far."""

    number: Annotated[int, Meta(ge=0, le=1_000_000)]
    state: TrialState
    settings: dict[str, Value]
    run: str
    valid_perplexity: Annotated[float, Meta(ge=1)] | None = None  # best so far
    fraction: Annotated[float, Meta(ge=0, le=1)] = 0.0
    seconds: Annotated[float, Meta(ge=0)] = 0.0
    message: str = ""  # reason for a failure, or the last warning


class Search:
    """A search in its folder, locked by this process until `close`."""

    def __init__(self, path: Path, plan: SearchPlan) -> None:
        self.path, self.plan = path, plan
        try:
            self._lock = lock_file(path / LOCK_FILE)
            # A killed process or a full disk left the last line incomplete, to which optuna would append.
            trials = path / TRIALS_FILE
            with suppress(FileNotFoundError), os.fdopen(open_regular_file(trials, os.O_RDWR), "r+b") as lines:
                lines.truncate(lines.read().rfind(b"\n") + 1)
        except BlockingIOError as error:
            raise RunError(f"another process runs the search in {path}; wait until it ends, or stop it") from error
        except OSError as error:
            raise RunError(f"{error.filename or path} cannot be written: {error.strerror}") from error
        self._study = open_study(path, plan, plan.config.training.seed)
        self._end_running()

    @classmethod
    def create(cls, name: str, runs_dir: Path | None, plan: SearchPlan) -> "Search":
        """Create the folder of a new search beside its runs; a name that is invalid or taken raises a RunError."""
        runs_dir = runs_dir or default_runs_dir()
        path, trial_name = runs_dir / name, re.compile(rf"{re.escape(name)}-\d{{3,}}")
        directory.check_run_name(name)
        if len(name) > MAX_NAME_LENGTH:
            raise RunError(f"--name {name} is too long for the names of its runs; use {MAX_NAME_LENGTH} characters")
        if path.exists() or any(trial_name.fullmatch(run.name) for run in directory.find_run_dirs(runs_dir)):
            raise RunError(
                f"{runs_dir} has a search or runs named {name}; continue it with --resume, or choose another --name"
            )
        try:
            path.mkdir(parents=True)
            write_atomically(path / SEARCH_FILE, json.dumps(asdict(plan), indent=2).encode())
            return cls(path, plan)
        except OSError as error:
            raise RunError(
                f"runs folder {runs_dir} cannot be written: {error.strerror}; choose another with --runs-dir"
            ) from error

    @classmethod
    def open(cls, name: str, runs_dir: Path | None) -> "Search":
        """Open a search to resume it; one that is damaged, running or missing raises an InvalidInputError."""
        runs_dir = runs_dir or default_runs_dir()
        path = runs_dir / name
        if not (path / SEARCH_FILE).is_file():
            names = [file.parent.name for file in runs_dir.glob(f"*/{SEARCH_FILE}")]
            raise RunError(f"there is no search {name!r} in {runs_dir}{suggest_nearest(name, names)}")
        try:
            # Unlike msgspec, json reads the surrogates of a path that is not UTF-8.
            plan = decode(SearchPlan, json.loads(read_limited(path / SEARCH_FILE, directory.MAX_FILE_BYTES)))
            if not plan.distributions:
                raise ConfigError("no range")
        except (InvalidInputError, OSError, ValueError, RecursionError) as error:
            raise RunError(
                f"search {name!r} in {runs_dir} is damaged ({error}); start a new one; its runs are not affected"
            ) from error
        if load_training_input(plan.config, runs_dir).dataset.corpus.sha256 != plan.corpus_sha256:
            raise ConfigError(
                f"{plan.config.data.corpus} has changed since the search was started; restore the file, or start a "
                "new one"
            )
        return cls(path, plan)

    def close(self) -> None:
        self._lock.close()

    def records(self) -> list[TrialRecord]:
        return read_records(self._study)

    def best(self) -> TrialRecord | None:
        complete = [record for record in self.records() if record.state == "complete"]
        return min(complete, key=lambda record: record.valid_perplexity or math.inf, default=None)

    def run(
        self, budget: Budget, num_jobs: int, cancelled: Callable[[], bool]
    ) -> Generator[tuple[TrialRecord, float], None, EndReason]:
        """Try settings in `num_jobs` processes until the budget is used or `cancelled` returns True.

        Yield each trial when it has ended, and the seconds that are left. Trials that are still trained at the end are
        saved and stopped; a search that is resumed trains them first. Return why the search has ended.
        """
        end_time = time.monotonic() + budget.seconds
        shown = {record.number: record for record in self.records()}
        budget = replace(budget, num_earlier=len(shown))
        waiting = self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.WAITING])
        enqueued = {to_record(trial).number for trial in waiting}
        for record in shown.values():
            if record.state == "stopped" and record.number not in enqueued:
                self._study.enqueue_trial(record.settings, {RECORD: asdict(record)})
        context = multiprocessing.get_context("spawn")  # not forked: torch's threads do not survive a fork
        stop, lock = context.Event(), context.Lock()
        workers = [
            context.Process(target=run_worker, args=(self.path, self.plan, budget, index, stop, lock))
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
        try:
            while running := [worker.sentinel for worker in workers if worker.is_alive()]:
                wait(running, POLL_INTERVAL)
                seconds_left = max(0.0, end_time - time.monotonic())
                if reason is None and (cancelled() or not seconds_left):
                    reason = "interrupted" if seconds_left else "budget"
                    stop.set()
                for record in self.records():
                    if record.state != "running" and record != shown.get(record.number):
                        shown[record.number] = record
                        yield record, seconds_left
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
        if reason is None and have_failed(self.records(), budget):
            return "failures"
        return reason or ("trials" if len(self.records()) - budget.num_earlier >= budget.num_trials else "exhausted")

    def _end_running(self) -> list[TrialRecord]:
        """End and return the trials whose worker is gone; they count as stopped."""
        running = self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
        for trial in running:
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return [replace(to_record(trial), state="stopped") for trial in running if RECORD in trial.user_attrs]


def make_plan(config: Config, space: Sequence[str], runs_dir: Path | None = None) -> SearchPlan:
    """Read the corpus, check that the assignments `space` fit the configuration, and return the plan."""
    if not space:
        raise ConfigError(
            "nothing to search: give at least one --set a range or a choice, such as --set lr=0.002..0.02"
        )
    training = config.training
    for name in parse_space(space):
        if training.init and name in INHERITED_SETTINGS:
            raise ConfigError(f"{name} cannot be searched: run {training.init!r}, where training starts, determines it")
    config = canonical_config(config, runs_dir)  # the name "latest" would mean the trial before
    return SearchPlan(config, tuple(space), load_training_input(config, runs_dir).dataset.corpus.sha256)


def split_space(assignments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the assignments of single values, as all of a text are, and of ranges and choices; the last one counts."""
    fixed: list[str] = []
    searched: list[str] = []
    for name, assignment in {split_assignment(assignment)[0]: assignment for assignment in assignments}.items():
        text = split_assignment(assignment)[1]
        is_searched = SETTINGS[name].type is not str and (".." in text or "," in text)
        (searched if is_searched else fixed).append(assignment)
    return fixed, searched


def parse_space(assignments: Sequence[str]) -> dict[str, BaseDistribution]:
    """Return the distribution of each range `key=low..high` or choice `key=a,b,c`; an invalid one raises a ConfigError.

    A range over a factor of 5 is logarithmic unless the setting is a fraction; `:log` or `:linear` after it says which.
    """
    distributions: dict[str, BaseDistribution] = {}
    for assignment in assignments:
        name, text = split_assignment(assignment)
        section, plain_type, meta = SETTINGS[name]
        if section == "data" or name in NOT_COMPARABLE:
            raise ConfigError(
                f"{assignment} cannot be searched: it changes the text that is scored, or how, and such perplexities "
                f"do not compare; give {name} one value"
            )
        if name in NOT_OF_THE_MODEL:
            raise ConfigError(f"{assignment} cannot be searched: no value makes a better model; give {name} one value")
        if ".." in text:
            distributions[name] = _parse_range(name, text, plain_type, meta)
            continue
        values = [read_setting(name, value.strip(), is_text=True) for value in text.split(",")]
        if len(set(values)) < len(values):
            raise ConfigError(f"{name}={text} has a value twice; give each value once")
        distributions[name] = CategoricalDistribution(values)
    return distributions


def describe_distribution(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return f"{distribution.low:g} to {distribution.high:g}{', logarithmic' if distribution.log else ''}"


def _parse_range(name: str, text: str, plain_type: Any, meta: Meta) -> BaseDistribution:
    if plain_type not in (int, float):
        values = ("true", "false") if plain_type is bool else get_args(plain_type)
        raise ConfigError(f"{name}={text} is a range, but {name} is no number; use {name}={','.join(values)}")
    numbers, _, scale = text.partition(":")
    if scale and scale not in SCALES:
        raise ConfigError(f"{name}={text} has the scale {scale!r}; use log or linear, or leave it out")
    first, _, last = (part.strip() for part in numbers.partition(".."))
    low, high = (read_setting(name, end, is_text=True) for end in (first, last))
    if low > high:
        raise ConfigError(f"{name}={text} is reversed; use {name}={last}..{first}")
    if low == high:
        raise ConfigError(f"{name}={text} has one value; use {name}={first}")
    is_fraction = meta.le is not None and meta.le <= 1
    is_logarithmic = SCALES.get(scale, low > 0 and high / low >= LOGARITHMIC_RATIO and not is_fraction)
    if is_logarithmic and low <= 0:
        raise ConfigError(f"{name}={text} starts at {low:g}, which has no logarithm; use a start above 0, or :linear")
    kind = IntDistribution if plain_type is int else FloatDistribution
    return kind(low, high, log=is_logarithmic)


def default_num_jobs(config: Config) -> int:
    """Return the number of trainings that run at the same time by default: one per core, or one on a GPU."""
    device = config.training.device
    uses_gpu = device in ("cuda", "mps") or (device == "auto" and NVIDIA_DEVICE.exists())
    return 1 if uses_gpu else os.cpu_count() or 1


def open_study(path: Path, plan: SearchPlan, seed: int) -> optuna.Study:
    """Return the study in a folder: multivariate TPE and successive halving. A damaged file raises a RunError."""
    file = path / TRIALS_FILE
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(file))),
            sampler=optuna.samplers.TPESampler(
                n_startup_trials=NUM_RANDOM_TRIALS, multivariate=True, constant_liar=True, seed=seed
            ),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
            study_name="search",
            load_if_exists=True,
        )
        if any(record.settings.keys() != plan.distributions.keys() for record in read_records(study)):
            raise ValueError("it has trials of another search")
    except OSError as error:
        raise RunError(f"{file} cannot be read and written: {error.strerror}") from error
    except Exception as error:  # optuna does not check its file
        raise RunError(f"{file} is damaged ({error}); start a new search; the runs are not affected") from error
    return study


def read_records(study: optuna.Study) -> list[TrialRecord]:
    """Return the latest record of each trial by number, stopped if its worker was killed."""
    records = {}
    for trial in study.get_trials(deepcopy=False):
        if RECORD in trial.user_attrs:
            record = to_record(trial)
            is_killed = record.state == "running" and trial.state == optuna.trial.TrialState.FAIL
            records[record.number] = replace(record, state="stopped") if is_killed else record
    return [records[number] for number in sorted(records)]


def to_record(trial: optuna.Trial | optuna.trial.FrozenTrial) -> TrialRecord:
    return convert(trial.user_attrs[RECORD], TrialRecord)


def have_failed(records: list[TrialRecord], budget: Budget) -> bool:
    states = [record.state for record in records[budget.num_earlier :] if record.state not in ("running", "stopped")]
    return len(states) >= MAX_FAILURES and set(states[-MAX_FAILURES:]) <= {"diverged", "failed"}


def propose(
    study: optuna.Study, plan: SearchPlan, budget: Budget, name: str
) -> tuple[optuna.Trial, TrialRecord] | None:
    """Return a trial to continue, or a new one with settings that were not tried; None if there is none."""
    records = read_records(study)
    if have_failed(records, budget):
        return None
    is_used = len(records) - budget.num_earlier >= budget.num_trials
    if is_used and not study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.WAITING]):
        return None
    # The settings of a trial that failed, for example on a full disk, may be proposed again.
    tried = [record.settings for record in records if record.state != "failed"]
    for _ in range(MAX_DUPLICATES):
        trial = study.ask(plan.distributions)
        if RECORD in trial.user_attrs:
            return trial, replace(to_record(trial), state="running")
        if (settings := plan.round(trial.params)) not in tried:
            break
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        return None
    record = TrialRecord(len(records), "running", settings, f"{name}-{len(records):03}")
    trial.set_user_attr(RECORD, asdict(record))
    return trial, record


def run_worker(path: Path, plan: SearchPlan, budget: Budget, index: int, stop: Event, lock: Lock) -> None:
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(signal_number, signal.SIG_IGN)  # the process of the search handles signals
    search = multiprocessing.parent_process()

    def is_stopped() -> bool:
        return stop.is_set() or (search is not None and not search.is_alive())

    with lock:
        study = open_study(path, plan, plan.config.training.seed + index)
    while not is_stopped():
        with lock:  # no two workers propose the same
            proposal = propose(study, plan, budget, path.name)
        if proposal is None:
            return
        trial, record = proposal
        result = train_trial(plan, path.parent, trial, record, is_stopped)
        if result.state == "complete":
            study.tell(trial, result.valid_perplexity)
        else:  # later proposals avoid settings that diverged or were pruned
            is_bad = result.state in ("pruned", "diverged")
            study.tell(trial, state=optuna.trial.TrialState.PRUNED if is_bad else optuna.trial.TrialState.FAIL)


def train_trial(
    plan: SearchPlan, runs_dir: Path, trial: optuna.Trial, record: TrialRecord, is_stopped: Callable[[], bool]
) -> TrialRecord:
    started_at = time.monotonic() - record.seconds
    is_compared = False

    def save(**changes: Any) -> None:
        nonlocal record
        record = replace(record, seconds=time.monotonic() - started_at, **changes)
        trial.set_user_attr(RECORD, asdict(record))

    try:
        run_dir = directory.find_run(record.run, runs_dir)
        if run_dir is None:
            training = plan.config.training
            config = plan.config.with_values(
                **record.settings, threads=training.threads or 1, score_test=False, keep_epoch_checkpoints=False
            )
            job, best = prepare_job(config, record.run, runs_dir), math.inf
        else:  # of an earlier budget
            summary = directory.summarize_run(run_dir)
            best = summary.valid_perplexity or math.inf
            if summary.state in directory.COMPLETE:
                save(state="pruned" if summary.state == "pruned" else "complete", valid_perplexity=best, fraction=1.0)
                return record
            has_checkpoint = (run_dir / directory.RESUME_FILE).exists()
            job = resume_job(record.run, runs_dir, restart=not has_checkpoint)
        epochs = job.config.training.epochs + job.config.training.fine_tune_epochs
        for event in job.events(is_stopped):
            match event:
                case Evaluated():
                    best, fraction = min(best, event.valid_perplexity), min(1.0, event.epoch / epochs)
                    save(valid_perplexity=best, fraction=fraction)
                    if COMPARED_AT <= fraction < 1 and not is_compared:
                        is_compared = True
                        trial.report(best, 1)
                        if trial.should_prune():
                            job.command_queue.send(ControlCommand("prune"))
                case Warned():
                    save(message=event.message)
                case Finished(reason="stopped" | "detached"):
                    save(state="stopped")
                case Finished(reason="pruned"):
                    save(state="pruned")
                case Finished():
                    save(state="complete", fraction=1.0)
    except TrainingError as error:
        if not is_compared:
            trial.report(math.inf, 1)
        save(state="diverged", message=describe_error(error))
    except Exception as error:  # whatever ends a trial, the search continues
        save(state="failed", message=describe_error(error))
    return record
