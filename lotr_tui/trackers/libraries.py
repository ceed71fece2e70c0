"""The libraries of experiment trackers. Each is imported when a run is opened in its tracker.

`tracker_id` opens a run again. `log` takes points in the order of their steps; `flush` returns True if all of them
would survive a kill of this process; after `close`, all of them are stored. Every call may raise any exception and may
block for long: each tracker has a process.
"""

import html
import netrc
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from engine.errors import InvalidInputError, install_command, shell_word

TrackerName = Literal["tensorboard", "wandb"]
TRACKER_NAMES: tuple[TrackerName, ...] = get_args(TrackerName)
Settings = Mapping[str, str | int | float | bool]
PROJECT = "lotr-tui"  # in trackers that group runs; a variable of each tracker changes it


@dataclass(frozen=True)
class Point:
    """Metrics of one optimizer step, or a text sample of the model."""

    step: int
    time: float  # in seconds since 1970
    values: Mapping[str, float]  # finite ones, by metric
    text: str = ""


class TensorBoardTracker:
    """Writer of one event file, without PyTorch or TensorFlow. A resumed training writes another file beside it."""

    def __init__(self, run_dir: Path, settings: Settings, tracker_id: str, folder: Path | None = None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.tracker_id = str(folder or run_dir / "tensorboard")
        self._writer, self._event = EventFileWriter(self.tracker_id), event_pb2.Event
        self._summary, self._tensor = summary_pb2.Summary, tensor_pb2.TensorProto
        if not tracker_id:
            # The function returns a message of TensorFlow's class where TensorFlow is installed.
            message = hparams_pb(dict(settings), trial_id=run_dir.name, start_time_secs=time.time())
            self._write(list(self._summary.FromString(message.SerializeToString()).value), 0, time.time())

    def log(self, point: Point) -> None:
        self._write(self._text(point.text) if point.text else self._scalars(point.values), point.step, point.time)

    def flush(self) -> bool:
        self._writer.flush()
        return True

    def close(self, status: str, results: Mapping[str, float]) -> None:
        self._write(self._scalars({f"result/{name}": value for name, value in results.items()}), 0, time.time())
        self._writer.close()

    def _scalars(self, values: Mapping[str, float]) -> list[Any]:
        return [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]

    def _text(self, text: str) -> list[Any]:
        from tensorboard.plugins.text.metadata import create_summary_metadata

        tensor = self._tensor(dtype="DT_STRING", string_val=[f"    {text}".encode()])  # as code, not as Markdown
        metadata = create_summary_metadata("sample", description="")
        return [self._summary.Value(tag="sample/text_summary", metadata=metadata, tensor=tensor)]

    def _write(self, values: list[Any], step: int, wall_time: float) -> None:
        self._writer.add_event(self._event(wall_time=wall_time, step=step, summary=self._summary(value=values)))


class WandbTracker:
    """A run of Weights & Biases, whose variables apply; without an account on this machine, the run is offline."""

    def __init__(self, run_dir: Path, settings: Settings, tracker_id: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no reports to others about errors of wandb
        import wandb

        host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
        has_login = bool(os.environ.get("WANDB_API_KEY"))
        with suppress(OSError, netrc.NetrcParseError):
            has_login = has_login or netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
        if not has_login:
            os.environ["WANDB_MODE"] = os.environ.get("WANDB_MODE") or "offline"
        quiet = {"console": "off", "disable_git": True, "save_code": False, "silent": True}
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=tracker_id or None,
            name=run_dir.name,
            config=dict(settings),
            dir=os.environ.get("WANDB_DIR") or str(run_dir),
            resume="allow" if tracker_id else None,
            # Statistics would describe this process, not the training.
            settings=wandb.Settings(**quiet, x_disable_stats=True, init_timeout=60),
        )
        self.tracker_id: str = self._run.id

    def log(self, point: Point) -> None:  # the server ignores steps that it has already
        values: dict[str, Any] = dict(point.values)
        if point.text:  # for the page of the run, and for programs
            panel = self._wandb.Html(f"<p>{html.escape(point.text)}</p>", inject=False)
            values = {"sample": panel, "sample_text": point.text}
        self._run.log(values, step=point.step)

    def flush(self) -> bool:
        return False  # wandb writes in a process, and only its end says that everything is written

    def close(self, status: str, results: Mapping[str, float]) -> None:
        self._run.summary.update(dict(results))
        self._run.finish(exit_code=int(status == "failed"))


Tracker = TensorBoardTracker | WandbTracker


def check_installed(names: Sequence[str]) -> None:
    """Raise an InvalidInputError for a name that is no tracker, or whose package is not installed."""
    for name in names:
        if name not in TRACKER_NAMES:
            raise InvalidInputError(f"--log {name} is not one of {', '.join(TRACKER_NAMES)}")
        if find_spec(name) is None:
            raise InvalidInputError(f"{name} is not installed; {install_command(name)}")


def open_tracker(name: TrackerName, run_dir: Path, settings: Settings, tracker_id: str) -> Tracker:
    """Open a run in a tracker: a new one, or the one with the identifier `tracker_id`; any exception may be raised."""
    if name == "wandb":
        return WandbTracker(run_dir, settings, tracker_id)
    return TensorBoardTracker(run_dir, settings, tracker_id)


def view_command(name: TrackerName, run_dir: Path) -> str:
    """Return a shell command that shows the runs of a tracker."""
    if name == "wandb":
        folder = Path(os.environ.get("WANDB_DIR") or run_dir) / "wandb"
        return f"wandb sync --include-offline {shell_word(str(folder))}/offline-run-*"
    return f"tensorboard --logdir {shell_word(str(run_dir.parent))}"
