"""Trackio: runs in a local database, or in a Hugging Face Space."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.errors import shell_word
from lotr_tui.trackers.tracker import PROJECT, CloseStatus, MetricPoint, TextSample, TrackedRun, artifact_name


class TrackioTracker:
    """A run of trackio. Its variables apply, such as TRACKIO_PROJECT, TRACKIO_DIR and TRACKIO_SPACE_ID."""

    def __init__(self, run: TrackedRun) -> None:
        """Start a run, or continue the run with the name `run.tracker_id`."""
        import trackio

        self._run = trackio.init(
            _project(),
            name=run.name,
            config=dict(run.settings),
            resume="allow" if run.tracker_id else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.tracker_id: str = self._run.name
        # What an earlier process had sent before it was killed is in the database already, except for a part of the
        # last step, which is sent again as a whole.
        last_step = trackio.SQLiteStorage.get_max_step_for_run(_project(), run.name) if run.tracker_id else None
        self._first_step = -1 if last_step is None else last_step

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        """Send metrics, except for steps that the database is sure to have already."""
        for point in points:
            if point.step >= self._first_step:
                self._run.log(dict(point.values), step=point.step)

    def log_sample(self, sample: TextSample) -> None:
        """Send a text sample, as a code block, so that the text is not read as Markdown."""
        import trackio

        if sample.step >= self._first_step:
            self._run.log({"sample": trackio.Markdown(f"    {sample.text}")}, step=sample.step)

    def flush(self) -> bool:
        """Return False: trackio writes in a thread, and only the end of the run says that everything is written."""
        return False

    def close(self, status: CloseStatus, results: Mapping[str, float], model_files: Sequence[Path]) -> None:
        """Send the results and the model, and end the run."""
        import trackio

        if results:
            self._run.log({f"result/{name}": value for name, value in results.items()})
        if model_files:
            artifact = trackio.Artifact(artifact_name(self.tracker_id), type="model")
            for path in model_files:
                artifact.add_file(str(path))
            self._run.log_artifact(artifact)
        self._run.finish()


def _project() -> str:
    return os.environ.get("TRACKIO_PROJECT") or PROJECT


def view_command(run_dir: Path) -> str:
    """Return the command that shows the runs in a browser."""
    return f"trackio show --project {shell_word(_project())}"
