"""`lotr-tui runs`: a list of runs, a comparison, and what is done with one of them."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from engine.errors import InvalidInputError, LotrError, describe_error, printable
from engine.events import Evaluated
from engine.runs import directory, loading, locked_run, metrics, summary
from engine.runs.directory import resolve_run, run_word
from engine.storage.files import default_runs_dir
from lotr_tui import formatting
from lotr_tui.cli.console import make_console, print_json, print_table
from lotr_tui.cli.options import JsonOption, RunsDirOption
from lotr_tui.cli.parser import add_command, argument, flag, make_group, number, option
from lotr_tui.monitor.comparison import RunComparison, compare_runs, read_compared_run
from lotr_tui.monitor.comparison_table import Role, comparison_tables
from lotr_tui.trackers import libraries
from lotr_tui.trackers.follower import send_run
from lotr_tui.trackers.libraries import TrackerName
from lotr_tui.trackers.tensorboard_import import import_tensorboard

STYLES: dict[Role, str] = {
    "heading": "bold",
    "best": "bold green",
    "better": "green",
    "worse": "red",
    "muted": "dim",
}
RunArgument = Annotated[str, argument("RUN", "Name or path of a run, or latest.")]
HF_HELP = "Write a Transformer, with its adapter merged, into a new folder for transformers, with the same logits."
GGUF_HELP = "Write a Transformer into a new file for llama.cpp and Ollama, with a Modelfile if it converses."
TYPE_HELP = "Type of the matrices in FILE: q8_0 is half the size and less exact. Default: f16."
LOG_HELP = "Send to an experiment tracker what it misses of the run."
CURVE_HELP = "Values of the curves: perplexities, or losses in nats. Default: by the name of the tag."
PRECISION_HELP = "Weight matrices: int8 is a quarter of the size and less exact, fp16 half the size."
commands = make_group("lotr-tui runs compare my-run other-run", "lotr-tui runs export my-run --csv tables", name="runs")


@commands.callback()
def runs(context: typer.Context, runs_dir: RunsDirOption = None, as_json: JsonOption = False) -> None:
    """List or compare runs, or show, rename, delete, export or copy one. Without a command, list them, latest first."""
    if context.invoked_subcommand is not None:
        return
    summaries = summary.list_runs(runs_dir)
    if as_json:
        print_json([{**asdict(run), "path": str(run.path)} for run in summaries])
        return
    for path in sorted(set(directory.find_run_dirs(runs_dir or default_runs_dir())) - {run.path for run in summaries}):
        print(printable(f"run {path.name} cannot be read; see `lotr-tui runs show {run_word(path)}`"), file=sys.stderr)
    if not summaries:
        print("no runs yet; start one with `lotr-tui train`", file=sys.stderr)
        return
    rows = [
        [
            *(printable(run.name), run.state, printable(run.preset), run.architecture, run.mode),
            f"{run.epochs:.1f}",
            formatting.format_run_perplexity(run.valid_perplexity, run),
            formatting.format_run_perplexity(run.test_perplexity, run),
            formatting.format_age(time.time() - run.started_at),
            f"{run.size_bytes / 1e6:.1f}",
        ]
        for run in summaries
    ]
    print_table(["run", "state", "preset", "model", "mode"], ["epochs", "valid", "test", "age", "MB"], rows)
    if any(run.pretrained_on_other_text for run in summaries):
        print(formatting.PRETRAINED_MARK_NOTE)


@add_command(commands, "show")
def runs_show(run: RunArgument, runs_dir: RunsDirOption = None) -> None:
    """Print the settings, evaluations and saved epochs of a run as JSON."""
    path = resolve_run(run, runs_dir)
    events = metrics.read_current_events(path / directory.METRICS_FILE, subsample=True)
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    record = {
        **asdict(summary.summarize_run(path)),
        "path": str(path),
        "config": json.loads(directory.read_config(path).to_json()),
        "saved_epochs": [asdict(checkpoint) for checkpoint in loading.list_epoch_checkpoints(path)],
        "evaluations": [[event.step, event.epoch, event.valid_perplexity] for event in evaluations],
    }
    print_json(record, indent=2)


@add_command(commands, "compare", "lotr-tui runs compare my-run other-run", "lotr-tui runs compare a b c --baseline b")
def runs_compare(
    runs: Annotated[list[str], argument("RUN", "Names or paths of runs, or latest.")],
    baseline: Annotated[str | None, option("--baseline", "RUN", "Run to compare with. Default: the first.")] = None,
    runs_dir: RunsDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the settings that differ between runs, their results, and the differences to a baseline."""
    paths = list(dict.fromkeys(resolve_run(run, runs_dir).absolute() for run in runs))
    baseline_path = paths[0] if baseline is None else resolve_run(baseline, runs_dir).absolute()
    if baseline_path not in paths:
        paths.insert(0, baseline_path)
    if len(paths) < 2:
        raise InvalidInputError(
            f"runs compare needs two different runs, and got only {runs[0]}; name another one, see `lotr-tui runs`"
        )
    names = [directory.bundled_run_name(path) or path.name for path in paths]
    names = [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
    compared = [read_compared_run(path, name) for path, name in zip(paths, names, strict=True)]
    comparison = compare_runs(compared, paths.index(baseline_path))
    if as_json:
        print_json(_comparison_record(comparison, names), indent=2)
        return
    console = make_console()
    for part in comparison_tables(comparison, names, console.width, STYLES):
        console.print(part)


def _comparison_record(comparison: RunComparison, names: Sequence[str]) -> dict[str, Any]:
    """Return a comparison as a JSON object. Unknown values and differences of incomparable figures are null."""
    rows, records = comparison.metrics, []
    for index, run in enumerate(comparison.runs):
        differences = {row.metric.name: row.differences[index] for row in rows}
        records.append(
            {
                "run": run.name,
                "path": str(run.path),
                "state": run.state,
                "settings": {name: values[index] for name, values in comparison.settings.items()},
                **{row.metric.name: row.values[index] for row in rows},
                "difference": {name: each and asdict(each) for name, each in differences.items()},
            }
        )
    return {
        "baseline": names[comparison.baseline],
        "runs": records,
        "best": {row.metric.name: names[min(row.best)] if row.best else None for row in rows if row.metric.better},
        "comparable": {row.metric.name: row.is_comparable for row in rows if row.metric.parts},
        "notes": list(comparison.notes),
    }


@add_command(commands, "import")
def runs_import(
    tensorboard: Annotated[Path, option("--tensorboard", "DIR", "Folder with event files, one run per folder in it.")],
    run: Annotated[str | None, option("--run", "NAME", "Name of the new run. Default: that of the folder.")] = None,
    tag: Annotated[str | None, option("--tag", "TAG", "Curve of the validation. Default: the first of them.")] = None,
    as_perplexity: Annotated[bool | None, flag("--perplexity/--loss", CURVE_HELP)] = None,
    steps_per_epoch: Annotated[
        int | None, number("--steps-per-epoch", int, "Default: the curve called epoch.", None, 1, 1e9)
    ] = None,
    runs_dir: RunsDirOption = None,
) -> None:
    """Import the curves of trainings by other programs, to compare them in the list of runs."""
    imported = import_tensorboard(tensorboard, runs_dir or default_runs_dir(), run, tag, steps_per_epoch, as_perplexity)
    for each in imported:
        print(
            printable(
                f"{each.path.name}: {each.curve}, best perplexity {formatting.format_perplexity(each.best_perplexity)}"
            )
        )
    if not all(each.has_epochs for each in imported):
        print("the logs have no epochs, so each evaluation counts as one; give --steps-per-epoch N", file=sys.stderr)


@add_command(commands, "rm")
def runs_rm(
    run: RunArgument,
    runs_dir: RunsDirOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a run with its model, and print its name and path."""
    path = resolve_run(run, runs_dir).absolute()
    try:
        is_confirmed = yes or typer.confirm(printable(f"Delete run {path.name} in {path}?"), err=True)
    except typer.Abort:
        print(file=sys.stderr)  # the line of the question has no end
        raise InvalidInputError(f"runs rm {run} needs a confirmation; give --yes") from None
    if not is_confirmed:
        raise LotrError(f"run {path.name} was not deleted")
    locked_run.delete_run(path, runs_dir)
    print(printable(f"deleted run {path.name}: {path}"))


@add_command(commands, "rename")
def runs_rename(
    old: Annotated[str, argument("OLD", "Name of a run, or latest.")],
    new: Annotated[str, argument("NEW", "New name of the run.")],
    runs_dir: RunsDirOption = None,
) -> None:
    """Rename a run."""
    print(printable(locked_run.rename_run(old, new, runs_dir)))


@add_command(commands, "export")
def runs_export(
    run: RunArgument,
    csv: Annotated[Path | None, option("--csv", "DIR", "Write one CSV table per kind of event.")] = None,
    tensorboard: Annotated[Path | None, option("--tensorboard", "DIR", "Write logs for TensorBoard.")] = None,
    hugging_face: Annotated[Path | None, option("--hf", "DIR", HF_HELP)] = None,
    gguf: Annotated[Path | None, option("--gguf", "FILE", GGUF_HELP)] = None,
    gguf_type: Annotated[Literal["f16", "q8_0"] | None, option("--type", "f16|q8_0", TYPE_HELP)] = None,
    tracker: Annotated[TrackerName | None, option("--log", "tensorboard|wandb|mlflow|trackio", LOG_HELP)] = None,
    runs_dir: RunsDirOption = None,
) -> None:
    """Export the metrics or the model of a run for other programs."""
    path = resolve_run(run, runs_dir).absolute()
    targets = [target for target in (csv, tensorboard, hugging_face, gguf) if target is not None]
    if len(targets) + (tracker is not None) != 1:
        raise InvalidInputError("give one of --csv DIR, --tensorboard DIR, --hf DIR, --gguf FILE and --log TRACKER")
    if gguf_type is not None and gguf is None:
        raise InvalidInputError("--type belongs to --gguf FILE")
    from engine.runs import export  # imports gguf, which the list of runs does not need
    from lotr_tui.monitor.export import export_csv, export_tensorboard

    if tracker is not None:
        _send_to_tracker(path, tracker)
    elif hugging_face is not None:
        export.export_hugging_face(path, hugging_face.absolute())
    elif gguf is not None:
        targets = export.export_gguf(path, gguf, gguf_type or "f16")
    elif csv is not None:
        export_csv(path, csv)
    else:
        export_tensorboard(path, targets[0])
    for target in targets:
        print(printable(str(target)))


def _send_to_tracker(run_dir: Path, name: TrackerName) -> None:
    """Send what a tracker misses of a run, and print how to see it there."""
    libraries.check_installed([name])
    try:
        state = send_run(run_dir, name)
    except InvalidInputError:
        raise
    except Exception as error:
        again = f"lotr-tui runs export {run_word(run_dir)} --log {name}"
        raise LotrError(f"{name} failed: {describe_error(error).rstrip('.')}; try again with: {again}") from error
    if not state.tracker_id:
        raise InvalidInputError(f"run {run_dir.name!r} has nothing to send yet")
    print(
        printable(f"{name} has everything of run {run_dir.name}; see it with: {libraries.view_command(name, run_dir)}")
    )
    if not state.is_complete:
        rest = "is going on" if directory.is_locked(run_dir) else "can be resumed"
        print(printable(f"the training {rest}; the same command sends what is added"), file=sys.stderr)


@add_command(commands, "compact")
def runs_compact(
    run: RunArgument,
    folder: Annotated[Path, argument("DIR", "Folder of the copy, which must not exist.")],
    precision: Annotated[Literal["fp16", "int8"], option("--precision", "fp16|int8", PRECISION_HELP)] = "int8",
    runs_dir: RunsDirOption = None,
) -> None:
    """Write a small copy of a run, to play and evaluate, and print the sizes."""
    from engine.runs.export import write_compact_copy

    sizes = write_compact_copy(resolve_run(run, runs_dir).absolute(), folder.absolute(), precision)
    before, after, total = map(formatting.format_bytes, sizes)
    print(printable(f"{folder}: {directory.MODEL_FILE} {before} → {after} ({precision}), {total} with all files"))
