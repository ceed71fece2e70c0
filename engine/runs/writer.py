"""Recording of a training in its run directory: metrics, samples, checkpoints and weights."""

import math
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import numpy as np

from engine import events
from engine.errors import LotrError, RunError, describe_error
from engine.events import TrainingEvent
from engine.models.decoders import NumpyDecoder
from engine.runs import directory
from engine.runs.adapter_files import ADAPTER_FILE, read_reference, serialize_adapter
from engine.runs.directory import PREVIOUS_RESUME_FILE, RESUME_FILE
from engine.runs.locked_run import LockedRun
from engine.storage.files import JsonLinesAppender, write_atomically
from engine.storage.tensor_file import serialize_weights


def record_events(run: LockedRun, training: Iterator[TrainingEvent]) -> Iterator[TrainingEvent]:
    """Write the events of `training` to the run directory and yield them, with events about the files written.

    Data that cannot be written, as on a full disk, is kept and written later; a `Warned` event reports the problem. If
    some still cannot be written at the end, a LotrError is raised in place of the event `Finished`. An exception of the
    training is recorded as a `Failed` row with its traceback, and raised again.
    """
    with ExitStack() as stack:
        stack.callback(run.lock.release)
        writer = stack.enter_context(closing(_RunWriter(run)))
        try:
            for event in training:
                for recorded in writer.write_event(event):
                    yield from writer.drain_warnings()
                    yield recorded
        except Exception as error:
            writer.write_row(events.Failed(describe_error(error), traceback.format_exc()))
            raise


class _RunWriter:
    def __init__(self, run: LockedRun) -> None:
        self._run = run
        try:
            self._metrics = JsonLinesAppender(run.path / directory.METRICS_FILE)
            self._samples = JsonLinesAppender(run.path / directory.SAMPLES_FILE)
        except OSError as error:
            raise RunError(f"run {run.path} cannot be written: {error.strerror}") from error
        self._pending_files: dict[Path, tuple[int, bytes]] = {}
        """Step and content of each file that is still to be written."""
        self._problem = ""
        self._reported_problem = ""

    def write_event(self, event: TrainingEvent) -> list[TrainingEvent]:
        """Record `event`. Return the events to yield in its place."""
        resume_path = self._run.path / RESUME_FILE
        match event:
            case events.Snapshot():
                self._pending_files[resume_path] = (event.step, event.content)
                return self._flush_pending_files()
            case events.Finished():
                is_complete = event.reason in ("done", "patience", "pruned")
                if is_complete:
                    self._pending_files.pop(resume_path, None)
                checkpoints = self._flush_pending_files()
                if not self._problem:  # a training with unwritten files must stay resumable
                    self.write_row(event)
                self._metrics.flush()
                if problem := self._metrics.problem or self._problem:
                    raise LotrError(f"{problem}; the end of the training is not saved")
                if is_complete:  # not earlier: the checkpoints are the only copy until the model is written
                    for name in (PREVIOUS_RESUME_FILE, RESUME_FILE, directory.INITIAL_FILE):
                        with suppress(OSError):
                            (self._run.path / name).unlink(missing_ok=True)
                return [*checkpoints, event]
        self.write_row(event)
        if isinstance(event, events.Evaluated):
            self._add_weights(event)
            return [event, *self._flush_pending_files()]
        return [event]

    def drain_warnings(self) -> list[TrainingEvent]:
        """Return a warning if there is a problem that has not been reported since it began."""
        problem = self._metrics.problem or self._samples.problem or self._problem
        is_new, self._reported_problem = problem != self._reported_problem, problem
        if not problem or not is_new:
            return []
        warning = events.Warned(f"{problem}; the training continues and tries again")
        self.write_row(warning)
        return [warning]

    def close(self) -> None:
        """Try once more to write pending data, and close the files."""
        self._flush_pending_files()
        self._metrics.close()
        self._samples.close()

    def write_row(self, event: TrainingEvent) -> None:
        row = events.event_to_dict(event)
        if not isinstance(event, events.Sampled):
            self._metrics.append(row)
        if isinstance(event, (events.Sampled, events.Resume)):  # a reader of the samples alone must know of a resume
            self._samples.append(row)

    def _flush_pending_files(self) -> list[TrainingEvent]:
        """Try to write all pending files. Return a `Checkpointed` event for each written file."""
        checkpoints: list[TrainingEvent] = []
        self._problem = ""
        for path, (step, content) in list(self._pending_files.items()):
            backup = path.with_name(PREVIOUS_RESUME_FILE) if path.name == RESUME_FILE else None
            try:
                write_atomically(path, content, backup)
            except RunError as error:
                self._problem = self._problem or str(error)  # the oldest problem, so that it is reported once
            else:
                del self._pending_files[path]
                checkpoints.append(events.Checkpointed(step, path.relative_to(self._run.path).as_posix()))
                self.write_row(checkpoints[-1])
        return checkpoints

    def _add_weights(self, event: events.Evaluated) -> None:
        """Add the weight files that an evaluation causes to be written to the pending files."""
        run, epoch = self._run, event.epoch
        paths = [run.path / (directory.MODEL_FILE if event.adapter is None else ADAPTER_FILE)] if event.is_best else []
        # Epochs 1, 2, 4, 8, …: early ones change the most, and a long training keeps few models.
        if run.config.training.keep_epoch_checkpoints and epoch >= 1 and math.log2(epoch).is_integer():
            paths.append(directory.epoch_weights_path(run.path, int(epoch)))
        if paths and event.adapter is not None:
            halves = {name: weight.astype(np.float16) for name, weight in event.adapter.items()}
            content = serialize_adapter(halves, read_reference(run.path).sha256)
        elif paths and isinstance(event.model, NumpyDecoder):
            content = serialize_weights(event.model.weights)
        else:
            return
        self._pending_files |= dict.fromkeys(paths, (event.step, content))
