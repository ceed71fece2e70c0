"""Another model, loaded or fetched beside the conversation."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.timer import Timer

from engine.errors import describe_error
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.screens.base import AppScreen
from lotr_tui.session.model_loading import UPDATE_INTERVAL, ModelLoader

if TYPE_CHECKING:  # this module imports numpy, which the first paint does not need
    from lotr_tui.session.session_model import SessionModel


class ModelSlot:
    """The place of the next model: a later one replaces an earlier one that is still being loaded."""

    def __init__(
        self, screen: AppScreen[None], use: "Callable[[SessionModel], None]", on_progress: Callable[[], None]
    ) -> None:
        """Call `use` with each model that was loaded, and `on_progress` while `activity` changes."""
        self._screen, self._use, self._on_progress = screen, use, on_progress
        self._loader: ModelLoader | None = None
        self._timer: Timer | None = None

    @property
    def activity(self) -> str:
        """What is loaded or fetched, and how far; empty if nothing is."""
        if self._loader is not None:
            return self._loader.describe_briefly()
        fetch = self._screen.state.model_fetch
        return fetch.describe() if fetch is not None and fetch.is_running else ""

    def load(self, name: str) -> None:
        """Load the model of a run, or a model by others, in a thread; ask first if it has to be fetched."""
        from engine.config import BUNDLED  # not needed for the first paint

        if name in (BUNDLED, SMOLLM2) and not is_base_stored(SMOLLM2):
            self.ask_to_fetch()
        else:
            self._screen.run_worker(self._load(name), exclusive=True, group="load")

    async def _load(self, name: str) -> None:
        loader = None
        try:
            loader = ModelLoader([name], self._screen.state.runs_dir)
            self._show(loader)
            session_model = await run_in_thread(loader)
        except Exception as error:  # libraries for models raise errors of many types
            self._screen.notify(describe_error(error), severity="error", markup=False, timeout=10)
            return
        finally:  # also if the user has chosen another model, which cancels this worker
            if self._loader is loader and not is_closed(self._screen):
                self._show(None)
        self._use(session_model)

    def _show(self, loader: ModelLoader | None) -> None:
        """Show the progress of a loader, until None is shown."""
        self._loader = loader
        if self._timer is None and loader is not None:
            self._timer = self._screen.set_interval(UPDATE_INTERVAL, self._on_progress)
        elif self._timer is not None and loader is None:
            self._timer.stop()
            self._timer = None
            self._on_progress()

    def ask_at_first_start(self) -> None:
        """Ask once whether to fetch SmolLM2."""
        choice = self._screen.state.settings.current.first_model
        if is_base_stored(SMOLLM2):
            return
        if not choice:
            self.ask_to_fetch()
        elif choice == "smollm2":
            self._screen.notify("SmolLM2 is not complete yet; /model smollm2 goes on with it", timeout=10)

    def ask_to_fetch(self) -> None:
        from lotr_tui.screens.dialogs.questions import FirstModelDialog  # not needed for the first paint

        state = self._screen.state

        def choose(wants_smollm2: bool | None) -> None:
            state.update_settings(first_model="smollm2" if wants_smollm2 else "lstm")
            if wants_smollm2:
                state.fetch_model()

        if state.model_fetch is not None and state.model_fetch.is_running:
            self._screen.notify(state.model_fetch.describe(), markup=False)
        else:
            self._screen.app.push_screen(FirstModelDialog(), choose)
