"""`runs export --log` and `runs import`: exchange of runs with experiment trackers."""

import sys
from pathlib import Path

from engine.errors import InvalidInputError, LotrError, describe_error, printable
from engine.runs.directory import is_locked, run_word
from engine.storage.files import default_runs_dir
from lotr_tui.trackers.registry import TrackerName, check_installed, view_command
from lotr_tui.trackers.sender import send_run


def send_to_tracker(run_dir: Path, name: TrackerName) -> None:
    """Send what a tracker misses of a run, and print how to see it there.

    Raises:
        InvalidInputError: If the package of the tracker is not installed, or the run cannot be sent.
        LotrError: If the tracker fails.
    """
    check_installed([name])
    try:
        state = send_run(run_dir, name)
    except InvalidInputError:
        raise
    except Exception as error:
        again = f"lotr-tui runs export {run_word(run_dir)} --log {name}"
        raise LotrError(f"{name} failed: {describe_error(error).rstrip('.')}; try again with: {again}") from error
    if not state.tracker_id:
        raise InvalidInputError(f"run {run_dir.name!r} has nothing to send yet")
    print(printable(f"{name} has everything of run {run_dir.name}; see it with: {view_command(name, run_dir)}"))
    if not state.is_complete:
        rest = "is going on" if is_locked(run_dir) else "can be resumed"
        print(printable(f"the training {rest}; the same command sends what is added"), file=sys.stderr)


def import_tensorboard(
    folder: Path,
    name: str | None,
    runs_dir: Path | None,
    tag: str | None,
    steps_per_epoch: int | None,
    *,
    as_perplexity: bool | None,
) -> None:
    """Import the curves in TensorBoard's logs as runs, and print their names.

    Raises:
        InvalidInputError: If TensorBoard is not installed, or `folder` has no logs with a validation curve.
        RunError: If the runs folder cannot be written, or the name is taken.
    """
    from lotr_tui.formatting import format_perplexity
    from lotr_tui.trackers.tensorboard_import import ImportOptions, import_tensorboard

    options = ImportOptions(tag, as_perplexity, steps_per_epoch)
    imported = import_tensorboard(folder, runs_dir or default_runs_dir(), name, options)
    for path, training in imported:
        best = getattr(training.events[-1], "valid_perplexity", None)
        print(printable(f"{path.name}: {training.source.curve}, best perplexity {format_perplexity(best)}"))
    if not all(training.has_epochs for _, training in imported):
        print("the logs have no epochs, so each evaluation counts as one; give --steps-per-epoch N", file=sys.stderr)
