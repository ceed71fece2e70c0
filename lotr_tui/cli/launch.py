"""An app from the moment it is opened in a terminal to the moment all that it began is safe."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import UnusableInput
from lotr_tui.app import LotrApp
from lotr_tui.textual_fixes import closed_terminal_output
from lotr_tui.textual_fixes.invalid_utf8_input import forgive_bytes

if TYPE_CHECKING:
    from engine.runs.combine import Combination
    from lotr_tui.session.player import Player


def open_session(
    runs: Sequence[str] = (),
    runs_dir: Path | None = None,
    options: "Combination | None" = None,
    pace: float | None = None,
    theme: str | None = None,
    *,
    mouse: bool = True,
) -> None:
    """Play with the model of `runs` (none: the bundled one) until the person leaves.

    Raises:
        UnusableInput: there is no terminal, no such run or theme, or the run is damaged.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UnusableInput("the interactive session needs a terminal; use `lotr-tui generate PROMPT` instead")

    def opening() -> "Player":
        from lotr_tui.session.player import (
            open_player,  # with numpy, which takes half as long as all before the first paint
        )

        return open_player(runs, runs_dir, options)

    # What was asked for by name is there, or nothing is; the bundled model is opened behind the first paint.
    player = opening() if runs or options else None
    run_app(LotrApp(player=player, opening=opening, runs_dir=runs_dir, pace=pace, theme=theme), mouse=mouse)


def run_app(app: LotrApp, *, mouse: bool) -> None:
    """Run until the person leaves, the terminal is closed or a signal ends it; see a training to where it is safe.

    What is then left to say goes to standard error.

    Raises:
        TrainingError: no other process could go on with a training that was to be detached.
    """
    closed_terminal_output.outlive_terminal()
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, _: app.on_signal(signal.Signals(number)))
    forgive_bytes()
    app.run(mouse=mouse)
    from lotr_tui.monitor.background import hand_over, leave_terminal  # not before the first paint

    if app.terminal_closed:
        leave_terminal()
    app.outlive_terminal()
    if app.detached is not None:
        print(hand_over(app.detached))
    if app.farewell:
        print(f"lotr-tui: {app.farewell}", file=sys.stderr)
