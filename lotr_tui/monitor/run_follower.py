"""Follower of a run directory: a run that another process trains, or that has ended."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from engine.events import TrainingEvent
from engine.runs import directory
from engine.runtime.process import Cancellation, GeneratorThread
from lotr_tui.monitor.training_view import RecordItem, TrainingView, group_steps

POLL_INTERVAL = 0.25  # seconds between two reads of a file that has been read to its end
READ_BUDGET = 0.01  # seconds of reading per chunk; freeing the rows of a longer chunk blocks the screen
READ_PAUSE = 0.006  # seconds between two chunks, in which the screen can run Python code
APPLY_BUDGET = 0.01  # seconds of applying chunks per poll, so that the screen stays responsive
MAX_QUEUED_CHUNKS = 4  # at which the reader waits for the screen
READING = "reading metrics"


class _Chunk(NamedTuple):
    metrics: tuple[RecordItem, ...]
    samples: tuple[TrainingEvent, ...]
    is_new_record: bool  # the files were replaced, so that everything read before is obsolete
    notice: str  # about reading
    is_locked: bool


class RunFollower:
    """Reader of a run directory in a thread, and the training view that the rows result in."""

    def __init__(self, path: Path) -> None:
        """Start to follow the run directory `path`."""
        self.path, self.view = path, TrainingView(activity=READING)
        self._chunks: deque[_Chunk] = deque()
        self._reader: GeneratorThread[_Chunk] = GeneratorThread(
            "follow", self._read_chunks, max_pending=MAX_QUEUED_CHUNKS
        )

    def poll(self) -> bool:
        """Apply new rows to the view. Return True if there were any."""
        self._chunks += self._reader.drain()
        deadline, is_changed = time.perf_counter() + APPLY_BUDGET, False
        while self._chunks and (not is_changed or time.perf_counter() < deadline):
            chunk, is_changed = self._chunks.popleft(), True
            if chunk.is_new_record:
                self.view = TrainingView(activity=READING)
            self.view.apply_metrics(chunk.metrics)
            self.view.apply_samples(chunk.samples)
            self.view.notice = chunk.notice
            if not chunk.notice and self.view.is_active and not chunk.is_locked:
                resume = f"lotr-tui train --resume {directory.run_word(self.path)}"
                self.view.notice = f"no process is training it; resume with: {resume}"
        if (started := self.view.started) is not None and started.run != self.path.name:
            self.view.started = replace(started, run=self.path.name)  # the run was renamed
        return is_changed

    def stop(self) -> None:
        self._reader.cancellation.set()

    def _read_chunks(self, cancellation: Cancellation) -> Iterator[_Chunk]:
        files, previous_status = (directory.METRICS_FILE, directory.SAMPLES_FILE), None
        metrics, samples = (directory.RecordFollower(self.path / name) for name in files)
        while not cancellation():
            locked = bool(directory.lock_owner(self.path))  # checked before reading, so that no last row is missed
            new_metrics, new_samples = metrics.read(READ_BUDGET), samples.read(READ_BUDGET)
            is_new_record = metrics.is_replaced or samples.is_replaced
            if is_new_record:  # both files are read from the start
                metrics, samples = (directory.RecordFollower(self.path / name) for name in files)
                new_metrics, new_samples = metrics.read(READ_BUDGET), samples.read(READ_BUDGET)
            at_end = metrics.at_end and samples.at_end
            notice = "" if at_end else f"{READING}: {metrics.fraction_read:.0%}"
            if metrics.problem and not self.path.is_dir():
                notice = "the run directory was deleted; showing what was read"
            elif metrics.problem and not metrics.path.exists():
                notice = f"there is no {directory.METRICS_FILE} in the run directory"
            elif metrics.problem:
                notice = f"{directory.METRICS_FILE} cannot be read: {metrics.problem}"
            status = metrics.problem and notice, locked, at_end
            if new_metrics or new_samples or is_new_record or status != previous_status:
                yield _Chunk(tuple(group_steps(new_metrics)), tuple(new_samples), is_new_record, notice, locked)
            previous_status = status
            cancellation.wait(POLL_INTERVAL if at_end else READ_PAUSE)
