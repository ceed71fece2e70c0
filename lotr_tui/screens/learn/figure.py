"""Base of the live figures: a line to type, drawings of what it gives, and the loading of models and corpus."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from engine.errors import describe_error
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.learn.material import Material
from lotr_tui.screens.inspect.text_screen import TextInputBar
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.screen_lines import HelpLine

DataT = TypeVar("DataT")
Painter = Callable[[int, int], Content]
"""Function that returns the content of a drawing of a width and a height."""
REST_SECONDS = 0.6
"""Time without a change after which a choice counts as an answer: to pass the right one is no answer."""
MAX_CHARACTERS = 2000


class Drawing(Widget):
    """Part of a figure that a function paints for the size it has. Posts `Clicked`."""

    DEFAULT_CSS = """
    Drawing { height: auto; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    Drawing:focus { background: $panel; }
    """
    ALLOW_SELECT = False

    class Clicked(Message):
        """Posted with the clicked cell of the content."""

        def __init__(self, drawing: "Drawing", x: int, y: int) -> None:
            super().__init__()
            self.drawing, self.x, self.y = drawing, x, y

        @property
        def control(self) -> "Drawing":
            """The drawing, for `on` with a selector."""
            return self.drawing

    def __init__(self, id: str, help_line: str = "", *, can_focus: bool = False) -> None:
        super().__init__(id=id)
        self.can_focus, self.HELP_LINE = can_focus, help_line
        self._painter: Painter | None = None

    def show(self, painter: Painter) -> None:
        """Paint something else."""
        self._painter = painter
        self.refresh(layout=self.styles.is_auto_height)

    def render(self) -> Content:
        """Return the painting."""
        return Content("") if self._painter is None else self._painter(*self.content_size)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        """Return the lines of the painting."""
        return 1 if self._painter is None else self._painter(width, 0).plain.count("\n") + 1

    def on_click(self, event: events.Click) -> None:
        """Post `Clicked`."""
        self.post_message(self.Clicked(self, event.x - self.gutter.left, event.y - self.gutter.top))


class LineBar(TextInputBar):
    """A line to change, of which each key posts `Input.Changed`. It can be typed while the figure is loaded."""

    PLACEHOLDER: ClassVar[str] = "type a line"

    def __init__(self, example: str, help_line: str = "", *, max_length: int = MAX_CHARACTERS) -> None:
        super().__init__(example, id="line")
        self.input.max_length, self._max_length = max_length, max_length
        self.example = self.text
        self._help_line = help_line or "Type a line of your own; the figure follows each key"

    def get_help_line(self) -> str:
        is_full = len(self.input.value) >= self._max_length
        return f"The line is full: {self._max_length:,} characters" if is_full else self._help_line

    @on(Input.Changed)
    def _update_help(self) -> None:
        self.screen.query_one(HelpLine).update_text()

    def set_example(self, example: str) -> None:
        """Replace the example, and the line unless the student has changed it."""
        if self.text == self.example:
            self.set_text(example)
        self.example = example

    @property
    def is_edited(self) -> bool:
        """True if the line is not the example and not empty."""
        return bool(self.text.strip()) and self.text != self.example


@dataclass(frozen=True)
class _Loaded(Generic[DataT]):
    data: DataT


class TaskPartDone(Message):
    """Posted by the figure of a chapter when a part of its task, an index, is done."""

    def __init__(self, figure: Widget, part: int) -> None:
        super().__init__()
        self.figure, self.part = figure, part


class ChapterFigureReady(Message):
    """Posted by the figure of a chapter when it shows its data for the first time."""


class ChapterFigure(Vertical, Generic[DataT]):
    """Live figure of a chapter: it loads its data in a thread, and then reacts to keys and the mouse.

    A subclass defines `compose_figure`, `load` and `show_data`, and calls `finish_part` once a part of the task is
    done. It may start `work` in a thread, whose items `receive` gets. Textual calls `on_mount` and `on_unmount` of this
    class and of the subclass; `super()` would call them twice.
    """

    DEFAULT_CSS = """
    ChapterFigure { height: 1fr; width: 1fr; }
    ChapterFigure > #figure-message { height: auto; padding: 0 1; color: $muted; text-style: $muted-style; }
    ChapterFigure > #figure-parts { height: 1fr; }
    ChapterFigure.-loading > #figure-parts > * { display: none; }
    ChapterFigure.-loading > #figure-parts > LineBar { display: block; }
    """
    BINDING_GROUP_TITLE = "Figure"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-figure",
        """
        word-before | left  | step_word(-1) | word before | The word before in the line
        word-after  | right | step_word(1)  | next word   | The next word of the line
        """,
    )

    def __init__(self, material: Material) -> None:
        """Show a figure of `material` once it is mounted."""
        super().__init__(id="figure", classes="-loading")
        self.material = material
        self.data: DataT | None = None  # None until they are loaded
        self.finished_parts: set[int] = set()  # since the chapter was opened
        self._follow: Callable[[], None] = lambda: None
        self._loading: BackgroundTask[str | _Loaded[DataT]] = BackgroundTask(
            self, "chapter-figure", self._receive_loading, self.show_failure
        )
        self.work: BackgroundTask[Any] = BackgroundTask(
            self, "chapter-work", self.receive, self.show_failure, interval=0.01
        )

    # Parts that a subclass implements

    def compose_figure(self) -> ComposeResult:
        """Yield the widgets of the figure."""
        raise NotImplementedError

    def load(self, cancelled: Cancellation) -> Generator[str, None, DataT]:
        """Load what the figure shows in a thread; yield lines of progress."""
        raise NotImplementedError

    def show_data(self, data: DataT) -> None:
        """Show the loaded data for the first time; the widgets are mounted."""
        raise NotImplementedError

    def receive(self, items: list[Any]) -> None:
        """Show items of `work`."""

    @property
    def is_idle(self) -> bool:
        return self.data is not None and not self._loading.is_running and not self.work.is_running

    @property
    def work_in_progress(self) -> str:
        """Name of what leaving the chapter would stop, such as "training"; empty without such work."""
        return ""

    def reveal(self, pane: Widget) -> None:
        """Show the part of the figure with a pane that is about to be focused, where not all parts fit."""

    # Used by subclasses

    @property
    def line(self) -> LineBar:
        """The typed line."""
        return self.query_one(LineBar)

    def follow_cursor(self, callback: Callable[[], None]) -> None:
        """Call a function when the line or its cursor changes, and now."""
        self._follow = callback
        self.watch(self.line.input, "selection", callback, init=False)
        callback()

    @on(Input.Changed)
    def _follow_line_change(self) -> None:
        self._follow()  # posted after the cursor has moved, unlike a change of the value

    def finish_part(self, part: int) -> None:
        """Report that a part of the task is done; later calls have no effect."""
        if part not in self.finished_parts:
            self.finished_parts.add(part)
            self.post_message(TaskPartDone(self, part))

    def show_note(self, note: str | Content) -> None:
        """Show one line above the figure, such as why another model is used; "" removes it."""
        message = self.query_one("#figure-message", Static)
        message.update(Content(note) if isinstance(note, str) else note)
        message.display = bool(note)

    def show_failure(self, error: BaseException) -> None:
        """Show why a thread has failed, above the figure."""
        self.show_note(Content.styled(describe_error(error), "$text-error"))

    def action_step_word(self, offset: int) -> None:
        for line in self.query(LineBar):
            line.input.action_cursor_left_word() if offset < 0 else line.input.action_cursor_right_word()

    # Loading

    def compose(self) -> ComposeResult:
        yield Static("loading …", id="figure-message", markup=False)
        with Vertical(id="figure-parts"):
            yield from self.compose_figure()

    def on_mount(self) -> None:
        self._loading.start(self._iter_items)

    def on_unmount(self) -> None:
        self._loading.cancel()
        self.work.cancel()

    def _iter_items(self, cancelled: Cancellation) -> Iterator[str | _Loaded[DataT]]:
        with self.material.lock:
            if not cancelled():
                data = yield from self.load(cancelled)
                yield _Loaded(data)

    def _receive_loading(self, items: list[str | _Loaded[DataT]]) -> None:
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
