"""The commands for runs: those that were trained, and the one that is being trained."""

from pathlib import Path
from typing import Annotated

import typer

from engine.errors import LotrError, UnusableInput, printable
from lotr_tui.cli.options import JsonOption, NoMouseOption, RunsDirOption, ThemeOption, has_terminal

runs_cli = typer.Typer(help="The runs that were trained here.", invoke_without_command=True)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a run.")]
LatestArgument = Annotated[str, typer.Argument(metavar="[RUN]", help="Name or path of a run.")]


def attach(
    run: LatestArgument = "latest",
    runs_dir: RunsDirOption = None,
    theme: ThemeOption = None,
    no_mouse: NoMouseOption = False,
) -> None:
    """Show the dashboard of a run that is going on or finished; leaving it stops nothing."""
    from engine.runs.store import resolve

    path = resolve(run, runs_dir).absolute()
    if not has_terminal():
        raise UnusableInput(f"attach needs a terminal; use `lotr-tui status {run}` instead")
    from lotr_tui.cli.attach import AttachApp
    from lotr_tui.cli.launch import run_app

    run_app(AttachApp(path, theme=theme), mouse=not no_mouse)


def status(run: LatestArgument = "latest", runs_dir: RunsDirOption = None, as_json: JsonOption = False) -> None:
    """How a run stands, on one screen of text."""
    from engine.runs.store import resolve
    from lotr_tui.cli.status import print_status

    print_status(resolve(run, runs_dir).absolute(), as_json=as_json)


def stop(
    run: LatestArgument = "latest",
    checkpoint: Annotated[bool, typer.Option("--checkpoint", help="Only save, and go on.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait to see it done.")] = False,
    runs_dir: RunsDirOption = None,
) -> None:
    """Ask the training of a run to save and stop, whichever process it is in."""
    from engine.runs.store import resolve
    from lotr_tui.cli.stop import ask_to_save, ask_to_stop

    ask = ask_to_save if checkpoint else ask_to_stop
    print(ask(resolve(run, runs_dir).absolute(), wait=not no_wait))


@runs_cli.callback()
def runs(context: typer.Context, runs_dir: RunsDirOption = None, as_json: JsonOption = False) -> None:
    """List the runs, latest first."""
    if context.invoked_subcommand is None:
        from lotr_tui.cli.reports import print_runs

        print_runs(runs_dir, as_json=as_json)


@runs_cli.command("show")
def runs_show(run: RunArgument, runs_dir: RunsDirOption = None) -> None:
    """All settings of a run, how it went and the epochs it has kept, as JSON."""
    from lotr_tui.cli.reports import print_run

    print_run(run, runs_dir)


@runs_cli.command("rm")
def runs_rm(
    run: RunArgument,
    runs_dir: RunsDirOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a run."""
    from engine.runs.manage import remove
    from engine.runs.store import resolve

    path = resolve(run, runs_dir).absolute()
    try:
        agreed = yes or typer.confirm(f"Delete {path}?", err=True)
    except typer.Abort:
        raise UnusableInput(f"runs rm {run} asks, and nobody answered; give --yes") from None
    if not agreed:
        raise LotrError(f"run {run} stays, as you said")
    remove(path, runs_dir)


@runs_cli.command("rename")
def runs_rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Name of a run.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    runs_dir: RunsDirOption = None,
) -> None:
    """Give a run another name."""
    from engine.runs.manage import rename

    print(printable(rename(old, new, runs_dir)))


@runs_cli.command("export")
def runs_export(
    run: RunArgument,
    csv: Annotated[Path | None, typer.Option(metavar="DIR", help="One CSV a kind of row.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(metavar="DIR", help="A log directory of TensorBoard.")] = None,
    runs_dir: RunsDirOption = None,
) -> None:
    """Write the record of a run for other programs."""
    from engine.runs.store import resolve

    path = resolve(run, runs_dir).absolute()
    if (csv is None) == (tensorboard is None):
        raise UnusableInput("give --csv DIR or --tensorboard DIR, one of them")
    from lotr_tui.monitor.export import export_csv, export_tensorboard

    folder = csv or tensorboard
    assert folder is not None
    (export_csv if csv else export_tensorboard)(path, folder)
    print(printable(str(folder)))
