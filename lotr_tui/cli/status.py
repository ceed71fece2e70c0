"""`lotr-tui status`: how a run stands, on one screen of text."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.errors import printable
from engine.runs.store import MODEL, RESUME, RunState, summarize, writer
from lotr_tui.formatting import ago, duration
from lotr_tui.monitor.training_view import TrainingView


@dataclass(frozen=True)
class Status:
    """How a run stands; NaN or None is what is not known."""

    name: str
    path: Path
    state: RunState
    writer: str
    """Who trains it; "" if nobody."""
    view: TrainingView
    """Without most reports."""
    saved_seconds: float | None
    """Since it was saved so that it can be gone on with."""
    has_model: bool


def read_status(path: Path) -> Status:
    """Look at the run directory `path`.

    Raises:
        RunError: it has no readable configuration.
    """
    summary = summarize(path)
    try:
        saved = max(0.0, time.time() - (path / RESUME).stat().st_mtime)  # clocks jump
    except OSError:
        saved = None
    return Status(
        name=printable(path.name),
        path=path,
        state=summary.state,
        writer=writer(path) if summary.state == "running" else "",
        view=TrainingView.of_run(path, outline=True),
        saved_seconds=saved,
        has_model=(path / MODEL).is_file(),
    )


def print_status(path: Path, *, as_json: bool) -> None:
    """Print how the run in `path` stands.

    Raises:
        RunError: it has no readable configuration.
    """
    status = read_status(path)
    if as_json:
        print(json.dumps(to_json(status)))
        return
    console = Console(highlight=False)
    console.print(Text(f"{status.name}  {status.state}{_by(status)}", "bold"))
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(status):
        facts.add_row(Text(name, "dim"), Text(printable(value)))
    console.print(facts)
    for name, what in _what_next(status):
        console.print(Text(f"{name + ':':10}{what}", "dim"), soft_wrap=True)


def to_json(status: Status) -> dict[str, Any]:
    """All of it as a JSON object; what is not known is null."""
    view, step, best = status.view, status.view.steps.last, status.view.best
    started, finished = view.started, view.finished
    sample = view.samples[-1] if view.samples else None
    return {
        "run": status.name,
        "path": str(status.path),
        "state": status.state,
        "writer": status.writer or None,
        "epoch": _finite(view.epoch),
        "epochs": view.epochs or None,
        "step": step.step if step else None,
        "train_perplexity": _finite(step.train_perplexity) if step else None,
        "valid_perplexity": _finite(view.evaluations[-1].valid_perplexity) if view.evaluations else None,
        "best_valid_perplexity": _finite(best.valid_perplexity) if best else None,
        "best_epoch": _finite(best.epoch) if best else None,
        "test_perplexity": _finite(finished.test_perplexity) if finished else None,
        "unigram_perplexity": _finite(started.unigram_perplexity) if started else None,
        "kneser_ney_perplexity": _finite(started.kneser_ney_perplexity) if started else None,
        "lr": _finite(step.lr) if step else None,
        "tokens_per_second": _finite(step.tokens_per_second) if step else None,
        "seconds": _finite(finished.seconds) if finished else _finite(step.seconds) if step else None,
        "eta_seconds": _finite(step.eta_seconds) if step and status.state == "running" else None,
        "sample": {"epoch": _finite(sample.epoch), "prompt": sample.prompt, "text": sample.text} if sample else None,
        "saved_seconds_ago": status.saved_seconds,
        "failure": view.failure or None,
    }


def _facts(status: Status) -> list[tuple[str, str]]:
    view, step, best = status.view, status.view.steps.last, status.view.best
    facts = [("epoch", f"{view.epoch:.1f} of {view.epochs}" + (f", update {step.step:,}" if step else ""))]
    if view.failure:
        facts.append(("failed", view.failure))
    if step:
        facts.append(("train", _perplexity(step.train_perplexity)))
    if view.evaluations and best:
        valid = _perplexity(view.evaluations[-1].valid_perplexity)
        facts.append(("valid", f"{valid}, best {_perplexity(best.valid_perplexity)} at epoch {best.epoch:.1f}"))
    if view.finished and math.isfinite(view.finished.test_perplexity):
        facts.append(("test", _perplexity(view.finished.test_perplexity)))
    if view.started:
        levels = (view.started.unigram_perplexity, view.started.kneser_ney_perplexity)
        facts.append(("to beat", "unigram {}, Kneser-Ney {}".format(*map(_perplexity, levels))))
    if step:
        facts.append(("rate", f"{step.lr:.5f}, {_whole(step.tokens_per_second)} tokens/s"))
        left = f", {_time(step.eta_seconds)} left" if status.state == "running" else ""
        facts.append(("time", _time(view.finished.seconds if view.finished else step.seconds) + left))
    if view.samples:
        sample = view.samples[-1]
        facts.append(("sample", f'epoch {sample.epoch:.1f}: "{sample.prompt}" {sample.text}'))
    if status.saved_seconds is not None:
        facts.append(("saved", f"{ago(status.saved_seconds)} ago"))
    return facts


def _what_next(status: Status) -> list[tuple[str, str]]:
    name = status.name
    if status.state == "running":
        return [("watch", f"lotr-tui attach {name}"), ("stop", f"lotr-tui stop {name}")]
    lines = [("look", f"lotr-tui attach {name}")]
    if status.has_model:
        lines.append(("play", f"lotr-tui --run {name}"))
    if status.state != "finished":
        lines.append(("resume", f"lotr-tui train --resume {name}"))
    return lines


def _by(status: Status) -> str:
    return f", by {status.writer}" if status.writer else ""


def _perplexity(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "-"


def _whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "-"


def _time(seconds: float) -> str:
    return duration(seconds) if math.isfinite(seconds) else "-"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
