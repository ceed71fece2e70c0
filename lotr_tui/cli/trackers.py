"""`runs export --log`: sending of a run to an experiment tracker."""

import sys
from pathlib import Path

from engine.errors import InvalidInputError, LotrError, describe_error, printable
from engine.runs.directory import is_locked, run_word
from lotr_tui.trackers.follower import send_run
from lotr_tui.trackers.libraries import TrackerName, check_installed, view_command


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
