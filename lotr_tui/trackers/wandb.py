"""Weights & Biases: a run on the server, or a file of an offline run that `wandb sync` sends later."""

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.errors import shell_word
from lotr_tui.trackers.tracker import PROJECT, CloseStatus, MetricPoint, TextSample, TrackedRun, artifact_name


class WandbTracker:
    """A run of Weights & Biases.

    The variables of wandb apply, such as WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE. Without an account on this
    machine, the run is offline.
    """

    def __init__(self, run: TrackedRun) -> None:
        """Start a run, or continue the run with the identifier `run.tracker_id`."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no reports to others about errors of wandb
        import wandb

        if not (os.environ.get("WANDB_MODE") or _has_account()):
            os.environ["WANDB_MODE"] = "offline"
        settings = wandb.Settings(
            console="off",
            disable_git=True,
            save_code=False,
            silent=True,
            x_disable_stats=True,  # of this process, not of the training
            init_timeout=60,
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=run.tracker_id or None,
            name=run.name,
            config=dict(run.settings),
            dir=os.environ.get("WANDB_DIR") or str(run.path),
            resume="allow" if run.tracker_id else None,
            settings=settings,
        )
        self.tracker_id: str = self._run.id
        self._name = run.name

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        """Send metrics. The server ignores steps that it has already."""
        for point in points:
            self._run.log(dict(point.values), step=point.step)

    def log_sample(self, sample: TextSample) -> None:
        """Send a text sample: as HTML for the page of the run, and as a text that programs can read."""
        import wandb

        panel = wandb.Html(f"<p>{html.escape(sample.text)}</p>", inject=False)
        self._run.log({"sample": panel, "sample_text": sample.text}, step=sample.step)

    def flush(self) -> bool:
        """Return False: wandb writes in a separate process, and only its end says that everything is written."""
        return False

    def close(self, status: CloseStatus, results: Mapping[str, float], model_files: Sequence[Path]) -> None:
        """Send the results as a summary and the model as an artifact, and end the run."""
        import wandb

        self._run.summary.update(dict(results))
        if model_files:
            artifact = wandb.Artifact(artifact_name(self._name), type="model")
            for path in model_files:
                artifact.add_file(str(path))
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=int(status == "failed"))


def _has_account() -> bool:
    """Return True if a key of an account is known on this machine."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def view_command(run_dir: Path) -> str:
    """Return the command that sends offline runs to the server."""
    folder = Path(os.environ.get("WANDB_DIR") or run_dir) / "wandb"
    return f"wandb sync --include-offline {shell_word(str(folder))}/offline-run-*"
