"""The commands for existing runs: `attach`, `status`, `stop` and `runs …`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from engine.errors import InvalidInputError, LotrError, printable, shell_word
from lotr_tui.cli.options import JsonOption, NoMouseOption, RunsDirOption, ThemeOption, check_theme, has_terminal
from lotr_tui.cli.parser import add_command, int_option, make_group
from lotr_tui.trackers.libraries import TrackerName

runs_cli = make_group(
    "List or compare runs, or show, rename, delete, export or copy one. Without a command, list them, latest first.",
    "lotr-tui runs",
    "lotr-tui runs show latest",
    "lotr-tui runs compare my-run other-run",
    "lotr-tui runs export my-run --csv tables",
    "lotr-tui runs export my-gpt --hf my-gpt-hf",
    "lotr-tui runs export bundled --gguf gandalf.gguf --type q8_0",
    "lotr-tui runs export my-run --log wandb",
    "lotr-tui runs import --tensorboard their-logs",
    "lotr-tui runs compact my-run small --precision int8",
)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a run, or latest.")]
LatestRunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a run, or latest.")]


def attach(
    run: LatestRunArgument = "latest",
    runs_dir: RunsDirOption = None,
    theme: ThemeOption = None,
    no_mouse: NoMouseOption = False,
) -> int:
    """Show the dashboard of a running or finished run. Closing it does not stop the training."""
    from engine.runs.directory import resolve_run

    check_theme(theme)
    path = resolve_run(run, runs_dir).absolute()
    if not has_terminal():
        raise InvalidInputError(f"attach needs a terminal; use `lotr-tui status {shell_word(run)}` instead")
    from lotr_tui.cli.attach import AttachApp
    from lotr_tui.cli.launch import run_app

    return run_app(AttachApp(path, theme=theme), mouse=not no_mouse)


def status(run: LatestRunArgument = "latest", runs_dir: RunsDirOption = None, as_json: JsonOption = False) -> None:
    """Print the progress of a run on one screen of text."""
    from engine.runs.directory import resolve_run
    from lotr_tui.cli.status import print_status

    print_status(resolve_run(run, runs_dir).absolute(), as_json=as_json)


def stop(
    run: LatestRunArgument = "latest",
    checkpoint: Annotated[bool, typer.Option("--checkpoint", help="Save and continue, instead of stopping.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return without waiting for the training.")] = False,
    runs_dir: RunsDirOption = None,
) -> None:
    """Ask a running training to save and stop."""
    from engine.runs.directory import resolve_run
    from lotr_tui.cli.stop import request_checkpoint, request_stop

    request = request_checkpoint if checkpoint else request_stop
    print(request(resolve_run(run, runs_dir).absolute(), wait=not no_wait))


@runs_cli.callback()
def runs(context: typer.Context, runs_dir: RunsDirOption = None, as_json: JsonOption = False) -> None:
    """List the runs, latest first."""
    if context.invoked_subcommand is None:
        from lotr_tui.cli.reports import print_runs

        print_runs(runs_dir, as_json=as_json)


@add_command(runs_cli, "show")
def runs_show(run: RunArgument, runs_dir: RunsDirOption = None) -> None:
    """Print the settings, evaluations and saved epochs of a run as JSON."""
    from lotr_tui.cli.reports import print_run

    print_run(run, runs_dir)


@add_command(runs_cli, "compare", "lotr-tui runs compare my-run other-run", "lotr-tui runs compare a b c --baseline b")
def runs_compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Names or paths of runs, or latest.")],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="RUN",
            help="Run that differences refer to. Default: the first one.",
            show_default=False,
        ),
    ] = None,
    runs_dir: RunsDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the settings that differ between runs, their results, and the differences to a baseline."""
    from lotr_tui.cli.runs_compare import print_run_comparison

    print_run_comparison(runs, baseline, runs_dir, as_json=as_json)


@add_command(runs_cli, "rm")
def runs_rm(
    run: RunArgument,
    runs_dir: RunsDirOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a run with its model, and print its name and path."""
    from engine.runs.directory import resolve_run
    from engine.runs.locked_run import delete_run

    path = resolve_run(run, runs_dir).absolute()
    try:
        is_confirmed = yes or typer.confirm(printable(f"Delete run {path.name} in {path}?"), err=True)
    except typer.Abort:
        print(file=sys.stderr)  # the line of the question has no end
        raise InvalidInputError(f"runs rm {run} needs a confirmation; give --yes") from None
    if not is_confirmed:
        raise LotrError(f"run {path.name} was not deleted")
    delete_run(path, runs_dir)
    print(printable(f"deleted run {path.name}: {path}"))


@add_command(runs_cli, "rename")
def runs_rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Name of a run, or latest.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="New name of the run.")],
    runs_dir: RunsDirOption = None,
) -> None:
    """Rename a run."""
    from engine.runs.locked_run import rename_run

    print(printable(rename_run(old, new, runs_dir)))


@add_command(runs_cli, "export")
def runs_export(
    run: RunArgument,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="DIR", help="Write one CSV table per kind of event.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="DIR", help="Write logs for TensorBoard.")
    ] = None,
    hugging_face: Annotated[
        Path | None,
        typer.Option(
            "--hf",
            metavar="DIR",
            help="Write a Transformer into a new folder that Hugging Face's transformers loads with the same logits. "
            "An adapter is merged into its base.",
        ),
    ] = None,
    gguf: Annotated[
        Path | None,
        typer.Option(
            "--gguf",
            metavar="FILE",
            help="Write a Transformer into a new file for llama.cpp and Ollama, with a Modelfile beside it if it "
            "converses.",
        ),
    ] = None,
    gguf_type: Annotated[
        Literal["f16", "q8_0"] | None,
        typer.Option(
            "--type",
            metavar="f16|q8_0",
            help="Type of the matrices in FILE: q8_0 is half the size and less exact. Default: f16.",
        ),
    ] = None,
    tracker: Annotated[
        TrackerName | None,
        typer.Option(
            "--log",
            metavar="tensorboard|wandb|mlflow|trackio",
            help="Send to an experiment tracker what it misses of the run: all of it, or what a tracker of the "
            "training did not receive.",
        ),
    ] = None,
    runs_dir: RunsDirOption = None,
) -> None:
    """Export the metrics or the model of a run for other programs."""
    from engine.runs.directory import resolve_run

    path = resolve_run(run, runs_dir).absolute()
    targets = [target for target in (csv, tensorboard, hugging_face, gguf) if target is not None]
    if len(targets) + (tracker is not None) != 1:
        raise InvalidInputError("give one of --csv DIR, --tensorboard DIR, --hf DIR, --gguf FILE and --log TRACKER")
    if gguf_type is not None and gguf is None:
        raise InvalidInputError("--type belongs to --gguf FILE")
    if tracker is not None:
        from lotr_tui.cli.trackers import send_to_tracker

        send_to_tracker(path, tracker)
        return
    if hugging_face is not None:
        from engine.runs.export import export_hugging_face

        export_hugging_face(path, hugging_face.absolute())
    elif gguf is not None:
        from engine.runs.export_gguf import export_gguf

        targets = export_gguf(path, gguf, gguf_type or "f16")
    else:
        from lotr_tui.monitor.export import export_csv, export_tensorboard

        if csv is not None:
            export_csv(path, csv)
        elif tensorboard is not None:
            export_tensorboard(path, tensorboard)
    for target in targets:
        print(printable(str(target)))


@add_command(runs_cli, "import")
def runs_import(
    tensorboard: Annotated[
        Path, typer.Option("--tensorboard", metavar="DIR", help="Folder with event files, one run per folder in it.")
    ],
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Name of the new run. Default: the name of the folder.")
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option("--tag", metavar="TAG", help="Curve of the validation. Default: the first one that looks so."),
    ] = None,
    as_perplexity: Annotated[
        bool | None,
        typer.Option(
            "--perplexity/--loss",
            help="Values of the curves: perplexities, or losses in nats. Default: by the name of the tag.",
        ),
    ] = None,
    steps_per_epoch: Annotated[
        int | None,
        int_option("--steps-per-epoch", minimum=1, help="Steps in an epoch. Default: the curve called epoch."),
    ] = None,
    runs_dir: RunsDirOption = None,
) -> None:
    """Import the curves of trainings by other programs, to compare them in the list of runs."""
    from engine.storage.files import default_runs_dir
    from lotr_tui.formatting import format_perplexity
    from lotr_tui.trackers.tensorboard_import import import_tensorboard

    runs_dir = runs_dir or default_runs_dir()
    imported = import_tensorboard(tensorboard, runs_dir, run, tag, steps_per_epoch, as_perplexity)
    for each in imported:
        print(printable(f"{each.path.name}: {each.curve}, best perplexity {format_perplexity(each.best_perplexity)}"))
    if not all(each.has_epochs for each in imported):
        print("the logs have no epochs, so each evaluation counts as one; give --steps-per-epoch N", file=sys.stderr)


@add_command(runs_cli, "compact")
def runs_compact(
    run: RunArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the copy, which must not exist.")],
    precision: Annotated[
        Literal["fp16", "int8"],
        typer.Option(
            "--precision",
            metavar="fp16|int8",
            help="Precision of the weight matrices: int8 is a quarter of the size and less exact, fp16 half the size.",
        ),
    ] = "int8",
    runs_dir: RunsDirOption = None,
) -> None:
    """Write a small copy of a run, to play and evaluate, and print the sizes."""
    from engine.runs.compact import write_compact_copy
    from engine.runs.directory import MODEL_FILE, resolve_run
    from lotr_tui.formatting import format_bytes

    copy = write_compact_copy(resolve_run(run, runs_dir).absolute(), folder.absolute(), precision)
    before, after, total = map(format_bytes, (copy.model_bytes_before, copy.model_bytes, copy.total_bytes))
    print(printable(f"{folder}: {MODEL_FILE} {before} → {after} ({precision}), {total} with all files"))
