"""Selection of a run and loading of its model, for any screen."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.errors import LotrError
from lotr_tui.background_task import run_in_thread
from lotr_tui.screens.base import AppScreen

if TYPE_CHECKING:  # this module imports numpy, which the first paint does not need
    from engine.runs.loading import LoadedModel


def choose_run(screen: AppScreen[Any], on_chosen: Callable[[str], object]) -> None:
    """Show the runs, and pass the name or the path of the selected one to `on_chosen`."""
    from lotr_tui.screens.runs.screen import RunsScreen  # imports numpy

    def choose(name: str | None) -> None:
        if name is not None:
            on_chosen(name)

    screen.app.push_screen(RunsScreen(screen.state.runs_dir), choose)


def load_run(screen: AppScreen[Any], name: str, on_loaded: "Callable[[LoadedModel], None]") -> None:
    """Load the model of a run in a thread and pass it to `on_loaded`; show an error as a notification.

    Nothing happens if `screen` is closed before the model is loaded.
    """
    from engine.runs.loading import load_model_by_name  # imports numpy

    async def load() -> None:
        try:
            loaded = await run_in_thread(load_model_by_name, name, screen.state.runs_dir)
        except LotrError as error:
            screen.notify(str(error), severity="error", markup=False)
        else:
            on_loaded(loaded)

    screen.run_worker(load(), exclusive=True, group="load")
