"""Pane that searches the training text for the top activations of a unit and lists them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lotr_tui.screens.activations.top_activations import UnitTopActivations
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message

from engine.analysis.activations import ActivationExample, TopActivations
from engine.errors import describe_error
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.background_task import BackgroundTask, is_closed
from lotr_tui.session.training_text import UnitId, UnitSearch
from lotr_tui.theme import MUTED
from lotr_tui.widgets.status_bar import StatusBar

PROGRESS_INTERVAL = 0.1
"""Seconds between two updates of the progress."""


class UnitSearchPane(Vertical):
    """Heading with the progress or result of a search, and the list of top activations."""

    @dataclass
    class LineSelected(Message):
        """Posted when a line of the training text is to be analysed."""

        text: str
        position: int
        """Position in the line of the token that activates the unit."""
        unit: UnitId
        """Unit that was searched for."""

    def __init__(self, unit_label: Callable[[UnitId], str], noun: str = "word", *, id: str | None = None) -> None:
        """Show names of units as `unit_label` returns them."""
        super().__init__(id=id)
        self._unit_label = unit_label
        self._noun = noun
        self._search: UnitSearch | None = None
        self._stopped_early = False
        self._search_task: BackgroundTask[TopActivations] = BackgroundTask(
            self, "unit-search", self._show_results, self._show_failure
        )

    @property
    def is_searching(self) -> bool:
        """True while a search is running."""
        return self._search_task.is_running

    def compose(self) -> ComposeResult:
        """Yield the heading and the list."""
        yield StatusBar(id="search-heading")
        yield UnitTopActivations(self._post_line, self._noun, id="search-results")

    def on_mount(self) -> None:
        """Show a hint, and create the timer of the progress."""
        self._progress_timer = self.set_interval(PROGRESS_INTERVAL, self._show_progress, pause=True)
        hint = f"f4 searches the training text for the {self._noun}s that activate this unit most"
        self._show_heading((hint, MUTED))

    def on_unmount(self) -> None:
        """Stop the thread."""
        self._search_task.cancel()

    def search(self, run: Path, lstm: NumpyLSTM, unit: UnitId) -> None:
        """Search the training text of a run for the top activations of a unit, in a thread."""
        self._search, self._stopped_early = UnitSearch(run, lstm, unit), False
        self.query_one(UnitTopActivations).show_message("")
        self._show_progress()
        self._progress_timer.resume()
        self._search_task.start(self._search.results)

    def stop_search(self) -> None:
        """End the search early, and show the results so far."""
        self._stopped_early = self.is_searching
        self._search_task.stop()

    def _show_progress(self) -> None:
        if is_closed(self):
            return
        assert self._search is not None, "the timer runs during a search"
        progress = self._search.progress
        status = "reading the text" if progress is None else f"{100 * progress:.0f} %"
        self._show_heading((f"searching for {self._unit_label(self._search.unit)} … {status} · f4 stops", MUTED))

    def _show_failure(self, error: BaseException) -> None:
        self._progress_timer.pause()
        self._show_heading(("the search failed", MUTED))
        self.query_one(UnitTopActivations).show_message(describe_error(error))

    def _show_results(self, results: list[TopActivations]) -> None:
        assert self._search is not None, "results belong to a search"
        self._progress_timer.pause()
        [top_activations] = results
        count = f"{top_activations.num_tokens:,} {self._noun}s"
        scope = f"of {count}, stopped early" if self._stopped_early else f"of all {count}"
        self._show_heading((self._unit_label(self._search.unit), "bold"), (f" · highest ▲ and lowest ▼ {scope}", MUTED))
        self.query_one(UnitTopActivations).show(top_activations)

    def _show_heading(self, *parts: tuple[str, str]) -> None:
        self.query_one("#search-heading", StatusBar).show(Content.assemble(*parts))

    def _post_line(self, example: ActivationExample) -> None:
        assert self._search is not None, "examples belong to a search"
        text = self._search.line_text(example.line_index)
        self.post_message(self.LineSelected(text, example.position, self._search.unit))
