"""Over any screen: the list of runs, and a session with one of them."""

from typing import TYPE_CHECKING

from engine.errors import LotrError
from engine.runs import load_named
from lotr_tui.session import Player

if TYPE_CHECKING:
    from lotr_tui.app import LotrApp


def open_runs(app: "LotrApp") -> None:
    """Show the runs; the one that is chosen is played with."""
    from lotr_tui.screens.runs import RunsScreen

    def chosen(name: str | None) -> None:
        if name is not None:
            play_run(app, name)

    app.push_screen(RunsScreen(app.runs_dir), chosen)


def play_run(app: "LotrApp", name: str) -> None:
    """Begin a session with the model that `name` means; what is wrong with it is told."""
    from lotr_tui.screens.play import PlayScreen

    try:
        loaded = load_named(name, app.runs_dir)
    except LotrError as error:
        app.notify(str(error), severity="error", markup=False)
        return
    app.push_screen(PlayScreen(Player.of(loaded), loaded.path, app.runs_dir, app.pace))
