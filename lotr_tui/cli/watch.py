"""`lotr-tui attach`, `status` and `stop`: a training in another process, or one that has ended."""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from engine.control import ControlCommand
from engine.errors import InvalidInputError, LotrError, printable, shell_word
from engine.runs.directory import RESUME_FILE, WEIGHT_FILES, is_locked, lock_owner, resolve_run, run_word
from engine.runs.locked_run import send_command
from engine.runs.summary import COMPLETE, summarize_run
from lotr_tui.cli.console import print_json
from lotr_tui.cli.options import JsonOption, NoMouseOption, RunsDirOption, ThemeOption, check_theme, has_terminal
from lotr_tui.cli.parser import add_command, argument, flag, make_group
from lotr_tui.formatting import format_age, format_count, format_duration
from lotr_tui.monitor.training_view import TrainingView

STOP_TIMEOUT, STOP_POLL_INTERVAL = 20.0, 0.1  # seconds to wait for the training to obey
RunArgument = Annotated[str, argument("RUN", "Name or path of a run, or latest.")]
commands = make_group()


@add_command(commands, "attach")
def attach(
    run: RunArgument = "latest",
    runs_dir: RunsDirOption = None,
    theme: ThemeOption = None,
    no_mouse: NoMouseOption = False,
) -> int:
    """Show the dashboard of a running or finished run. Closing it does not stop the training."""
    check_theme(theme)
    path = resolve_run(run, runs_dir).absolute()
    if not has_terminal():
        raise InvalidInputError(f"attach needs a terminal; use `lotr-tui status {shell_word(run)}` instead")
    from lotr_tui.cli.launch import AttachApp, run_app  # imports Textual

    return run_app(AttachApp(path, theme=theme), mouse=not no_mouse)


@add_command(commands, "status")
def status(run: RunArgument = "latest", runs_dir: RunsDirOption = None, as_json: JsonOption = False) -> None:
    """Print the progress of a run on one screen of text."""
    print_status(resolve_run(run, runs_dir).absolute(), as_json=as_json)


def print_status(path: Path, *, as_json: bool) -> None:
    """Print the progress of the run in `path`; one whose configuration cannot be read raises a RunError."""
    state, word = summarize_run(path).state, run_word(path)
    view, writer = TrainingView.from_run(path, subsample=True), lock_owner(path) if state == "running" else ""
    try:
        saved_seconds_ago = max(0.0, time.time() - (path / RESUME_FILE).stat().st_mtime)  # the clock may be set back
    except OSError:
        saved_seconds_ago = None
    if as_json:
        facts = {"run": printable(path.name), "path": str(path), "state": state, "writer": writer or None}
        print_json({**facts, "saved_seconds_ago": saved_seconds_ago, **_status_record(view, state)})
        return
    print(f"{printable(path.name)}  {state}{f', by {writer}' if writer else ''}")
    rows = _status_rows(view, state)
    if saved_seconds_ago is not None:
        rows.append(("saved", f"{format_age(saved_seconds_ago)} ago"))
    for label, value in rows:
        print(f"{label:15}{printable(value)}")
    hints = [("watch" if state == "running" else "view", f"attach {word}")]
    if state == "running":
        hints.append(("stop", f"stop {word}"))
    elif any((path / name).is_file() for name in WEIGHT_FILES):
        hints.append(("play", f"--run {word}"))
    if state not in (*COMPLETE, "running"):
        hints.append(("resume", f"train --resume {word}"))
    for label, command in hints:
        print(f"{label + ':':10}lotr-tui {command}")


def _status_record(view: TrainingView, state: str) -> dict[str, Any]:
    step, best, started, finished = view.steps.last, view.best, view.started, view.finished
    return {
        "epoch": view.epoch,
        "epochs": view.epochs or None,
        **{name: getattr(step, name, None) for name in ("step", "train_perplexity", "lr", "tokens_per_second")},
        "valid_perplexity": view.evaluations[-1].valid_perplexity if view.evaluations else None,
        "best_valid_perplexity": best.valid_perplexity if best else None,
        "best_epoch": best.epoch if best else None,
        "test_perplexity": finished.test_perplexity if finished else None,
        **{name: getattr(started, name, None) for name in ("unigram_perplexity", "kneser_ney_perplexity")},
        "seconds": getattr(finished or step, "seconds", None),
        "eta_seconds": step.eta_seconds if step and state == "running" else None,
        "sample": asdict(view.samples[-1]) if view.samples else None,
        "failure": view.failure or None,
        "diagnoses": [asdict(event) for event in view.current_diagnoses],
    }


def _status_rows(view: TrainingView, state: str) -> list[tuple[str, str]]:
    step, best, started, finished, unit = view.steps.last, view.best, view.started, view.finished, view.unit
    progress = f"{view.epoch:.1f} of {view.epochs}" if view.epochs else "not started yet"
    if state == "imported":
        progress = f"{view.epoch:.1f}"
    rows = [("epoch", progress + (f", step {step.step:,}" if step else "")), ("failed", view.failure)]
    if step:
        rows.append(("train", unit.format(step.train_perplexity)))
    if view.evaluations and best:
        valid = unit.format(view.evaluations[-1].valid_perplexity)
        rows.append(("valid", f"{valid}, best {unit.format(best.valid_perplexity)} at epoch {best.epoch:.1f}"))
    if finished and math.isfinite(finished.test_perplexity):
        rows.append(("test", unit.format(finished.test_perplexity)))
    if started:
        unigram, kneser_ney = unit.format(started.unigram_perplexity), unit.format(started.kneser_ney_perplexity)
        rows.append(("baselines", f"unigram {unigram}, Kneser-Ney {kneser_ney}"))
        rows.append(("figures", "" if unit.is_perplexity else unit.title))
    if step:
        rows.append(("learning rate", f"{step.lr:.5f}, {format_count(step.tokens_per_second)} tokens/s"))
        remaining = f", {format_duration(step.eta_seconds)} left" if state == "running" else ""
        rows.append(("time", format_duration(finished.seconds if finished else step.seconds) + remaining))
    for diagnosis in view.current_diagnoses:
        rows += [("diagnosis", diagnosis.message), ("remedy", diagnosis.remedy)]
    if view.samples:
        sample = view.samples[-1]
        rows.append(("sample", f'epoch {sample.epoch:.1f}: "{sample.prompt}" {sample.text}'))
    return [(label, value) for label, value in rows if value]


@add_command(commands, "stop")
def stop(
    run: RunArgument = "latest",
    checkpoint: Annotated[bool, flag("--checkpoint", "Save and continue, instead of stopping.")] = False,
    no_wait: Annotated[bool, flag("--no-wait", "Return without waiting for the training.")] = False,
    runs_dir: RunsDirOption = None,
) -> None:
    """Ask a running training to save and stop."""
    path = resolve_run(run, runs_dir).absolute()
    before = _saved_file(path)
    send_command(path, ControlCommand("checkpoint" if checkpoint else "stop"))
    deadline = time.monotonic() + STOP_TIMEOUT
    while not no_wait and is_locked(path) and not (checkpoint and _saved_file(path) != before):
        if time.monotonic() > deadline:
            raise LotrError(
                f"run {path.name} has not {'saved' if checkpoint else 'stopped'} within {STOP_TIMEOUT:.0f} s; it does "
                f"so between two steps. Check again with `lotr-tui status {run_word(path)}`"
            )
        time.sleep(STOP_POLL_INTERVAL)
    message = "has stopped" + (f"; resume it: lotr-tui train --resume {run_word(path)}" if _saved_file(path) else "")
    if no_wait:
        message = f"was asked to save{'' if checkpoint else ' and stop'}"
    elif checkpoint:
        message = "is saved" if is_locked(path) else "has ended"
    print(printable(f"run {path.name} {message}"))


def _saved_file(path: Path) -> tuple[int, int] | None:
    """Return inode and modification time of the checkpoint file, which change with every save."""
    try:
        status = (path / RESUME_FILE).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
