"""Sending of a run to a tracker: everything that the tracker misses, and what a training adds in the meantime."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from engine.errors import RunError
from engine.events import Failed, Finished, Started
from engine.runs.directory import CONFIG_FILE, WEIGHT_FILES, read_config
from engine.runs.locked_run import FIRST_FILES
from engine.storage.lock import FileLock
from lotr_tui.trackers.registry import TrackerName, open_tracker
from lotr_tui.trackers.run_stream import RunStream, send_items
from lotr_tui.trackers.send_state import SendState, read_state, state_file, write_state
from lotr_tui.trackers.tracker import CloseStatus, TrackedRun, Tracker

POLL_INTERVAL = 1.0
"""Seconds between two reads of a run that has been read to its end."""
OPEN_FACTOR, CLOSE_FACTOR = 2.0, 10.0
"""Time limits of opening a tracker and of sending the model at its end, as multiples of the usual limit of a call."""
LOCK_TIMEOUT = 30.0
"""Seconds to wait for an earlier process that still sends the same run to the same tracker."""
MODEL_FILES = (CONFIG_FILE, *FIRST_FILES, *WEIGHT_FILES)
"""Files that make a folder that `lotr-tui --run FOLDER` opens; a run has some of the first ones."""


def send_run(
    run_dir: Path,
    name: TrackerName,
    is_over: Callable[[], bool] = lambda: True,
    on_progress: Callable[[float], None] = lambda factor: None,
) -> SendState:
    """Send the events of a run that a tracker misses, until the end of the training was sent or `is_over`.

    Args:
        run_dir: The run.
        name: The tracker.
        is_over: Function that returns True if no process trains the run.
        on_progress: Function that is called between the calls of the tracker, with the time that the next call may
            take, as a multiple of the usual limit.

    Returns:
        The new state, which is also in the run directory.

    Raises:
        RunError: If another process sends the run, or the run directory cannot be read or written.
        Exception: Any exception of the tracker. The state says then what the tracker has stored.
    """
    # A run without a configuration, or with a damaged state, is refused before a file is written into its folder.
    read_config(run_dir)
    read_state(run_dir, name)
    state_file(run_dir, name).parent.mkdir(exist_ok=True)
    try:
        with FileLock(state_file(run_dir, name, ".lock"), LOCK_TIMEOUT):
            return _Sender(run_dir, name, on_progress).send(is_over)
    except BlockingIOError:
        raise RunError(f"another process is sending run {run_dir.name!r} to {name}; wait for its end") from None


class _Sender:
    """Connection between the directory of one run and one tracker."""

    def __init__(self, run_dir: Path, name: TrackerName, on_progress: Callable[[float], None]) -> None:
        self._run_dir = run_dir
        self._name: TrackerName = name
        self._on_progress = on_progress
        self._state = read_state(run_dir, name)
        self._stream = RunStream(run_dir, self._state.last_steps)
        self._tracker: Tracker | None = None

    def send(self, is_over: Callable[[], bool]) -> SendState:
        """Send the run, and return the new state."""
        if self._state.is_complete:
            return self._state
        while True:
            over = is_over()  # checked before reading, so that no last row is missed
            batch = self._stream.read()
            if batch.items:
                send_items(self._open(), batch.items, lambda: self._on_progress(1.0))
            if self._tracker is not None and batch.items and self._tracker.flush():
                self._save(replace(self._state, last_steps=batch.last_steps))
            self._on_progress(1.0)
            end = self._stream.end
            is_complete = isinstance(end, Finished) and end.reason in ("done", "patience", "pruned")
            if batch.at_end and (is_complete or over):
                if self._stream.started is not None and (is_complete or self._tracker is not None):
                    self._close(end if is_complete or isinstance(end, Failed) else None)
                    self._save(replace(self._state, last_steps=batch.last_steps, is_complete=is_complete))
                return self._state
            if batch.at_end:
                time.sleep(POLL_INTERVAL)

    def _open(self) -> Tracker:
        """Return the tracker, which is opened the first time, when there is something to send."""
        if self._tracker is None:
            settings = self._stream.settings(read_config(self._run_dir))
            run = TrackedRun(self._run_dir.name, self._run_dir, settings, self._state.tracker_id)
            self._on_progress(OPEN_FACTOR)
            self._tracker = open_tracker(self._name, run)
            self._on_progress(1.0)
            self._save(replace(self._state, tracker_id=self._tracker.tracker_id))
        return self._tracker

    def _close(self, end: Finished | Failed | None) -> None:
        tracker, status = self._open(), _close_status(end)
        self._on_progress(CLOSE_FACTOR)
        if isinstance(end, Finished):
            paths = [path for name in MODEL_FILES if (path := self._run_dir / name).is_file()]
            has_model = paths and paths[-1].name in WEIGHT_FILES
            tracker.close(status, _results(self._stream.started, end), paths if has_model else [])
        else:
            tracker.close(status, {}, [])
        self._on_progress(1.0)

    def _save(self, state: SendState) -> None:
        self._state = state
        # A full disk must not end the sending: the next state is written, or the events are sent once more.
        with suppress(RunError):
            write_state(self._run_dir, self._name, state)


def _close_status(end: Finished | Failed | None) -> CloseStatus:
    if isinstance(end, Failed):
        return "failed"
    return "stopped" if end is None else "finished"


def _results(started: Started | None, end: Finished) -> dict[str, float]:
    """Return the final figures of a training that are known."""
    values = {
        "valid_perplexity": end.valid_perplexity,
        "test_perplexity": end.test_perplexity,
        "valid_bits_per_character": math.nan if started is None else started.bits_per_character(end.valid_perplexity),
        "epochs": end.epochs,
        "seconds": end.seconds,
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}
