"""Base of the live figures: a typed line, drawings of its numbers, and the loading of models and corpus."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from rich.cells import cell_len, set_cell_size
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
from lotr_tui.formatting import MISSING, fit_cells, format_percent, truncate
from lotr_tui.learn.material import Material
from lotr_tui.screens.inspect.text_screen import TextInputBar
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.screen_lines import HelpLine

DataT = TypeVar("DataT")
Painter = Callable[[int, int], Content]
"""Function that returns the content of a drawing of a width and a height."""
REST_SECONDS = 0.6
"""Time without a change after which a choice counts as an answer: to pass the right one is no answer."""
MAX_CHARACTERS = 2000
MAX_NAME_WIDTH, MIN_BAR_WIDTH, PERCENT_WIDTH = 12, 4, 8
SAMPLES_HEADING = "sampled after the words before the cursor (r: again, with other seeds)"


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
            return self.drawing

    def __init__(self, id: str, help_line: str = "", *, can_focus: bool = False) -> None:
        super().__init__(id=id)
        self.can_focus, self.HELP_LINE = can_focus, help_line
        self._painter: Painter | None = None

    def show(self, painter: Painter) -> None:
        self._painter = painter
        self.refresh(layout=self.styles.is_auto_height)

    def render(self) -> Content:
        return Content("") if self._painter is None else self._painter(*self.content_size)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return 1 if self._painter is None else self._painter(width, 0).plain.count("\n") + 1

    def on_click(self, event: events.Click) -> None:
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
        super().__init__(id="figure", classes="-loading")
        self.material = material
        self.data: DataT | None = None  # None until they are loaded
        self._loaded: DataT  # by the thread
        self.finished_parts: set[int] = set()  # since the chapter was opened
        self._follow: Callable[[], None] = lambda: None
        self._loading: BackgroundTask[str] = BackgroundTask(
            self, "chapter-figure", lambda notes: self.show_note(notes[-1]), self.show_failure, self._show_loaded
        )
        self.work: BackgroundTask[Any] = BackgroundTask(
            self, "chapter-work", self.receive, self.show_failure, interval=0.01
        )

    # Parts that a subclass implements

    def compose_figure(self) -> ComposeResult:
        raise NotImplementedError

    def load(self, cancelled: Cancellation) -> Generator[str, None, DataT]:
        """Load what the figure shows in a thread; yield lines of progress."""
        raise NotImplementedError

    def show_data(self, data: DataT) -> None:
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
        self._loading.start(self._load)

    def on_unmount(self) -> None:
        self._loading.cancel()
        self.work.cancel()

    def _load(self, cancelled: Cancellation) -> Iterator[str]:
        with self.material.lock:
            if not cancelled():
                self._loaded = yield from self.load(cancelled)

    def _show_loaded(self) -> None:
        self.data = self._loaded
        self.show_note("")
        self.remove_class("-loading")
        self.show_data(self.data)
        # Textual posts no `Resize` for a new widget if another one asks for its own place before.
        self.call_after_refresh(
            lambda: self.post_message(events.Resize(self.size, self.virtual_size, self.container_size))
        )
        self.post_message(ChapterFigureReady())


class SamplesFigure(ChapterFigure[DataT]):
    BINDING_GROUP_TITLE = "Samples"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-samples", "again | r,ctrl+r | again | again | Sample other texts, with other seeds | r", show=True
    )
    FIRST_SEED, SEED_STEP = 7, 1

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.seed = self.FIRST_SEED

    def sample(self) -> None:
        raise NotImplementedError

    def action_again(self) -> None:
        self.seed += self.SEED_STEP
        self.sample()

    def receive(self, items: list[Any]) -> None:
        if isinstance(samples := items[-1], list):
            self.query_one("#samples", Drawing).show(lambda *size: sample_rows(samples, *size))


class WordBar(NamedTuple):
    """A possible next word and its probability."""

    text: str
    prob: float
    before: float | None = None  # such as the model's without the sampler chain, in a column before; shades the bar
    is_marked: bool = False
    note: str = ""  # replaces the bar, such as the rank of a word that is far below


class Sample(NamedTuple):
    label: str
    text: str
    is_marked: bool


def word_bars(
    title: str,
    headings: Sequence[str],
    bars: Sequence[WordBar],
    width: int,
    height: int,
    *,
    last: WordBar | None = None,
    scale: float = 0.0,
) -> Content:
    """Return a heading and one bar per word, as many as there are rows.

    `last` is in the last row if the rows end before it; `scale` is the probability of a full bar, 0 for the highest.
    """
    num_rows = max(1, height - 1)
    rows = list(bars[:num_rows])
    if last is not None and not any(row.is_marked for row in rows):
        rows = [*rows[: num_rows - 1], last]
    heading = "".join(each.rjust(PERCENT_WIDTH) for each in headings)
    title_width = max(0, width - cell_len(heading))
    longest = max((cell_len(row.text) for row in rows), default=0)
    name_width = max(4, min(MAX_NAME_WIDTH, longest, title_width - MIN_BAR_WIDTH - 3))
    bar_width = max(1, title_width - name_width - 3)
    scale = scale or max((max(row.prob, row.before or 0) for row in bars), default=0.0) or 1.0
    lines = [Content.styled(fit_cells(title, title_width) + heading, MUTED)]
    for row in rows:
        is_removed = row.before is not None and row.prob == 0
        cells, shade = truncate(row.note, bar_width) or bar(row.prob / scale, bar_width), ""
        columns = [(format_percent(row.prob) if not is_removed else MISSING, "")]
        if row.before is not None:
            shade = "░" * (round(row.before / scale * bar_width) - cell_len(cells))
            columns.insert(0, (format_percent(row.before), MUTED))
        line = Content.assemble(
            ("▸" if row.is_marked else " ", "bold $accent"),
            (fit_cells(row.text, name_width), "bold $accent" if row.is_marked else MUTED if is_removed else ""),
            " ",
            (cells, MUTED if row.note else "$accent"),
            (shade, MUTED),
            " " * (bar_width - cell_len(cells + shade) + 1),
            *((text.rjust(PERCENT_WIDTH), style) for text, style in columns),
        )
        lines.append(line)
    return Content("\n").join(lines)


def sample_rows(samples: Sequence[Sample], width: int, height: int) -> Content:
    """Return a heading if there is room, and the samples, wrapped if there is room for more than a line each."""
    has_heading = height > len(samples)
    lines_each = max(1, (height - has_heading) // len(samples))
    label_width = max(len(sample.label) for sample in samples) + 3
    lines = [Content.styled(truncate(SAMPLES_HEADING, width), MUTED)] if has_heading else []
    for sample in samples[: height - has_heading]:
        text = Content(sample.text).wrap(max(8, width - label_width))  # counts cells, unlike `textwrap`
        head = set_cell_size(f"{'▸' if sample.is_marked else ' '}{sample.label}", label_width)
        lines.append(Content.assemble((head, "bold $accent" if sample.is_marked else MUTED), text[0] if text else ""))
        lines += [line.pad_left(label_width) for line in text[1:lines_each]]
    return Content("\n").join(lines)
