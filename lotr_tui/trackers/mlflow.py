"""MLflow: a run on a tracking server, or in a database in the runs folder."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.errors import shell_word
from lotr_tui.trackers.tracker import PROJECT, CloseStatus, MetricPoint, TextSample, TrackedRun

DATABASE = "mlflow.db"
"""Database in the runs folder, which is used unless MLFLOW_TRACKING_URI names a server."""
ARTIFACTS = "mlflow-artifacts"
"""Folder for samples and models that belongs to the database."""
MAX_BATCH = 1000
"""Number of metrics that MLflow accepts at once."""
MAX_PARAMETER_LENGTH = 6000
"""Number of characters of a parameter that MLflow accepts."""
RUN_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """A run of MLflow. The variables MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME apply."""

    def __init__(self, run: TrackedRun) -> None:
        """Create a run, or continue the run with the identifier `run.tracker_id`."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=_tracking_uri(run.path))
        self.tracker_id = run.tracker_id
        if run.tracker_id:
            self._client.update_run(run.tracker_id, status="RUNNING")
            return
        created = self._client.create_run(self._experiment_id(run.path), run_name=run.name)
        self.tracker_id = created.info.run_id
        parameters = [Param(name, str(value)[:MAX_PARAMETER_LENGTH]) for name, value in run.settings.items()]
        self._client.log_batch(self.tracker_id, params=parameters)

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        """Send metrics. A database keeps one of several equal values."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(point.time * 1000), point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for start in range(0, len(metrics), MAX_BATCH):
            self._client.log_batch(self.tracker_id, metrics=metrics[start : start + MAX_BATCH])

    def log_sample(self, sample: TextSample) -> None:
        """Store a text sample as a file."""
        self._client.log_text(self.tracker_id, f"{sample.text}\n", f"samples/step-{sample.step:08d}.txt")

    def flush(self) -> bool:
        """Return True: every call waits until MLflow has stored its data."""
        return True

    def close(self, status: CloseStatus, results: Mapping[str, float], model_files: Sequence[Path]) -> None:
        """Store the results as metrics and the model as files, and set the status of the run."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(f"result_{name}", value, now, 0) for name, value in results.items()]
        if metrics:
            self._client.log_batch(self.tracker_id, metrics=metrics)
        for path in model_files:
            self._client.log_artifact(self.tracker_id, str(path), "model")
        self._client.set_terminated(self.tracker_id, status=RUN_STATUS[status])

    def _experiment_id(self, run_dir: Path) -> str:
        """Return the identifier of the experiment, which is created if it does not exist."""
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        if (existing := self._client.get_experiment_by_name(name)) is not None:
            return str(existing.experiment_id)
        is_local = not os.environ.get("MLFLOW_TRACKING_URI")
        location = (run_dir.parent / ARTIFACTS).absolute().as_uri() if is_local else None
        try:
            return str(self._client.create_experiment(name, artifact_location=location))
        except MlflowException:
            # Another training may have created the experiment in the meantime.
            if (existing := self._client.get_experiment_by_name(name)) is None:
                raise
            return str(existing.experiment_id)


def _tracking_uri(run_dir: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(run_dir.parent / DATABASE).absolute()}"


def view_command(run_dir: Path) -> str:
    """Return the command that shows the runs in a browser."""
    return f"mlflow ui --backend-store-uri {shell_word(_tracking_uri(run_dir))}"
