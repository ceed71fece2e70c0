"""Worker process of a search: it trains one trial after the other, as ordinary runs, and reports each validation."""

import math
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from engine.config import Config
from engine.control import ControlCommand
from engine.errors import TrainingError, describe_error
from engine.events import Evaluated, Finished, Warned
from engine.runs.directory import find_run
from engine.runs.summary import COMPLETE, summarize_run
from engine.runtime.process import limit_openmp_spinning
from engine.training.job import prepare_job, resume_job
from engine.training.search.records import TrialState
from engine.training.search.space import Value
from engine.training.transfer.initial_run import TrainingInput, load_training_input


@dataclass(frozen=True)
class Assignment:
    """Trial for a worker to train: one run for each split, the first `num_done` of which are complete."""

    number: int
    config: Config
    settings: dict[str, Value]
    """Settings of this trial, which replace the values in `config`."""
    split_seeds: tuple[int, ...]
    run_names: tuple[str, ...]
    num_done: int = 0

    def run_config(self, index: int) -> Config:
        """Return the configuration of a run, which never reads the test split.

        Raises:
            ConfigError: If the settings cannot be combined.
        """
        return self.config.with_values(
            **self.settings,
            split_seed=self.split_seeds[index],
            threads=self.config.training.threads or 1,
            score_test=False,
            keep_epoch_checkpoints=False,
        )


@dataclass(frozen=True)
class TrialProgress:
    """Report of a worker, which then waits for True to continue, or False to prune the trial."""

    run_index: int
    fraction: float
    """Fraction of the run's epochs; 1 once the run is complete."""
    perplexity: float
    """Best validation perplexity of the run so far."""


@dataclass(frozen=True)
class RunWarning:
    """Problem of a run that does not end it, such as a full disk."""

    run: str
    message: str


@dataclass(frozen=True)
class TrialEnd:
    """End of a trial; the worker then waits for the next `Assignment`."""

    state: TrialState
    message: str = ""


Message = TrialProgress | RunWarning | TrialEnd


class StopFlag(Protocol):
    """Flag that is set when all trials are to be saved and stopped; a `multiprocessing.Event`."""

    def is_set(self) -> bool:
        """Return True if the flag is set."""
        ...


def run_worker(connection: Connection, stop: StopFlag, runs_dir: Path) -> None:
    """Train the trials that arrive on `connection`, until None arrives or the search's process is gone."""
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, signal.SIG_IGN)  # the process of the search handles signals
    limit_openmp_spinning()
    trainer = TrialTrainer(connection, stop, runs_dir)
    try:
        while (assignment := connection.recv()) is not None:
            connection.send(trainer.train_trial(assignment))
    except (EOFError, OSError):  # the process of the search was killed
        return


class TrialTrainer:
    """Trainer of trials that prepares each corpus once."""

    def __init__(self, connection: Connection, stop: StopFlag, runs_dir: Path) -> None:
        """Send messages to `connection`, and write runs in `runs_dir`."""
        self._connection = connection
        self._stop = stop
        self._runs_dir = runs_dir
        self._is_orphan = False
        """True once the process of the search is gone; the trial is then saved and stopped."""
        self._datasets: dict[object, TrainingInput] = {}

    def train_trial(self, assignment: Assignment) -> TrialEnd:
        """Train the runs of a trial that are not complete, one after the other."""
        try:
            for index in range(assignment.num_done, len(assignment.run_names)):
                state = self._train_run(index, assignment.run_config(index), assignment.run_names[index])
                if state != "complete":
                    return TrialEnd(state)
        except TrainingError as error:
            return TrialEnd("diverged", describe_error(error))
        except Exception as error:  # whatever ends a trial, the search continues
            return TrialEnd("failed", describe_error(error))
        return TrialEnd("complete")

    def _train_run(self, index: int, config: Config, name: str) -> TrialState:
        """Train a run, or continue it, and return the state of the trial after it."""
        run_dir, best = find_run(name, self._runs_dir), math.inf
        if run_dir is not None:  # of an earlier budget
            summary = summarize_run(run_dir)
            best = summary.valid_perplexity or math.inf
            if summary.state in COMPLETE:
                return "pruned" if summary.state == "pruned" else self._finish_run(index, best)
            job = resume_job(name, self._runs_dir)
        else:
            job = prepare_job(config, name, self._runs_dir, self._load)
        epochs = config.training.epochs + config.training.fine_tune_epochs
        state: TrialState = "complete"
        for event in job.events(self._is_stopped):
            match event:
                case Evaluated():
                    best = min(best, event.valid_perplexity)
                    fraction = event.epoch / epochs
                    # The end is reported when the run is complete.
                    if 0 < fraction < 1 and not self._may_continue(TrialProgress(index, fraction, best)):
                        job.command_queue.send(ControlCommand("prune"))
                case Warned():
                    self._send(RunWarning(name, event.message))
                case Finished(reason="stopped" | "detached"):
                    state = "stopped"
                case Finished(reason="pruned"):
                    state = "pruned"
        return self._finish_run(index, best) if state == "complete" else state

    def _finish_run(self, index: int, perplexity: float) -> TrialState:
        """Report a complete run. Return "complete", or "pruned" if the trial ends before the next one."""
        return "complete" if self._may_continue(TrialProgress(index, 1.0, perplexity)) else "pruned"

    def _load(self, config: Config, runs_dir: Path | None) -> TrainingInput:
        """Return what `load_training_input` returns, which the settings of a search do not change."""
        key = (config.data, config.training.init, config.training.teachers)
        if key not in self._datasets:
            self._datasets[key] = load_training_input(config, runs_dir)
        return self._datasets[key]

    def _is_stopped(self) -> bool:
        return self._is_orphan or self._stop.is_set()

    def _may_continue(self, progress: TrialProgress) -> bool:
        """Report the progress, and return the decision of the search."""
        if not self._send(progress):
            return True
        try:
            return bool(self._connection.recv())
        except (EOFError, OSError):
            self._is_orphan = True
            return True

    def _send(self, message: Message) -> bool:
        """Send a message. Return False if the process of the search is gone."""
        try:
            self._connection.send(message)
        except OSError:
            self._is_orphan = True
        return not self._is_orphan
