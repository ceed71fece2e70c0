"""Base class of the live figures."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from engine.errors import describe_error
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.learn.material import Material
from lotr_tui.messages import ChapterFigureReady, TaskPartDone

DataT = TypeVar("DataT")
REST_SECONDS = 0.6
"""Time without a change after which a choice counts as an answer: to pass the right one is no answer."""


@dataclass(frozen=True)
class _Loaded(Generic[DataT]):
    """Last item of the loading of a figure."""

    data: DataT


class ChapterFigure(Vertical, Generic[DataT]):
    """Live figure of a chapter: it loads its data in a thread, and then reacts to keys and the mouse.

    A subclass defines `compose_figure`, `load` and `show_data`, and calls `finish_part` once a part of the
    task is done. Textual calls `on_mount` and `on_unmount` of this class and of the subclass; `super()` would call them
    twice.
    """

    DEFAULT_CSS = """
    ChapterFigure { height: 1fr; width: 1fr; }
    ChapterFigure > #figure-message { height: auto; padding: 0 1; color: $muted; text-style: $muted-style; }
    ChapterFigure > #figure-parts { height: 1fr; }
    ChapterFigure.-loading > #figure-parts { display: none; }
    """

    def __init__(self, material: Material) -> None:
        """Show a figure of `material` once it is mounted."""
        super().__init__(id="figure", classes="-loading")
        self.material = material
        self.data: DataT | None = None
        """Data of the figure; None until they are loaded."""
        self._finished_parts: set[int] = set()
        self._loading: BackgroundTask[str | _Loaded[DataT]] = BackgroundTask(
            self, "chapter-figure", self._receive, self.show_failure
        )

    # Parts that a subclass implements

    def compose_figure(self) -> ComposeResult:
        """Yield the widgets of the figure."""
        raise NotImplementedError

    def load(self, cancelled: Cancellation) -> Generator[str, None, DataT]:
        """Load what the figure shows; called in a thread.

        Yields:
            Lines of progress.
        """
        raise NotImplementedError

    def show_data(self, data: DataT) -> None:
        """Show the loaded data for the first time; the widgets are mounted."""
        raise NotImplementedError

    @property
    def is_idle(self) -> bool:
        """True once the figure shows what its controls say; a subclass adds its own threads."""
        return self.data is not None and not self._loading.is_running

    @property
    def work_in_progress(self) -> str:
        """Name of what leaving the chapter would stop, such as "training"; empty without such work."""
        return ""

    # Used by subclasses

    def finish_part(self, part: int) -> None:
        """Report that a part of the task is done; later calls have no effect."""
        if part not in self._finished_parts:
            self._finished_parts.add(part)
            self.post_message(TaskPartDone(self, part))

    def show_note(self, note: str) -> None:
        """Show one line above the figure, such as why another model is used; "" removes it."""
        message = self.query_one("#figure-message", Static)
        message.update(Content(note))
        message.display = bool(note)

    def show_failure(self, error: BaseException) -> None:
        """Show why a thread has failed, above the figure."""
        message = self.query_one("#figure-message", Static)
        message.update(Content.styled(describe_error(error), "$text-error"))
        message.display = True

    # Loading

    def compose(self) -> ComposeResult:
        """Yield the line of progress and the figure, which is hidden while it is loaded."""
        yield Static("loading …", id="figure-message", markup=False)
        with Vertical(id="figure-parts"):
            yield from self.compose_figure()

    def on_mount(self) -> None:
        """Load the data in a thread."""
        self._loading.start(self._iter_items)

    def on_unmount(self) -> None:
        """Stop the thread."""
        self._loading.cancel()

    def _iter_items(self, cancelled: Cancellation) -> Iterator[str | _Loaded[DataT]]:
        data = yield from self.load(cancelled)
        yield _Loaded(data)

    def _receive(self, items: list[str | _Loaded[DataT]]) -> None:
        last = items[-1]
        if isinstance(last, str):
            self.show_note(last)
            return
        self.data = last.data
        self.show_note("")
        self.remove_class("-loading")
        self.show_data(last.data)
        self.call_after_refresh(self._repeat_resize)
        self.post_message(ChapterFigureReady())

    def _repeat_resize(self) -> None:
        """Post `Resize` again: Textual posts none for a new widget if another one asks for its own place before."""
        self.post_message(events.Resize(self.size, self.virtual_size, self.container_size))
