"""Base of the live figures: a typed line, drawings of its numbers, and the task that loads and computes them."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from rich.cells import cell_len, set_cell_size
from textual import on
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
from lotr_tui.formatting import bar, fit_cells, format_percent, truncate
from lotr_tui.learn.material import Material
from lotr_tui.screens.inspect.text_screen import TextInputBar
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.screen_lines import HelpLine
from lotr_tui.widgets.slider import Slider

DataT = TypeVar("DataT")
Painter = Callable[[int, int], Content]  # returns the content of a drawing of a width and a height
MAX_CHARACTERS = 2000
REST_SECONDS = 0.6  # without a change, after which a choice counts as an answer: to pass the right one is none
MAX_NAME_WIDTH, MIN_BAR_WIDTH, PERCENT_WIDTH = 12, 4, 8
SAMPLES_HEADING = "sampled after the words before the cursor (r: again, with other seeds)"


class Drawing(Widget):
    """Part of a figure that a function paints for the size it has."""

    DEFAULT_CSS = "Drawing { height: auto; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }"
    ALLOW_SELECT = False
    _painter: Painter | None = None

    def show(self, painted: Painter | Content) -> None:
        self._painter = (lambda *_: painted) if isinstance(painted, Content) else painted
        self.refresh(layout=self.styles.is_auto_height)

    def render(self) -> Content:
        return Content("") if self._painter is None else self._painter(*self.content_size)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return 1 if self._painter is None else self._painter(width, 0).plain.count("\n") + 1


class LineBar(TextInputBar):
    """A line to change, of which each key posts `Input.Changed`. It can be typed while the figure is loaded."""

    PLACEHOLDER: ClassVar[str] = "type a line"

    def __init__(self, example: str, help_line: str = "", *, max_length: int = MAX_CHARACTERS) -> None:
        super().__init__(example, id="line")
        self.input.max_length, self.example = max_length, self.text
        self._help_line = help_line or "Type a line of your own; the figure follows each key"

    def get_help_line(self) -> str:
        most = self.input.max_length or 0
        return f"The line is full: {most:,} characters" if len(self.input.value) >= most else self._help_line

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
    """Live figure of a chapter, whose one task loads its data in a thread; then the view follows keys, mouse and size.

    A subclass defines `compose_figure`, `load` and `show_view`, and calls `finish_part` once a part of the task is
    done. Once the data are loaded, `work` may compute more for it, and `receive` gets the results.
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
        up   | up   | step_control(1)  | up   | The next value of the first slider, or the row above
        down | down | step_control(-1) | down | The value before of the first slider, or the row below
        """,
    )
    POLL_INTERVAL: ClassVar[float] = 0.01
    LAYOUTS: ClassVar[dict[str, tuple[int, int]]] = {}  # columns and rows of the figure from which it has a class

    def __init__(self, material: Material) -> None:
        super().__init__(id="figure", classes="-loading")
        self.material, self.is_loaded = material, False
        self.data: DataT  # once they are loaded
        self.finished_parts: set[int] = set()  # since the chapter was opened
        self._followed: tuple[object, ...] = ()  # lines and sliders that are shown
        self.work: BackgroundTask[Any] = BackgroundTask(
            self, "chapter", self._deliver, self.show_failure, self._end_work, interval=self.POLL_INTERVAL
        )

    # Parts that a subclass implements

    def compose_figure(self) -> ComposeResult:
        raise NotImplementedError

    def load(self, cancelled: Cancellation) -> Generator[str, None, DataT]:
        """Load what the figure shows in a thread; yield lines of progress."""
        raise NotImplementedError

    def set_up(self) -> None:
        """Prepare the widgets for the loaded data."""

    def show_view(self) -> None:
        """Show the data for the line, its cursor, the sliders and the size, one of which may have changed."""
        raise NotImplementedError

    def receive(self, items: list[Any]) -> None:
        """Show results of `work`."""

    @property
    def is_training(self) -> bool:
        """True while leaving the chapter would stop a training."""
        return False

    def reveal(self, pane: Widget) -> None:
        """Show the part of the figure with a pane that is about to be focused, where not all parts fit."""

    # Used by subclasses

    @property
    def line(self) -> LineBar:
        return self.query_one(LineBar)

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

    # Loading, then changes of the line, the sliders and the size

    @property
    def is_idle(self) -> bool:
        return self.is_loaded and not self.work.is_running

    def compose(self) -> ComposeResult:
        yield Static("loading …", id="figure-message", markup=False)
        with Vertical(id="figure-parts"):
            yield from self.compose_figure()

    def on_mount(self) -> None:
        self.work.start(self._load)

    def on_unmount(self) -> None:
        self.work.cancel()

    def _load(self, cancelled: Cancellation) -> Iterator[str]:
        with self.material.lock:
            if not cancelled():
                self.data = yield from self.load(cancelled)

    def _deliver(self, items: list[Any]) -> None:
        if self.is_loaded:
            self.receive(items)
        else:
            self.show_note(items[-1])

    def _end_work(self) -> None:
        if self.is_loaded:
            self.show_view()
            self.screen.refresh_bindings()
            return
        self.is_loaded = True
        self.show_note("")
        self.remove_class("-loading")
        self.set_up()
        for line in self.query(LineBar):
            self.watch(line.input, "selection", self._follow, init=False)
        self._follow()
        # Textual posts no `Resize` for a new widget if another one asks for its own place before.
        self.call_after_refresh(self.on_resize)
        self.post_message(ChapterFigureReady())

    def on_resize(self) -> None:
        for name, (columns, rows) in self.LAYOUTS.items():
            self.set_class(self.size.width >= columns and self.size.height >= rows, name)
        self._followed = ()  # the sizes of parts may have changed
        self._follow()

    @on(Input.Changed)  # posted after the cursor has moved, unlike a change of the value
    @on(Slider.Changed)
    def _follow(self) -> None:
        lines = [(each.input.value, each.input.cursor_position) for each in self.query(LineBar)]
        followed = lines, [each.index for each in self.query(Slider)]
        if self.is_loaded and followed != self._followed:  # a typed letter changes the line and moves its cursor
            self._followed = followed
            self.show_view()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.is_loaded

    def action_step_control(self, steps: int) -> None:
        self.query(Slider).first().action_step(steps)


class SamplesFigure(ChapterFigure[DataT]):
    BINDING_GROUP_TITLE = "Samples"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-samples", "again | r,ctrl+r | again | again | Sample other texts, with other seeds", show=True
    )
    seed, SEED_STEP = 7, 1

    def action_again(self) -> None:
        self.seed += self.SEED_STEP
        self.show_view()

    def show_samples(self, samples: "Sequence[Sample]") -> None:
        self.query_one("#samples", Drawing).show(lambda *size: sample_rows(samples, *size))


class WordBar(NamedTuple):
    """A possible next word and its probability."""

    text: str
    prob: float
    before: float | None = None  # such as the one without a reset, in a column before; shades the bar
    is_marked: bool = False
    note: str = ""  # replaces the bar, such as the rank of a word that is far below


class Sample(NamedTuple):
    label: str
    text: str
    is_marked: bool


def word_bars(
    title: str, headings: Sequence[str], bars: Sequence[WordBar], last: WordBar | None, width: int, height: int
) -> Content:
    """Return a heading and one bar per word, as many as there are rows; `last` is there even if the rows end before."""
    num_rows = max(1, height - 1)
    rows = list(bars[:num_rows])
    if last is not None and not any(row.is_marked for row in rows):
        rows = [*rows[: num_rows - 1], last]
    heading = "".join(each.rjust(PERCENT_WIDTH) for each in headings)
    title_width = max(0, width - cell_len(heading))
    longest = max((cell_len(row.text) for row in rows), default=0)
    name_width = max(4, min(MAX_NAME_WIDTH, longest, title_width - MIN_BAR_WIDTH - 3))
    bar_width = max(1, title_width - name_width - 3)
    scale = max((max(row.prob, row.before or 0) for row in bars), default=0.0) or 1.0
    lines = [Content.styled(fit_cells(title, title_width) + heading, MUTED)]
    for row in rows:
        cells = truncate(row.note, bar_width) or bar(row.prob / scale, bar_width)
        shade = "░" * (round((row.before or 0) / scale * bar_width) - cell_len(cells))
        before = "" if row.before is None else format_percent(row.before).rjust(PERCENT_WIDTH)
        line = Content.assemble(
            ("▸" if row.is_marked else " ", "bold $accent"),
            (fit_cells(row.text, name_width), "bold $accent" if row.is_marked else ""),
            " ",
            (cells, MUTED if row.note else "$accent"),
            (shade, MUTED),
            " " * (bar_width - cell_len(cells + shade) + 1),
            (before, MUTED),
            format_percent(row.prob).rjust(PERCENT_WIDTH),
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
