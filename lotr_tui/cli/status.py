"""`lotr-tui status`: the progress of a run on one screen of text, or as JSON."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from engine.errors import printable
from engine.runs.directory import RESUME_FILE, WEIGHT_FILES, lock_owner, run_word
from engine.runs.summary import COMPLETE, RunState, summarize_run
from lotr_tui.cli.console import make_console, print_json
from lotr_tui.formatting import format_age, format_count, format_duration
from lotr_tui.monitor.training_view import TrainingView


@dataclass(frozen=True)
class RunStatus:
    """Progress of a run. Unknown figures are NaN or None."""

    name: str
    path: Path
    state: RunState
    writer: str
    """Process that trains the run; empty if none does."""
    view: TrainingView
    """State of the training, without most of its steps."""
    checkpoint_age_seconds: float | None
    """Seconds since the last checkpoint; None if there is none."""
    has_model: bool


def read_status(path: Path) -> RunStatus:
    """Read the status of the run directory `path`.

    Raises:
        RunError: If the configuration of the run cannot be read.
    """
    summary = summarize_run(path)
    try:
        checkpoint_age = max(0.0, time.time() - (path / RESUME_FILE).stat().st_mtime)  # the clock may be set back
    except OSError:
        checkpoint_age = None
    return RunStatus(
        name=printable(path.name),
        path=path,
        state=summary.state,
        writer=lock_owner(path) if summary.state == "running" else "",
        view=TrainingView.from_run(path, subsample=True),
        checkpoint_age_seconds=checkpoint_age,
        has_model=any((path / name).is_file() for name in WEIGHT_FILES),
    )


def print_status(path: Path, *, as_json: bool) -> None:
    """Print the status of the run in `path`."""
    status = read_status(path)
    if as_json:
        print_json(status_to_dict(status))
        return
    console = make_console()
    writer = f", by {status.writer}" if status.writer else ""
    console.print(Text(f"{status.name}  {status.state}{writer}", "bold"))
    table = Table.grid(padding=(0, 2))
    for label, value in _status_rows(status):
        table.add_row(Text(label, "dim"), Text(printable(value)))
    console.print(table)
    for label, command in _suggested_commands(status):
        console.print(Text(f"{label + ':':10}{command}", "dim"), soft_wrap=True)


def status_to_dict(status: RunStatus) -> dict[str, Any]:
    """Return the status as a JSON object; unknown figures are null."""
    view, step, best = status.view, status.view.steps.last, status.view.best
    started, finished = view.started, view.finished
    latest = view.evaluations[-1] if view.evaluations else None
    sample = view.samples[-1] if view.samples else None
    record: dict[str, Any] = {
        "run": status.name,
        "path": str(status.path),
        "state": status.state,
        "writer": status.writer or None,
        "epoch": view.epoch,
        "epochs": view.epochs or None,
        "step": step.step if step else None,
        "train_perplexity": step.train_perplexity if step else None,
        "valid_perplexity": latest.valid_perplexity if latest else None,
        "best_valid_perplexity": best.valid_perplexity if best else None,
        "best_epoch": best.epoch if best else None,
        "test_perplexity": finished.test_perplexity if finished else None,
        "unigram_perplexity": started.unigram_perplexity if started else None,
        "kneser_ney_perplexity": started.kneser_ney_perplexity if started else None,
        "lr": step.lr if step else None,
        "tokens_per_second": step.tokens_per_second if step else None,
        "seconds": finished.seconds if finished else step.seconds if step else None,
        "eta_seconds": step.eta_seconds if step and status.state == "running" else None,
        "sample": sample and {"epoch": _finite_or_none(sample.epoch), "prompt": sample.prompt, "text": sample.text},
        "saved_seconds_ago": status.checkpoint_age_seconds,
        "failure": view.failure or None,
        "diagnoses": [
            {"kind": event.kind, "message": event.message, "remedy": event.remedy} for event in view.current_diagnoses
        ],
    }
    return {name: _finite_or_none(value) if isinstance(value, float) else value for name, value in record.items()}


def _status_rows(status: RunStatus) -> list[tuple[str, str]]:
    view, step, best, unit = status.view, status.view.steps.last, status.view.best, status.view.unit
    progress = f"{view.epoch:.1f} of {view.epochs}" if view.epochs else "not started yet"
    if status.state == "imported":
        progress = f"{view.epoch:.1f}"
    rows = [("epoch", progress + (f", step {step.step:,}" if step else ""))]
    if view.failure:
        rows.append(("failed", view.failure))
    if step:
        rows.append(("train", unit.format(step.train_perplexity)))
    if view.evaluations and best:
        valid = unit.format(view.evaluations[-1].valid_perplexity)
        rows.append(("valid", f"{valid}, best {unit.format(best.valid_perplexity)} at epoch {best.epoch:.1f}"))
    if view.finished and math.isfinite(view.finished.test_perplexity):
        rows.append(("test", unit.format(view.finished.test_perplexity)))
    if view.started:
        unigram = unit.format(view.started.unigram_perplexity)
        kneser_ney = unit.format(view.started.kneser_ney_perplexity)
        rows.append(("baselines", f"unigram {unigram}, Kneser-Ney {kneser_ney}"))
        if not unit.is_perplexity:
            rows.append(("figures", unit.title))
    if step:
        rows.append(("learning rate", f"{step.lr:.5f}, {format_count(step.tokens_per_second)} tokens/s"))
        remaining = f", {format_duration(step.eta_seconds)} left" if status.state == "running" else ""
        rows.append(("time", format_duration(view.finished.seconds if view.finished else step.seconds) + remaining))
    for diagnosis in view.current_diagnoses:
        rows += [("diagnosis", diagnosis.message), ("remedy", diagnosis.remedy)]
    if view.samples:
        sample = view.samples[-1]
        rows.append(("sample", f'epoch {sample.epoch:.1f}: "{sample.prompt}" {sample.text}'))
    if status.checkpoint_age_seconds is not None:
        rows.append(("saved", f"{format_age(status.checkpoint_age_seconds)} ago"))
    return rows


def _suggested_commands(status: RunStatus) -> list[tuple[str, str]]:
    name = run_word(status.path)
    if status.state == "running":
        return [("watch", f"lotr-tui attach {name}"), ("stop", f"lotr-tui stop {name}")]
    commands = [("view", f"lotr-tui attach {name}")]
    if status.has_model:
        commands.append(("play", f"lotr-tui --run {name}"))
    if status.state not in COMPLETE:
        commands.append(("resume", f"lotr-tui train --resume {name}"))
    return commands


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
