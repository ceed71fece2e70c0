"""`lotr-tui attach`, `status`, `stop` and `runs`: a training in another process, a list of runs, and one of them."""

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from engine import control, events
from engine.errors import InvalidInputError, LotrError, describe_error, printable, shell_word
from engine.runs import directory, loading, locked_run
from engine.storage.files import default_runs_dir
from lotr_tui import formatting
from lotr_tui.cli import console, main
from lotr_tui.cli.main import option
from lotr_tui.monitor import run_list, training_view
from lotr_tui.trackers import follower, libraries, tensorboard_import

STOP_TIMEOUT, STOP_POLL_INTERVAL = 20.0, 0.1  # seconds to wait for the training to obey
STYLES: dict[run_list.Role, str] = {"heading": "bold", "best": "bold green", "better": "green"}
STYLES |= {"worse": "red", "muted": "dim"}
HF_HELP = "Write a Transformer, with its adapter merged, into a new folder for transformers, with the same logits."
PEFT_HELP = "Write the adapter of a run, without its base, into a new folder for PEFT."
GGUF_HELP = "Write a Transformer, with its adapter merged, into a new file for llama.cpp and Ollama."
TYPE_HELP = "Type of the matrices in FILE: q8_0 is half the size and less exact. Default: f16."
EXAMPLES = "lotr-tui runs compare my-run other-run\nlotr-tui runs export my-run --csv tables"
commands, run_commands = main.Commands(), main.Commands(epilog=EXAMPLES)
commands.add_typer(run_commands, name="runs")


@commands.command("attach", cls=main.Command)
def attach(
    run: main.RunArgument = "latest",
    runs_dir: main.RunsDirOption = None,
    theme: main.ThemeOption = None,
    no_mouse: main.NoMouseOption = False,
) -> int:
    """Show the dashboard of a running or finished run. Closing it does not stop the training."""
    path = directory.resolve_run(run, runs_dir).absolute()
    if not main.has_terminal():
        raise InvalidInputError(f"attach needs a terminal; use `lotr-tui status {shell_word(run)}` instead")
    from lotr_tui.cli.launch import open_dashboard  # imports Textual

    return open_dashboard(path, theme, mouse=not no_mouse)


@commands.command("status", cls=main.Command)
def status(
    run: main.RunArgument = "latest", runs_dir: main.RunsDirOption = None, as_json: main.JsonOption = False
) -> None:
    """Print the progress of a run on one screen of text."""
    print_status(directory.resolve_run(run, runs_dir).absolute(), as_json=as_json)


def print_status(path: Path, *, as_json: bool) -> None:
    """Print the progress of the run in `path`; one whose configuration cannot be read raises a RunError."""
    state, word = directory.summarize_run(path).state, directory.run_word(path)
    view = training_view.TrainingView.from_run(path, subsample=True)
    writer = directory.lock_owner(path)
    saved = _saved_file(path)
    saved_seconds_ago = saved and max(0.0, time.time() - saved[1] / 1e9)  # the clock may be set back
    if as_json:
        facts = {"run": printable(path.name), "path": str(path), "state": state, "writer": writer or None}
        console.print_json({**facts, "saved_seconds_ago": saved_seconds_ago, **_status_record(view, state)})
        return
    print(f"{printable(path.name)}  {state}{f', by {writer}' if writer else ''}")
    rows = _status_rows(view, state)
    if saved_seconds_ago is not None:
        rows.append(("saved", f"{formatting.format_age(saved_seconds_ago)} ago"))
    for label, value in rows:
        print(f"{label:15}{printable(value)}")
    hints = [("watch" if state == "running" else "view", f"attach {word}")]
    if state == "running":
        hints.append(("stop", f"stop {word}"))
    elif any((path / name).is_file() for name in directory.WEIGHT_FILES):
        hints.append(("play", f"--run {word}"))
    if state not in (*directory.COMPLETE, "running"):
        hints.append(("resume", f"train --resume {word}"))
    for label, command in hints:
        print(f"{label + ':':10}lotr-tui {command}")


def _status_record(view: training_view.TrainingView, state: str) -> dict[str, Any]:
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


def _status_rows(view: training_view.TrainingView, state: str) -> list[tuple[str, str]]:
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
        rows.append(("learning rate", f"{step.lr:.5f}, {formatting.format_count(step.tokens_per_second)} tokens/s"))
        remaining = f", {formatting.format_duration(step.eta_seconds)} left" if state == "running" else ""
        rows.append(("time", formatting.format_duration(finished.seconds if finished else step.seconds) + remaining))
    for diagnosis in view.current_diagnoses:
        label = "remedy" if state == "running" else "advised"  # an ended run cannot be stopped any more
        rows += [("diagnosis", diagnosis.message), (label, diagnosis.remedy)]
    if view.samples:
        sample = view.samples[-1]
        rows.append(("sample", f'epoch {sample.epoch:.1f}: "{sample.prompt}" {sample.text}'))
    return [(label, value) for label, value in rows if value]


@commands.command("stop", cls=main.Command)
def stop(
    run: main.RunArgument = "latest",
    checkpoint: Annotated[bool, option("--checkpoint", "Save and continue, instead of stopping.")] = False,
    runs_dir: main.RunsDirOption = None,
) -> None:
    """Ask a running training to save and stop."""
    path = directory.resolve_run(run, runs_dir).absolute()
    before = _saved_file(path)
    locked_run.send_command(path, control.ControlCommand("checkpoint" if checkpoint else "stop"))
    deadline = time.monotonic() + STOP_TIMEOUT
    while directory.lock_owner(path) and not (checkpoint and _saved_file(path) != before):
        if time.monotonic() > deadline:
            raise LotrError(
                f"run {path.name} has not {'saved' if checkpoint else 'stopped'} within {STOP_TIMEOUT:.0f} s; it does "
                f"so between two steps. Check again with `lotr-tui status {directory.run_word(path)}`"
            )
        time.sleep(STOP_POLL_INTERVAL)
    resume = f"; resume it: lotr-tui train --resume {directory.run_word(path)}" if _saved_file(path) else ""
    message = f"has stopped{resume}"
    if checkpoint:
        message = "is saved" if directory.lock_owner(path) else "has ended"
    print(printable(f"run {path.name} {message}"))


def _saved_file(path: Path) -> tuple[int, int] | None:
    """Return inode and modification time of the checkpoint file, which change with every save."""
    try:
        status = (path / directory.RESUME_FILE).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


@run_commands.callback()
def runs(context: typer.Context, runs_dir: main.RunsDirOption = None, as_json: main.JsonOption = False) -> None:
    """List, compare or import runs, or show, rename, delete or export one.

    Without a command, list them, latest first.
    """
    if context.invoked_subcommand is not None:
        return
    summaries = directory.list_runs(runs_dir)
    if as_json:
        console.print_json([{**asdict(run), "path": str(run.path)} for run in summaries])
        return
    for path in sorted(set(directory.find_run_dirs(runs_dir or default_runs_dir())) - {run.path for run in summaries}):
        problem = f"run {path.name} cannot be read; see `lotr-tui runs show {directory.run_word(path)}`"
        print(printable(problem), file=sys.stderr)
    if not summaries:
        print("no runs yet; start one with `lotr-tui train`", file=sys.stderr)
        return
    rows = [
        [
            *(printable(run.name), run.state, printable(run.preset), run.architecture, run.mode),
            f"{run.epochs:.1f}",
            run_list.format_run_loss(run.valid_perplexity, run),
            run_list.format_run_loss(run.test_perplexity, run),
            formatting.format_age(time.time() - run.started_at),
            f"{run.size_bytes / 1e6:.1f}",
        ]
        for run in summaries
    ]
    console.print_table(["run", "state", "preset", "model", "mode"], ["epochs", "valid", "test", "age", "MB"], rows)
    for run in summaries:
        if run.nothing_learned:
            print(printable(f"{run.name}: {run.nothing_learned}"))
    if any(run.pretrained_on_other_text for run in summaries):
        print(formatting.PRETRAINED_MARK_NOTE)


@run_commands.command("show", cls=main.Command)
def runs_show(run: main.RunArgument, runs_dir: main.RunsDirOption = None) -> None:
    """Print the settings, evaluations and saved epochs of a run as JSON."""
    path = directory.resolve_run(run, runs_dir)
    rows = directory.drop_superseded(directory.read_events(path / directory.METRICS_FILE, subsample=True))
    evaluations = [event for event in rows if isinstance(event, events.Evaluated)]
    epochs = loading.list_epoch_checkpoints(path)
    record = {
        **asdict(directory.summarize_run(path)),
        "path": str(path),
        "config": json.loads(directory.read_config(path).to_json()),
        "saved_epochs": [{"epoch": epoch, "valid_perplexity": valid} for epoch, valid in epochs.items()],
        "evaluations": [[event.step, event.epoch, event.valid_perplexity] for event in evaluations],
    }
    console.print_json(record, indent=2)


@run_commands.command("compare", cls=main.Command, epilog="lotr-tui runs compare first second --baseline second")
def runs_compare(
    runs: Annotated[list[str], option("RUN", "Names or paths of runs, or latest.")],
    baseline: Annotated[str | None, option("--baseline RUN", "Run to compare with. Default: the first.")] = None,
    runs_dir: main.RunsDirOption = None,
    as_json: main.JsonOption = False,
) -> None:
    """Print the settings that differ between runs, their results, and the differences to a baseline."""
    paths = list(dict.fromkeys(directory.resolve_run(run, runs_dir).absolute() for run in runs))
    baseline_path = paths[0] if baseline is None else directory.resolve_run(baseline, runs_dir).absolute()
    if baseline_path not in paths:
        paths.insert(0, baseline_path)
    if len(paths) < 2:
        problem = f"runs compare needs two different runs, and got only {runs[0]}"
        raise InvalidInputError(f"{problem}; name another one, see `lotr-tui runs`")
    names = [directory.bundled_runs().get(path) or path.name for path in paths]
    names = [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
    compared = [run_list.read_compared_run(path, name) for path, name in zip(paths, names, strict=True)]
    compared_runs = run_list.compare_runs(compared, paths.index(baseline_path))
    if as_json:
        console.print_json(_comparison_record(compared_runs, names), indent=2)
        return
    output = console.make_console()
    for part in run_list.comparison_tables(compared_runs, names, output.width, STYLES):
        output.print(part)


def _comparison_record(compared: run_list.RunComparison, names: Sequence[str]) -> dict[str, Any]:
    """Return a comparison as a JSON object. Unknown values and differences of incomparable figures are null."""
    rows, records = compared.metrics, []
    for index, run in enumerate(compared.runs):
        differences = {row.metric.name: row.differences[index] for row in rows}
        records.append(
            {
                "run": run.name,
                "path": str(run.path),
                "state": run.state,
                "settings": {name: values[index] for name, values in compared.settings.items()},
                **{row.metric.name: row.values[index] for row in rows},
                "difference": {name: each and each._asdict() for name, each in differences.items()},
                "adapter_norms": run.adapter_norms or None,
            }
        )
    return {
        "baseline": names[compared.baseline],
        "runs": records,
        "best": {row.metric.name: names[min(row.best)] if row.best else None for row in rows if row.metric.better},
        "comparable": {row.metric.name: row.is_comparable for row in rows if row.metric.parts},
        "notes": list(compared.notes),
    }


@run_commands.command("import", cls=main.Command)
def runs_import(
    tensorboard: Annotated[Path, option("--tensorboard DIR", "Folder with event files, one run per folder in it.")],
    run: Annotated[str | None, option("--run NAME", "Name of the new run. Default: that of the folder.")] = None,
    tag: Annotated[str | None, option("--tag TAG", "Curve of the validation. Default: by the names.")] = None,
    runs_dir: main.RunsDirOption = None,
) -> None:
    """Import the curves of trainings by other programs, to compare them in the list of runs."""
    for line in tensorboard_import.import_tensorboard(tensorboard, runs_dir or default_runs_dir(), run, tag):
        print(printable(line))


@run_commands.command("rm", cls=main.Command)
def runs_rm(
    run: main.RunArgument,
    runs_dir: main.RunsDirOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a run with its model, and print its name and path."""
    path = directory.resolve_run(run, runs_dir).absolute()
    try:
        is_confirmed = yes or typer.confirm(printable(f"Delete run {path.name} in {path}?"), err=True)
    except typer.Abort:
        print(file=sys.stderr)  # the line of the question has no end
        raise InvalidInputError(f"runs rm {run} needs a confirmation; give --yes") from None
    if not is_confirmed:
        raise LotrError(f"run {path.name} was not deleted")
    locked_run.delete_run(path, runs_dir)
    print(printable(f"deleted run {path.name}: {path}"))


@run_commands.command("rename", cls=main.Command)
def runs_rename(
    old: Annotated[str, option("OLD", "Name of a run, or latest.")],
    new: Annotated[str, option("NEW", "New name of the run.")],
    runs_dir: main.RunsDirOption = None,
) -> None:
    """Rename a run."""
    print(printable(locked_run.rename_run(old, new, runs_dir)))


@run_commands.command("export", cls=main.Command)
def runs_export(
    run: main.RunArgument,
    csv: Annotated[Path | None, option("--csv DIR", "Write one CSV table per kind of event.")] = None,
    tensorboard: Annotated[Path | None, option("--tensorboard DIR", "Write logs for TensorBoard.")] = None,
    hugging_face: Annotated[Path | None, option("--hf DIR", HF_HELP)] = None,
    peft: Annotated[Path | None, option("--peft DIR", PEFT_HELP)] = None,
    gguf: Annotated[Path | None, option("--gguf FILE", GGUF_HELP)] = None,
    gguf_type: Annotated[Literal["f16", "q8_0"] | None, option("--type f16|q8_0", TYPE_HELP)] = None,
    tracker: Annotated[
        libraries.TrackerName | None, option("--log TRACKER", "Send a tracker what it misses of the run.")
    ] = None,
    runs_dir: main.RunsDirOption = None,
) -> None:
    """Export the metrics or the model of a run for other programs."""
    path = directory.resolve_run(run, runs_dir).absolute()
    targets = [target for target in (csv, tensorboard, hugging_face, peft, gguf) if target is not None]
    if len(targets) + (tracker is not None) != 1:
        options = "--csv DIR, --tensorboard DIR, --hf DIR, --peft DIR, --gguf FILE and --log TRACKER"
        raise InvalidInputError(f"give one of {options}")
    if gguf_type is not None and gguf is None:
        raise InvalidInputError("--type belongs to --gguf FILE")
    from engine.runs import export  # imports gguf, which the list of runs does not need
    from lotr_tui.monitor.export import export_csv, export_tensorboard

    if tracker is not None:
        _send_to_tracker(path, tracker)
    elif hugging_face is not None:
        export.export_hugging_face(path, hugging_face.absolute())
    elif peft is not None:
        export.export_peft(path, peft.absolute())
    elif gguf is not None:
        export.export_gguf(path, gguf, gguf_type or "f16")
    elif csv is not None:
        export_csv(path, csv)
    else:
        export_tensorboard(path, targets[0])
    for target in targets:
        print(printable(str(target)))


def _send_to_tracker(run_dir: Path, name: libraries.TrackerName) -> None:
    """Send what a tracker misses of a run, and print how to see it there."""
    libraries.check_installed([name])
    try:
        state = follower.send_run(run_dir, name)
    except InvalidInputError:
        raise
    except Exception as error:
        again = f"lotr-tui runs export {directory.run_word(run_dir)} --log {name}"
        raise LotrError(f"{name} failed: {describe_error(error).rstrip('.')}; try again with: {again}") from error
    if not state.tracker_id:
        raise InvalidInputError(f"run {run_dir.name!r} has nothing to send yet")
    view = libraries.view_command(name, run_dir)
    print(printable(f"{name} has everything of run {run_dir.name}; see it with: {view}"))
    if not state.is_complete:
        rest = "is going on" if directory.lock_owner(run_dir) else "can be resumed"
        print(printable(f"the training {rest}; the same command sends what is added"), file=sys.stderr)
