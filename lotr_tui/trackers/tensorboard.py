"""TensorBoard: event files that `tensorboard --logdir` shows, written without PyTorch or TensorFlow."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import shell_word
from lotr_tui.trackers.tracker import CloseStatus, MetricPoint, TextSample, TrackedRun

MAX_STEP = 2**63 - 1
"""Largest step of an event file; damaged metrics may contain larger ones."""


class TensorBoardTracker:
    """Writer of one event file in a folder. A resumed training writes another file into the same folder."""

    def __init__(self, folder: Path, run: TrackedRun) -> None:
        """Create an event file, with the settings of the run as hyperparameters and as text the first time."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.tracker_id = str(folder)
        self._writer = EventFileWriter(str(folder))
        if not run.tracker_id:
            self._write_settings(run)

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        """Write metrics as scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for point in points:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            self._write(Summary(value=values), point.step, point.time)

    def log_sample(self, sample: TextSample) -> None:
        """Write a text sample, as a code block, so that the text is not read as Markdown."""
        self._write_text("sample", f"    {sample.text}", sample.step, sample.time)

    def flush(self) -> bool:
        """Write everything to the file."""
        self._writer.flush()
        return True

    def close(self, status: CloseStatus, results: Mapping[str, float], model_files: Sequence[Path]) -> None:
        """Write the results as scalars and the folder of the model as text, and close the file."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        now = time.time()
        values = [Summary.Value(tag=f"result/{name}", simple_value=value) for name, value in results.items()]
        if values:
            self._write(Summary(value=values), 0, now)
        if model_files:
            self._write_text("model", f"    {model_files[0].parent}", 0, now)
        self._writer.close()

    def _write_settings(self, run: TrackedRun) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        now = time.time()
        rows = [f"| {name} | {_escape_cell(str(value))} |" for name, value in run.settings.items()]
        self._write_text("settings", "\n".join(["| setting | value |", "| --- | --- |", *rows]), 0, now)
        # The function returns a message of TensorFlow's class where TensorFlow is installed.
        hyperparameters = hparams_pb(dict(run.settings), trial_id=run.name, start_time_secs=now)
        self._write(Summary.FromString(hyperparameters.SerializeToString()), 0, now)

    def _write_text(self, tag: str, text: str, step: int, wall_time: float) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.plugins.text.metadata import create_summary_metadata

        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=TensorShapeProto())
        value = Summary.Value(
            tag=f"{tag}/text_summary", metadata=create_summary_metadata(tag, description=""), tensor=tensor
        )
        self._write(Summary(value=[value]), step, wall_time)

    def _write(self, summary: Any, step: int, wall_time: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        clamped = min(max(step, -MAX_STEP - 1), MAX_STEP)
        self._writer.add_event(Event(wall_time=wall_time, step=clamped, summary=summary))


def _escape_cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def view_command(run_dir: Path) -> str:
    """Return the command that shows all runs of the folder in TensorBoard."""
    return f"tensorboard --logdir {shell_word(str(run_dir.parent))}"
