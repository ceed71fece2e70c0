"""Over any screen: the list of runs, and the model of one of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from textual.screen import Screen

from engine.errors import LotrError
from lotr_tui.background_task import aside

if TYPE_CHECKING:  # with numpy, which the first paint does without
    from engine.runs.store import LoadedModel
    from lotr_tui.app import LotrApp

Play = Callable[["LoadedModel"], None]


def open_runs(screen: Screen[Any], play: Play) -> None:
    """Show the runs; the model of the one that is chosen is given to `play`."""
    from lotr_tui.screens.runs.screen import RunsScreen

    def chosen(name: str | None) -> None:
        if name is not None:
            load_run(screen, name, play)

    screen.app.push_screen(RunsScreen(cast("LotrApp", screen.app).runs_dir), chosen)


def load_run(screen: Screen[Any], name: str, play: Play) -> None:
    """Give the model that `name` means to `play`, if `screen` is still there then; what is wrong with it is told."""
    screen.run_worker(_load(screen, name, play), exclusive=True, group="load")


async def _load(screen: Screen[Any], name: str, play: Play) -> None:
    from engine.runs.store import load_named

    try:
        # In a thread: the record is looked through, which for a long one takes a while.
        loaded = await aside(load_named, name, cast("LotrApp", screen.app).runs_dir)
    except LotrError as error:
        screen.notify(str(error), severity="error", markup=False)
        return
    play(loaded)
