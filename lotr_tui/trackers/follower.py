"""A tracker follows a run: it reads the run directory and sends what is new, until no process trains the run.

`python -m lotr_tui.trackers.follower RUN TRACKER SECONDS` is the process of one tracker. A package that hangs, fails or
leaks does so there, and not in the process that trains.
"""

import faulthandler
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

from engine.config import Config
from engine.errors import InvalidInputError, RunError, describe_error, printable
from engine.events import EVENT_NAMES, Evaluated, Failed, Finished, Resume, Sampled, Started, Step
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, SAMPLES_FILE, is_locked, read_config
from engine.runs.metrics import RecordFollower
from engine.storage.files import decode, lock_file, parse_json, read_limited, write_atomically
from lotr_tui.trackers.libraries import TRACKER_NAMES, Point, Settings, TensorBoardTracker, TrackerName, open_tracker

STEP_METRICS = ("train_perplexity", "lr", "gradient_norm", "tokens_per_second", "epoch", "seconds")
EVALUATION_METRICS = ("valid_perplexity", "notebook_perplexity", "epoch", "seconds")
READ_BUDGET = 0.0
"""Seconds of reading per batch: one chunk of the file, a few hundred rows, so that a kill repeats no more than that."""
POLL_INTERVAL = 1.0
OPENING = 2.0
"""Time limit of opening a tracker, and of closing it, as a multiple of the limit of a batch."""
LOCK_TIMEOUT = 30.0
"""Seconds to wait for the process of an earlier training, which may still send the end of it."""
MAX_STATE_BYTES = 100_000
TRACKERS_FOLDER = "trackers"  # in a run directory that trackers follow


@dataclass(frozen=True)
class SendState:
    """Rows of a run that a tracker has, kept in the run directory, so that the missing part can be sent later."""

    tracker_id: str = ""
    last_steps: Mapping[str, int] = field(default_factory=dict)
    """Step of the last stored event, by the name of the event."""
    is_complete: bool = False
    """True if everything was sent, including the end of the training."""


def state_file(run_dir: Path, name: TrackerName, suffix: str = ".json") -> Path:
    """Return the path of the state of a tracker, or of its other files: ".lock" and ".log"."""
    return run_dir / TRACKERS_FOLDER / f"{name}{suffix}"


def read_state(run_dir: Path, name: TrackerName) -> SendState:
    """Read the state of a tracker; a damaged file raises a RunError."""
    path = state_file(run_dir, name)
    try:
        return decode(SendState, parse_json(read_limited(path, MAX_STATE_BYTES)))
    except FileNotFoundError:
        return SendState()
    except (OSError, InvalidInputError) as error:
        reason = describe_error(error)
        raise RunError(f"{path} is damaged: {reason}; delete it to send the whole run again") from error


def write_state(run_dir: Path, name: TrackerName, state: SendState) -> SendState:
    """Write and return the state of a tracker; a full disk raises a RunError or OSError."""
    state_file(run_dir, name).parent.mkdir(exist_ok=True)
    write_atomically(state_file(run_dir, name), json.dumps(asdict(state)).encode())
    return state


def choose_trackers(run_dir: Path, names: Sequence[TrackerName]) -> None:
    """Record that a run is sent to these trackers, besides earlier ones, also after it is resumed."""
    for name in names:
        if not state_file(run_dir, name).exists():
            write_state(run_dir, name, SendState())


def chosen_trackers(run_dir: Path) -> list[TrackerName]:
    """Return the names of the trackers that a run is sent to."""
    return [name for name in TRACKER_NAMES if state_file(run_dir, name).is_file()]


class RunStream:
    """The new points of a run directory, in the order of their steps.

    A resumed training repeats the steps after its checkpoint, with the same results. These repetitions are left out.
    """

    def __init__(self, run_dir: Path, last_steps: Mapping[str, int]) -> None:
        """Prepare to read a run, without the events up to `last_steps`, by the name of the event."""
        self.started: Started | None = None
        self.end: Finished | Failed | None = None
        """Latest end of the training; None while it is running."""
        self.last_steps = dict(last_steps)
        self.at_end = False
        self._started_at = (run_dir / CONFIG_FILE).stat().st_mtime
        self._seconds, self._max_step = 0.0, -1
        self._metrics, self._samples = RecordFollower(run_dir / METRICS_FILE), RecordFollower(run_dir / SAMPLES_FILE)
        self._waiting: list[Sampled] = []
        """Samples of steps whose metrics have not been read yet."""

    def read(self) -> list[Point]:
        """Read the next batch; at the same step, a sample follows the metrics."""
        # Metrics first: all samples before the last of these rows are then in the file of the samples.
        metrics, samples = self._metrics.read(READ_BUDGET), self._samples.read(READ_BUDGET)
        self.at_end = self._metrics.at_end and self._samples.at_end
        points: list[Point] = []
        for event in metrics:
            match event:
                case Started():
                    self.started = event
                case Resume():
                    self.end = None
                case Finished() | Failed():
                    self.end = event
                case Step() | Evaluated():
                    self._max_step = max(self._max_step, event.step)
                    self._seconds = event.seconds if math.isfinite(event.seconds) else self._seconds
                    values = _finite(event, STEP_METRICS if isinstance(event, Step) else EVALUATION_METRICS)
                    if self._is_new(event) and values:
                        points.append(Point(event.step, self._started_at + self._seconds, values))
        self._waiting += [event for event in samples if isinstance(event, Sampled)]
        is_all = self.at_end or self.end is not None
        ready = [sample for sample in self._waiting if is_all or sample.step < self._max_step]
        self._waiting = [] if is_all else [sample for sample in self._waiting if sample.step >= self._max_step]
        for sample in filter(self._is_new, ready):
            text = printable(f"{sample.prompt} {sample.text}")
            points.append(Point(sample.step, self._started_at + self._seconds, {}, text))
        return sorted(points, key=lambda point: (point.step, bool(point.text)))

    def settings(self, config: Config) -> Settings:
        """Return the configuration and the description of the training, by name."""
        described = {} if self.started is None else asdict(self.started)
        plain = {name: value for name, value in described.items() if isinstance(value, (str, int, float))}
        settings = {name: value for name, value in plain.items() if isinstance(value, str) or math.isfinite(value)}
        settings |= config.settings()
        return {name: printable(value) if isinstance(value, str) else value for name, value in settings.items()}

    def results(self) -> dict[str, float]:
        """Return the final figures of the training that are known."""
        values = _finite(self.end, ("valid_perplexity", "test_perplexity", "epochs", "seconds"))
        if self.started is not None and "valid_perplexity" in values:
            bits = self.started.bits_per_character(values["valid_perplexity"])
            values |= {"valid_bits_per_character": bits} if math.isfinite(bits) else {}
        return values

    def _is_new(self, event: Step | Evaluated | Sampled) -> bool:
        """Return True, and remember the step, if no event of this kind had this step or a later one."""
        name = EVENT_NAMES[type(event)]
        is_new = event.step > self.last_steps.get(name, -1)
        self.last_steps[name] = max(event.step, self.last_steps.get(name, -1))
        return is_new


def _finite(event: object, names: Sequence[str]) -> dict[str, float]:
    values = {name: float(getattr(event, name)) for name in names}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def write_tensorboard(run_dir: Path, folder: Path) -> None:
    """Write curves, samples and settings of a run into event files in `folder`."""
    stream = RunStream(run_dir, {})
    points = stream.read()
    tracker = TensorBoardTracker(run_dir, stream.settings(read_config(run_dir)), "", folder)
    try:
        while points or not stream.at_end:
            for point in points:
                tracker.log(point)
            points = stream.read()
    finally:
        tracker.close("stopped", {})


def send_run(
    run_dir: Path,
    name: TrackerName,
    is_over: Callable[[], bool] = lambda: True,
    allow: Callable[[float], None] = lambda factor: None,
) -> SendState:
    """Send the events of a run that a tracker misses, until the end of the training was sent or `is_over`.

    `allow` is called with the time that the next calls of the tracker may take, as a multiple of the usual limit. The
    new state is also in the run directory; after an exception of the tracker it says what the tracker has stored.

    Raises:
        BlockingIOError: If another process keeps sending the run to this tracker.
        RunError: If the run directory cannot be read or written.
    """
    # A run without a configuration, or with a damaged state, is refused before a file is written into its folder.
    config, state = read_config(run_dir), read_state(run_dir, name)
    state_file(run_dir, name).parent.mkdir(exist_ok=True)
    with lock_file(state_file(run_dir, name, ".lock"), LOCK_TIMEOUT):
        state = read_state(run_dir, name)
        stream, tracker = RunStream(run_dir, state.last_steps), None
        while not state.is_complete:
            over = is_over()  # checked before reading, so that no last row is missed
            points = stream.read()
            is_complete = isinstance(stream.end, Finished) and stream.end.reason in ("done", "patience", "pruned")
            is_last = stream.at_end and (is_complete or over)
            if tracker is None and (points or (is_last and is_complete and stream.started)):
                allow(OPENING)
                tracker = open_tracker(name, run_dir, stream.settings(config), state.tracker_id)
                state = write_state(run_dir, name, replace(state, tracker_id=tracker.tracker_id))
            allow(1.0)
            if tracker is not None and (points or is_last):
                for point in points:
                    tracker.log(point)
                is_stored = tracker.flush()
                if is_last:
                    allow(OPENING)
                    status = "finished" if is_complete else "failed" if isinstance(stream.end, Failed) else "stopped"
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


def main() -> None:
    """Follow the run, and write the problem to standard output, if there is one; all other output goes to the log."""
    run_dir, name, limit = Path(sys.argv[1]), cast(TrackerName, sys.argv[2]), float(sys.argv[3])
    result = os.dup(1)
    os.dup2(2, 1)
    os.nice(19)  # sending waits for a processor that training does not use

    def allow(factor: float) -> None:
        # Ends this process later, by a thread in C, which also works while a package holds Python's lock.
        faulthandler.dump_traceback_later(factor * limit, exit=True)

    allow(1.0)
    problem = ""
    try:
        send_run(run_dir, name, lambda: not is_locked(run_dir), allow)
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
