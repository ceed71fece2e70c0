"""A run that another process trains, or that has ended, followed by its record."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engine.control import Command
from engine.errors import printable
from engine.runs.control_files import ask
from engine.runs.metrics import Follower
from engine.runs.store import METRICS, SAMPLES, is_written
from engine.runtime.worker import Cancellation, Worker
from lotr_tui.monitor.metrics_reader import Part, parts_of
from lotr_tui.monitor.training_view import TrainingView

LOOK_SECONDS = 0.25
"""Between two looks at a record that was read to its end."""
PIECE_SECONDS = 0.01
"""Read at once: short, for to let go of the rows of a piece holds up the screen too."""
REST_SECONDS = 0.006
"""Between two pieces, when the screen has Python to itself."""
TAKE_SECONDS = 0.01
"""Taken in at once, beside a first piece, for the same reason."""
ROW_BYTES = 150
"""At least, of a report."""
MOST_RESERVED = 4_000_000
"""Reports that room is made for before they are read."""
MOST_WAITING = 4
"""Pieces that may wait to be taken in: where the screen is busy, as before its first paint, the reader waits for it."""


@dataclass(frozen=True)
class Read:
    """A piece of a record."""

    metrics: tuple[Part, ...]
    samples: tuple[Part, ...]
    again: bool
    """Whether the record is another one than before, and what was known counts no more."""
    at_end: bool
    share: float
    """Of `metrics.jsonl`, how much is read."""
    reports: int
    """There are hardly more in it."""
    problem: str
    """What is wrong with the run directory; empty where nothing is."""
    written: bool
    """Whether a process trains the run."""


class FollowedRun:
    """Its record being read in a thread, what is known of it, and what can be asked of whoever trains it."""

    def __init__(self, path: Path) -> None:
        """Follow the run directory `path`."""
        self.path = path
        self.view = TrainingView(note="reading the record")
        self.share = 0.0
        """Of `metrics.jsonl`, how much is taken in."""
        self.at_end = False
        """Whether all is taken in that was there."""
        self._waiting: deque[Read] = deque()
        self._worker: Worker[Read] = Worker("follow", self._source, limit=MOST_WAITING).start()

    def poll(self) -> bool:
        """Take in what was read since the last call; tells whether there was anything."""
        self._waiting += self._worker.drain()
        until, taken = time.perf_counter() + TAKE_SECONDS, 0
        while self._waiting and (not taken or time.perf_counter() < until):
            piece = self._waiting.popleft()
            taken += 1
            if piece.again:
                self.view = TrainingView(note="reading the record")
            self.view.steps.reserve(min(piece.reports, MOST_RESERVED))
            self.view.take_metrics(piece.metrics)
            self.view.take_samples(piece.samples)
            self.view.notice = self._notice(piece)
            self.share, self.at_end = piece.share, piece.at_end
        if (started := self.view.started) is not None and started.run != self.path.name:
            self.view.started = replace(started, run=self.path.name)  # it was renamed since
        return bool(taken)

    def steer(self, command: Command) -> None:
        """Ask something of the training.

        Raises:
            RunError: nobody is training it, or it cannot be asked.
        """
        ask(self.path, command)

    def stop(self) -> None:
        """Follow no longer."""
        self._worker.cancel()

    def _notice(self, piece: Read) -> str:
        if piece.problem:
            return piece.problem
        if not piece.at_end:
            return f"reading the record: {piece.share:.0%}"
        if self.view.active and not piece.written:
            name = printable(self.path.name)
            return f"nobody is training it; to go on: lotr-tui train --resume {name}"
        return ""

    def _source(self, cancellation: Cancellation) -> Iterator[Read]:
        before: Read | None = None
        metrics, samples = Follower(self.path / METRICS), Follower(self.path / SAMPLES)
        while not cancellation():
            written = is_written(self.path)  # asked before reading, so that no last row is missed
            new, said = metrics.more(PIECE_SECONDS), samples.more(PIECE_SECONDS)
            again = new.again or said.again
            if again:  # both from their start
                metrics, samples = Follower(self.path / METRICS), Follower(self.path / SAMPLES)
                new, said = metrics.more(PIECE_SECONDS), samples.more(PIECE_SECONDS)
            at_end = metrics.at_end and samples.at_end
            piece = Read(
                tuple(parts_of(new.rows)),
                tuple(parts_of(said.rows)),
                again,
                at_end,
                metrics.share,
                metrics.size // ROW_BYTES,
                self._problem(metrics),
                written,
            )
            if new.rows or said.rows or again or before is None or _differ(before, piece):
                yield piece
            before = piece
            cancellation.wait(LOOK_SECONDS if at_end else REST_SECONDS)

    def _problem(self, metrics: Follower) -> str:
        if not metrics.problem:
            return ""
        if not self.path.is_dir():
            return "the run directory is gone; this is what was read of it"
        if not metrics.path.exists():
            return f"there is no {METRICS} in the run directory"
        return f"{METRICS} cannot be read: {metrics.problem}"


def _differ(before: Read, piece: Read) -> bool:
    return (before.problem, before.written, before.at_end) != (piece.problem, piece.written, piece.at_end)
