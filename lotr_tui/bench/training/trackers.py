"""Cost of experiment trackers: training speed with each of them, and with one that hangs, relative to none."""

import contextlib
import importlib.util
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from engine.runs.directory import METRICS_FILE
from engine.runs.metrics import RecordFollower
from lotr_tui.bench.measurement import Measurement, SkippedMeasurement, median_of_runs
from lotr_tui.bench.programs import SESSION_COMMAND
from lotr_tui.bench.training.dashboard import RUN_NAME, training_speed
from lotr_tui.trackers.registry import TRACKER_NAMES

EPOCHS = 12
"""Epochs of `tiny` on the bundled dialogues, about half a minute on two cores."""
MIN_RATIO = 0.97
POLL_INTERVAL = 0.5
MAX_TRACKER_SECONDS = 15.0
"""Seconds for the trackers to receive the end of a training, before the next one starts."""
HANGING_PACKAGE = "trackio"
"""Name of the package that is replaced by one whose import never ends."""


def measure_trackers(repeat: int) -> Iterator[Measurement | SkippedMeasurement]:
    """Train without a tracker, with each tracker that is installed and with one that hangs, in turn."""
    installed = [name for name in TRACKER_NAMES if importlib.util.find_spec(name) is not None]
    for name in TRACKER_NAMES:
        if name not in installed:
            yield SkippedMeasurement(f"training speed with {name}", f"{name} is not installed")
    candidates = {f"with {name}": name for name in installed}
    speeds: dict[str, list[float]] = {name: [] for name in ("without a tracker", *candidates, "with a hanging tracker")}
    for _ in range(repeat):
        speeds["without a tracker"].append(_speed())
        for label, name in candidates.items():
            speeds[label].append(_speed(name))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, f"{HANGING_PACKAGE}.py").write_text("import time\ntime.sleep(1e6)\n", encoding="utf-8")
            environment = {"PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))}
            speeds["with a hanging tracker"].append(_speed(HANGING_PACKAGE, environment))
    baseline = speeds["without a tracker"]
    yield median_of_runs("training speed without a tracker", "tokens/s", baseline)
    for label, values in speeds.items():
        if values is not baseline:
            ratios = [value / reference for value, reference in zip(values, baseline, strict=True)]
            yield median_of_runs(f"ratio of the training speed {label} to none", "", ratios, lower_limit=MIN_RATIO)


def _speed(tracker: str | None = None, environment: Mapping[str, str] | None = None) -> float:
    """Return the speed of one training in tokens per second."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*SESSION_COMMAND, "train", "--no-tui", "--preset", "tiny", "--epochs", str(EPOCHS)]
        command += ["--run", RUN_NAME, *(["--log", tracker] if tracker else [])]
        local = {"LOTR_TUI_HOME": folder, "TRACKIO_DIR": f"{folder}/trackio", "WANDB_MODE": "offline"}
        process = subprocess.Popen(
            command,
            env={**os.environ, **local, **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        follower = RecordFollower(Path(folder) / "runs" / RUN_NAME / METRICS_FILE)
        while process.poll() is None and not any(row["event"] == "finished" for row in follower.read_batch(0.1).rows):
            time.sleep(POLL_INTERVAL)
        # At its end, the training waits for its trackers, one of which may hang.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(MAX_TRACKER_SECONDS)
        process.kill()
        process.wait()
        return training_speed(Path(folder))
