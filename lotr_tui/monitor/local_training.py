"""Training in a thread of this process."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.control import ControlCommand
from engine.errors import describe_error
from engine.events import Failed, Preparing, TrainingEvent
from engine.runtime.process import Cancellation, GeneratorThread
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.trackers.follower import TrackerSupervisor

if TYPE_CHECKING:
    from engine.training.job import TrainingJob

TrainingUpdate = TrainingEvent | TrainingView  # new event, or the view of an earlier training that is resumed


class LocalTraining:
    """Training thread, the view of its progress, and the sending of commands to it."""

    def __init__(self, prepare_job: "Callable[[], TrainingJob]", resume_path: Path | None = None) -> None:
        """Start the thread, which calls `prepare_job`; `resume_path` is the directory of a run that is resumed."""
        self.view = TrainingView()
        self.trackers: TrackerSupervisor | None = None  # until the training is prepared
        self._prepare_job, self._resume_path = prepare_job, resume_path
        self._job: TrainingJob | None = None
        self._early_commands: list[ControlCommand] = []
        self._job_lock = threading.Lock()  # of the job and the commands that wait for it
        self._worker: GeneratorThread[TrainingUpdate] = GeneratorThread("training", self._generate_updates)

    def poll(self) -> tuple[list[TrainingEvent], bool]:
        """Apply new events to the view. Return the events, and True if they are the last ones."""
        has_ended = not self._worker.is_alive()  # checked before draining, so that no last event is missed
        updates = self._worker.drain()
        if has_ended and self._worker.exception is not None:
            updates = [*updates, Failed(describe_error(self._worker.exception))]
        events: list[TrainingEvent] = []
        for update in updates:
            if isinstance(update, TrainingView):
                self.view = update
            else:
                events.append(update)
                self.view.apply(update)
        return events, has_ended

    def send_command(self, command: ControlCommand) -> None:
        """Send a command to the training; a training that is being prepared applies it before its first step."""
        with self._job_lock:
            if self._job is not None:
                self._job.command_queue.send(command)
            elif command.kind == "stop":
                self.stop()
            else:
                self._early_commands.append(command)

    def stop(self) -> None:
        """Request the training to save and stop after the current step."""
        self._worker.cancellation.set()

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread for at most `timeout` seconds. Return True if it has ended."""
        self._worker.join(timeout)
        return not self._worker.is_alive()

    def wait_until_finished(self) -> None:
        """Wait for the end of the thread and discard its events, which are in the run directory."""
        while not self.join(0.5):
            self._worker.drain()

    @property
    def has_unsaved_progress(self) -> bool:
        """True if the training is running and past its preparation, so that a stop must be waited for."""
        self.poll()
        return self._worker.is_alive() and self.view.started is not None

    @property
    def path(self) -> Path | None:
        """Run directory; None while the training is being prepared."""
        return None if self._job is None else self._job.run.path

    def _generate_updates(self, cancellation: Cancellation) -> Iterator[TrainingUpdate]:
        if self._resume_path is not None:
            view = TrainingView.from_run(self._resume_path)
            view.finished, view.failure, view.phase, view.activity = None, "", "preparing", "resuming"
            yield view
        yield Preparing("reading the corpus")
        job = self._prepare_job()
        with self._job_lock:
            self._job = job
            for command in self._early_commands:
                job.command_queue.send(command)
        trackers = self.trackers = TrackerSupervisor(job.run.path)
        yield from job.events(cancellation, trackers.take_problems)
