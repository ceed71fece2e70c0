"""A tracker follows a run: it reads the run directory and sends each new part, until no process trains the run.

`python -m lotr_tui.trackers.follower RUN TRACKER SECONDS` is the process of one tracker. A package that hangs, fails or
leaks does so there, and not in the process that trains, which starts and watches it.
"""

import faulthandler
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from engine import events
from engine.errors import InvalidInputError, RunError, describe_error, printable
from engine.runs import directory
from engine.runtime.process import get_process_info
from engine.storage import files
from lotr_tui.trackers import libraries

STEP_METRICS = ("train_perplexity", "lr", "gradient_norm", "tokens_per_second", "epoch", "seconds")
EVALUATION_METRICS = ("valid_perplexity", "notebook_perplexity", "epoch", "seconds")
READ_BUDGET = 0.0  # seconds of reading per batch: one chunk of the file, so that a kill repeats no more than that
POLL_INTERVAL = 1.0
CALL_TIMEOUT = 90.0  # seconds after which a tracker that has not taken a batch, or has not opened, is given up
LOCK_TIMEOUT = 30.0  # seconds to wait for the process of an earlier training, which may still send the end of it
MAX_STATE_BYTES, MAX_PROBLEM_LENGTH = 100_000, 300  # the log of the tracker has the whole problem
TRACKERS_FOLDER = "trackers"  # in a run directory that trackers follow


@dataclass(frozen=True)
class SendState:
    """Rows of a run that a tracker has, kept in the run directory, so that the missing part can be sent later."""

    tracker_id: str = ""
    last_steps: Mapping[str, int] = field(default_factory=dict)  # of the stored events, by the name of the event
    is_complete: bool = False  # everything was sent, including the end of the training


def state_file(run_dir: Path, name: libraries.TrackerName, suffix: str = ".json") -> Path:
    return run_dir / TRACKERS_FOLDER / f"{name}{suffix}"


def read_state(run_dir: Path, name: libraries.TrackerName) -> SendState:
    path = state_file(run_dir, name)
    try:
        content = files.read_limited(path, MAX_STATE_BYTES) if path.exists() else b"{}"
        return files.decode(SendState, files.parse_json(content))
    except (OSError, InvalidInputError) as error:
        reason = describe_error(error)
        raise RunError(f"{path} is damaged: {reason}; delete it to send the whole run again") from error


def write_state(run_dir: Path, name: libraries.TrackerName, state: SendState) -> SendState:
    state_file(run_dir, name).parent.mkdir(exist_ok=True)
    files.write_atomically(state_file(run_dir, name), json.dumps(asdict(state)).encode())
    return state


def choose_trackers(run_dir: Path, names: Sequence[libraries.TrackerName]) -> None:
    """Record that a run is sent to these trackers, besides earlier ones, also after it is resumed."""
    for name in names:
        if not state_file(run_dir, name).exists():
            write_state(run_dir, name, SendState())


class RunStream:
    """The new points of a run directory, in the order of their steps.

    A resumed training repeats the steps after its checkpoint, with the same results. They are left out, as are all
    steps up to `last_steps`, by the name of the event.
    """

    def __init__(self, run_dir: Path, last_steps: Mapping[str, int]) -> None:
        self.started: events.Started | None = None
        self.end: events.Finished | events.Failed | None = None  # the latest one; None while the training is running
        self.last_steps = dict(last_steps)
        self.at_end = False
        self._started_at = (run_dir / directory.CONFIG_FILE).stat().st_mtime
        self._seconds, self._max_step = 0.0, -1
        names = (directory.METRICS_FILE, directory.SAMPLES_FILE)
        self._metrics, self._samples = (directory.RecordFollower(run_dir / name) for name in names)
        self._waiting: list[events.Sampled] = []  # samples of steps whose metrics have not been read yet

    def read(self) -> list[libraries.Point]:
        """Read the next batch; at the same step, a sample follows the metrics."""
        # Metrics first: all samples before the last of these rows are then in the file of the samples.
        rows, samples = self._metrics.read(READ_BUDGET), self._samples.read(READ_BUDGET)
        self.at_end = self._metrics.at_end and self._samples.at_end
        points: list[libraries.Point] = []
        for event in rows:
            match event:
                case events.Started():
                    self.started = event
                case events.Resume():
                    self.end = None
                case events.Finished() | events.Failed():
                    self.end = event
                case events.Step() | events.Evaluated():
                    self._max_step = max(self._max_step, event.step)
                    self._seconds = event.seconds if math.isfinite(event.seconds) else self._seconds
                    names = STEP_METRICS if isinstance(event, events.Step) else EVALUATION_METRICS
                    values = {name: getattr(event, name) for name in names if math.isfinite(getattr(event, name))}
                    if self._is_new(event) and values:
                        points.append(libraries.Point(event.step, self._started_at + self._seconds, values))
        self._waiting += [event for event in samples if isinstance(event, events.Sampled)]
        last_step = math.inf if self.at_end or self.end is not None else self._max_step
        ready = [sample for sample in self._waiting if sample.step < last_step]
        self._waiting = [sample for sample in self._waiting if sample.step >= last_step]
        for sample in filter(self._is_new, ready):
            text = printable(f"{sample.prompt} {sample.text}")
            points.append(libraries.Point(sample.step, self._started_at + self._seconds, {}, text))
        return sorted(points, key=lambda point: (point.step, bool(point.text)))

    def settings(self, configured: Mapping[str, Any]) -> libraries.Settings:
        settings: dict[str, str | int | float | bool] = {}
        for name, value in ((asdict(self.started) if self.started else {}) | dict(configured)).items():
            if isinstance(value, str):
                settings[name] = printable(value)
            elif isinstance(value, (int, float)) and math.isfinite(value):
                settings[name] = value
        return settings

    def results(self) -> dict[str, float]:
        names = ("valid_perplexity", "test_perplexity", "epochs", "seconds")
        values = {name: getattr(self.end, name) for name in names}
        if self.started is not None:
            values["valid_bits_per_character"] = self.started.bits_per_character(values["valid_perplexity"])
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _is_new(self, event: events.Step | events.Evaluated | events.Sampled) -> bool:
        name = events.EVENT_NAMES[type(event)]
        is_new = event.step > self.last_steps.get(name, -1)
        self.last_steps[name] = max(event.step, self.last_steps.get(name, -1))
        return is_new


def write_tensorboard(run_dir: Path, folder: Path) -> None:
    """Write curves, samples and settings of a run into event files in `folder`."""
    stream, config = RunStream(run_dir, {}), directory.read_config(run_dir)
    points = stream.read()
    tracker = libraries.TensorBoardTracker(run_dir, stream.settings(config.settings()), "", folder)
    while points or not stream.at_end:
        for point in points:
            tracker.log(point)
        points = stream.read()
    tracker.close("stopped", {})


def send_run(
    run_dir: Path,
    name: libraries.TrackerName,
    is_over: Callable[[], bool] = lambda: True,
    allow: Callable[[], object] = lambda: None,
) -> SendState:
    """Send the events of a run that a tracker misses, until the end of the training was sent or `is_over`.

    `allow` is called before calls of the tracker that may hang. The new state is also in the run directory; after an
    exception of the tracker it says what the tracker has stored. If another process keeps sending the run to this
    tracker, a BlockingIOError is raised.
    """
    # A run without a configuration, or with a damaged state, is refused before a file is written into its folder.
    config, state = directory.read_config(run_dir).settings(), read_state(run_dir, name)
    state_file(run_dir, name).parent.mkdir(exist_ok=True)
    with files.lock_file(state_file(run_dir, name, ".lock"), LOCK_TIMEOUT):
        state = read_state(run_dir, name)
        stream, tracker = RunStream(run_dir, state.last_steps), None
        while not state.is_complete:
            over = is_over()  # checked before reading, so that no last row is missed
            points, end = stream.read(), stream.end
            is_complete = end is not None and directory.end_state([end]) in directory.COMPLETE
            is_last = stream.at_end and (is_complete or over)
            if tracker is None and (points or (is_last and is_complete and stream.started)):
                tracker = libraries.open_tracker(name, run_dir, stream.settings(config), state.tracker_id)
                state = write_state(run_dir, name, replace(state, tracker_id=tracker.tracker_id))
            allow()
            if tracker is not None and (points or is_last):
                for point in points:
                    tracker.log(point)
                is_stored = tracker.flush()
                if is_last:
                    status = "finished" if is_complete else "failed" if isinstance(end, events.Failed) else "stopped"
                    tracker.close(status, stream.results() if is_complete else {})
                if is_stored or is_last:
                    state = replace(state, last_steps=dict(stream.last_steps), is_complete=is_last and is_complete)
                    with suppress(RunError, OSError):  # a full disk: the points may be sent once more
                        write_state(run_dir, name, state)
            if is_last:
                break
            if stream.at_end:
                time.sleep(POLL_INTERVAL)
        return state


class TrackerSupervisor:
    """Tracker processes of one training. They follow its run directory, and end by themselves after the training."""

    def __init__(self, run_dir: Path) -> None:
        """Start one process for each tracker of a run. A failure is a problem, and never an exception."""
        self._run_dir = run_dir
        self._problems: list[str] = []
        is_main = get_process_info().rank == 0
        self._names = [name for name in libraries.TRACKER_NAMES if is_main and state_file(run_dir, name).is_file()]
        self._processes: dict[libraries.TrackerName, Popen[bytes]] = {}
        for name in list(self._names):
            command = [sys.executable, "-m", "lotr_tui.trackers.follower", str(run_dir), name, str(CALL_TIMEOUT)]
            env, flags = os.environ | {"OMP_NUM_THREADS": "1"}, os.O_WRONLY | os.O_APPEND | os.O_CREAT
            try:
                libraries.check_installed([name])
                with os.fdopen(files.open_regular_file(state_file(run_dir, name, ".log"), flags), "ab") as log:
                    self._processes[name] = Popen(
                        command, stdin=DEVNULL, stdout=PIPE, stderr=log, start_new_session=True, env=env
                    )
            except (InvalidInputError, OSError) as error:
                self._add_problem(name, describe_error(error))

    def running(self) -> list[libraries.TrackerName]:
        """Collect the processes that have ended, and return the names of the others."""
        for name, process in list(self._processes.items()):
            if process.poll() is None or self._processes.pop(name, None) is None:  # another thread was here first
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what the package has started
            text = process.communicate()[0].decode(errors="replace")
            if process.returncode:
                silence = f"it did not answer for {CALL_TIMEOUT:.0f} s, or its process was killed"
                self._add_problem(name, text or silence)
        return list(self._processes)

    def take_problems(self) -> list[str]:
        """Return the problems since the last call, at most one per tracker, without waiting."""
        self.running()
        problems, self._problems = self._problems, []
        return problems

    def wait(self, timeout: float) -> bool:
        """Wait for the end of all processes, at most `timeout` seconds; return True if all have ended."""
        deadline = time.monotonic() + timeout
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.running()

    def closing_lines(self) -> list[str]:
        """Return lines for the end of a training: new problems, unfinished trackers, and how to see the run."""
        lines = [printable(f"warning: {problem}") for problem in self.take_problems()]
        for name in self._names:
            if name in self._processes:
                lines.append(f"{name} receives the rest from a process in the background")
            lines.append(printable(f"{name}: {libraries.view_command(name, self._run_dir)}"))
        return lines

    def _add_problem(self, name: libraries.TrackerName, text: str) -> None:
        self._names.remove(name)
        problem = " ".join(printable(text).split())[:MAX_PROBLEM_LENGTH].rstrip(".")
        command = f"lotr-tui runs export {directory.run_word(self._run_dir)} --log {name}"
        self._problems.append(
            f"{name} is detached: {problem}; the training continues, and `{command}` sends the missing part later"
        )


def main() -> None:
    """Follow the run, and write the problem to standard output, if there is one; all other output goes to the log."""
    run_dir, limit = Path(sys.argv[1]), float(sys.argv[3])
    name: libraries.TrackerName = next(each for each in libraries.TRACKER_NAMES if each == sys.argv[2])
    result = os.dup(1)
    os.dup2(2, 1)
    os.nice(19)  # sending waits for a processor that training does not use

    def allow() -> None:
        # Ends this process later, by a thread in C, which also works while a package holds Python's lock.
        faulthandler.dump_traceback_later(limit, exit=True)

    allow()
    problem = ""
    try:
        send_run(run_dir, name, lambda: not directory.lock_owner(run_dir), allow)
    except BlockingIOError:
        print("another process follows this run", file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        problem = describe_error(error)
        with suppress(OSError):  # the training process has ended
            os.write(result, problem.encode()[:10_000])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(bool(problem)))  # threads of the packages must not keep the process


if __name__ == "__main__":
    main()
