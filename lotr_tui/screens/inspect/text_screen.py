"""Base class of the inspectors of a text: its input line, an analysis in a thread, panes, keys; and lists of rows."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

from rich.segment import Segment
from textual import containers, events, message, on, widgets
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content

from engine.analysis.tokenized_text import TokenizedText, tokenize_with_offsets
from engine.data.tokenizers import EOS
from engine.errors import describe_error
from engine.models.dialogue import DialogueModel
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask, is_closed
from lotr_tui.formatting import LINE_END_MARK
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.paths import ExportDialog
from lotr_tui.screens.inspect.text_view import Page, TextView, sanitize_text
from lotr_tui.session.export import ExportTarget, check_export_target, write_export
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import MUTED
from lotr_tui.widgets.drawing import SEPARATOR
from lotr_tui.widgets.inputs import LineInput
from lotr_tui.widgets.keys import KeyFooter, binding_table
from lotr_tui.widgets.line_list import LineList, line_bindings
from lotr_tui.widgets.screen_lines import HelpLine, StatusBar

MAX_TEXT_CHARACTERS = 20_000  # about 4,000 words
MAX_LISTED_TEXTS = 3  # number of unreadable parts of a text that are listed
_SPACE = re.compile(r"\s")
_LINE_END = re.compile(rf" *(?:{LINE_END_MARK}|{EOS}) *|\n")
ResultT = TypeVar("ResultT")
Row = list[tuple[str, str]]  # texts and the names of their styles


def cut_text(text: str) -> str:
    """Return the last `MAX_TEXT_CHARACTERS` characters of `text`, from the start of a word on."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    end = text[-MAX_TEXT_CHARACTERS - 1 :]
    space = _SPACE.search(end)
    return end[space.end() :] if space else end[1:]


def marks_to_newlines(text: str) -> str:
    """Return `text` sanitized, with a line feed for each `¶` or `<eos>`."""
    return _LINE_END.sub("\n", sanitize_text(text))


def newlines_to_marks(text: str) -> str:
    """Return `text` sanitized and on one line, with `¶` for each line end; a long text loses its beginning."""
    return cut_text(_LINE_END.sub(f" {LINE_END_MARK} ", sanitize_text(text)).strip(" "))


class TextInput(LineInput):
    def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()  # Textual would keep the first line only
        event.stop()
        self.replace(newlines_to_marks(event.text), *self.selection)


class TextInputBar(containers.Horizontal):
    """A prompt mark and a one-line input; line ends are shown as `¶`. Enter posts `Input.Submitted`."""

    DEFAULT_CSS = """
    TextInputBar { height: 1; padding: 0 1; }
    TextInputBar Label { color: $accent; margin-right: 1; }
    TextInputBar Input { width: 1fr; padding: 0; background: $background; }
    TextInputBar Input:focus { background: $panel; }
    """
    PLACEHOLDER: ClassVar[str] = "type a text and press enter"
    HELP_LINE = "Enter analyses the text; ¶ or <eos> ends a line"

    def __init__(self, text: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.input = TextInput(
            newlines_to_marks(text),
            placeholder=self.PLACEHOLDER,
            compact=True,
            max_length=MAX_TEXT_CHARACTERS,
            select_on_focus=False,
        )

    def compose(self) -> ComposeResult:
        yield widgets.Label("❯")
        yield self.input

    @property
    def text(self) -> str:
        """The typed text, with a line feed for each `¶`."""
        return marks_to_newlines(self.input.value)

    def set_text(self, text: str) -> None:
        self.input.value = newlines_to_marks(text)
        self.input.cursor_position = len(self.input.value)


class RowList(LineList):
    """Rows with a cursor on one of them, which is marked in front and in its first text.

    The screen moves the cursor: it answers `RowList.Selected` with `show`.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"row-list--{name}" for name in ("plain", "muted", "bar", "strong", "gate", "positive", "negative", "cursor")
    }
    BINDINGS: ClassVar[list[BindingType]] = line_bindings("row-list")

    @dataclass
    class Selected(message.Message):
        """Posted when the cursor is to move to a row."""

        rows: "RowList"
        index: int

        @property
        def control(self) -> "RowList":
            return self.rows

    def __init__(self, title: str, help_line: str, *, id: str) -> None:
        super().__init__(id=id)
        self.BINDING_GROUP_TITLE, self.HELP_LINE = title, help_line
        self._num_rows = 0
        self._draw: Callable[[int, int], Row] = lambda index, width: []
        self._shown: tuple[int | None, int, list[Row]] | None = None
        self.cursor: int | None = None  # index of the row under the cursor, if there is one

    def show(self, num_rows: int, draw: Callable[[int, int], Row], cursor: int | None) -> None:
        """Show rows, which `draw` returns for an index and a width, with the cursor on one that is scrolled into view.

        They are painted again only if a visible one has changed.
        """
        self._num_rows, self._draw, self.cursor = num_rows, draw, cursor
        self.update_virtual_size()
        self.scroll_to_line(cursor or 0)
        top = self.scroll_offset.y
        visible = range(top, min(top + self.size.height, num_rows))
        shown = cursor, top, [draw(index, self._row_width) for index in visible]
        if shown != self._shown:
            self._shown = shown
            self.refresh()

    @property
    def _row_width(self) -> int:
        return max(1, self.scrollable_content_region.width - 1)

    def line_count(self) -> int:
        return self._num_rows

    def line_segments(self, line: int) -> list[Segment]:
        is_cursor = line == self.cursor
        [(first, name), *others] = self._draw(line, self._row_width) or [("", "plain")]
        parts = [("▸" if is_cursor else " ") + first, "cursor" if is_cursor else name], *others
        return [Segment(text, self.get_component_rich_style(f"row-list--{style}")) for text, style in parts]

    @property
    def cursor_line(self) -> int | None:
        return (self.cursor or 0) if self._num_rows else None

    def select_line(self, line: int) -> None:
        if line != self.cursor:
            self.post_message(self.Selected(self, line))


def join_metrics(metrics: Sequence[Content]) -> Content:
    """Return metrics as one line, of which a `StatusBar` shows the first ones that fit."""
    return Content.styled(SEPARATOR, MUTED).join(metrics)


def unreadable_parts(tokens: TokenizedText) -> list[Content]:
    """Return the metric that lists what the tokenizer cannot read in a text; no metric if it can read all."""
    texts = tokens.skipped_texts()
    more = ", …" if len(texts) > MAX_LISTED_TEXTS else ""
    return [Content.styled(f"cannot read {', '.join(texts[:MAX_LISTED_TEXTS])}{more}", "$warning")] if texts else []


def export_picture(screen: AppScreen[Any], name: str) -> None:
    """Ask for a path, and write a picture of a screen there."""
    picture, check = screen.app.export_screenshot(), partial(check_export_target, is_folder=False)

    def write(target: ExportTarget) -> None:
        write_export(target.path, picture, replace=target.exists)

    title, on_exported = "Export a picture of what is shown", partial(screen.notify, markup=False)
    screen.app.push_screen(ExportDialog(screen, title, f"{name}.svg", check, write, on_exported))


class TextScreen(AppScreen[None], Generic[ResultT]):
    """A screen that shows how one model reads a text: `compute` analyses the text of the input line in a thread."""

    CSS_PATH = "inspect.tcss"
    AUTO_FOCUS = ""
    HEADING: ClassVar[str]
    BUSY_MESSAGE: ClassVar[str] = "reading the text …"
    FAILURE_MESSAGE: ClassVar[str]  # start of the message about a failed analysis
    POLL_INTERVAL: ClassVar[float] = 0.05  # seconds between two looks for results
    SHOWS_TOKENS: ClassVar[bool] = True  # true if the items of the text are tokens, False if they are words
    TAKING_TURNS: ClassVar[tuple[str, ...]] = ()
    """Panes of which a small terminal shows one; the screen has a class with the id of the last that had the focus."""
    inspected_part: object = None  # model inside the model of the session that is shown; None for the whole
    panes: tuple[str, ...]  # ids of the parts that take the focus in turn, the result first; "line" is the input line
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "inspect",
            """
            close | escape | dismiss(None)  | back | Return to the previous screen
            pane  | tab    | step_pane(1)   | pane | The next part of the screen, which a narrow terminal then shows
            next  | n      | step_mark(1)   | next | The next word, surprising word or copied passage | n/N
            edit  | e      | edit           | edit | Edit the text
            export | ctrl+s | export        | export | Write a picture of what is shown to a file
            """,
            show=True,
        ),
        *binding_table(
            "inspect",
            """
            previous      | N         | step_mark(-1) | previous | The previous word, surprising word or copied passage
            previous-pane | shift+tab | step_pane(-1) | pane     | The previous part of the screen
            """,
        ),
    ]

    def __init__(self, session_model: SessionModel, text: str = "", names: Sequence[str] = ()) -> None:
        """Analyse `text`, with a line break for each `<eos>`; its lines may begin with `names` besides the cast."""
        super().__init__()
        self.session_model = session_model
        self.text = cut_text(sanitize_text(text))
        self.cast = (*names, *session_model.cast) if session_model.cast else ()
        self.eos_per_line = session_model.predicts_eos or not session_model.model.tokenizer.is_open
        self.page: Page | None = None  # layout of the analysed text; None before the first analysis
        self.analysis: BackgroundTask[ResultT] = BackgroundTask(
            self,
            "text-analysis",
            lambda results: self.show_result(results[-1]),
            lambda error: self.show_message(f"{self.FAILURE_MESSAGE}: {describe_error(error)}"),
            interval=self.POLL_INTERVAL,
        )

    # Parts that a subclass implements

    def compose_body(self) -> ComposeResult:
        raise NotImplementedError

    def find_problem(self) -> str:
        """Return why no text can be analysed, or "" if there is no reason."""
        return ""

    def show_page(self, page: Page) -> None:
        raise NotImplementedError

    def compute(self, tokens: TokenizedText, cancelled: Cancellation) -> Iterable[ResultT]:
        """Analyse the text in a thread, and return one result, or a better one after the other."""
        raise NotImplementedError

    def show_result(self, result: ResultT) -> None:
        raise NotImplementedError

    def show_message(self, message: str) -> None:
        """Show a message in place of a result."""
        self.show_metrics([Content.styled(message, MUTED)])

    # Screen

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield from self.compose_body()
        yield TextInputBar(self.text, id="line")
        yield HelpLine()
        yield KeyFooter()

    def on_mount(self) -> None:
        self.show_title(self.HEADING)
        self.focus_pane(self.panes[0] if self.text else "line")
        self.call_after_refresh(self.analyse)

    def on_unmount(self) -> None:
        self.analysis.cancel()

    @property
    def is_idle(self) -> bool:
        """True once the current text is analysed."""
        return self.page is not None and not self.analysis.is_running

    def show_title(self, title: str) -> None:
        """Show the title and the model, and whether its part is shown without the cache or mixture around it."""
        model = self.session_model.model
        if self.inspected_part not in (None, model.model if isinstance(model, DialogueModel) else model):
            title = f"{title} as trained"
        about = f" · {self.session_model.name} · {self.session_model.description}"
        self.show_line("#status", ("lotr-tui", "bold $accent"), "  ", (title, "bold"), (about, MUTED))

    def show_line(self, selector: str, *parts: str | tuple[str, str]) -> None:
        self.query_one(selector, StatusBar).show(Content.assemble(*parts))

    def show_metrics(self, metrics: Sequence[Content], note: str = "") -> None:
        """Show as many metrics as fit on one line, the most important first, and a note on the right."""
        self.query_one("#metrics", StatusBar).show(join_metrics(metrics), Content.styled(note, MUTED))

    # Analysis

    def tokenize(self, text: str) -> TokenizedText:
        tokenizer = self.session_model.model.tokenizer
        return tokenize_with_offsets(text, tokenizer, eos_per_line=self.eos_per_line, cast=self.cast)

    def analyse(self) -> None:
        if is_closed(self):  # by a key before its first paint
            return
        self.analysis.cancel()
        tokens = self.tokenize(self.text)
        self.page = Page.from_tokens(tokens) if self.SHOWS_TOKENS else Page.from_words(tokens)
        self.show_page(self.page)
        if problem := self.find_problem():
            self.show_message(problem)
        elif skipped := [] if len(tokens) else tokens.skipped_texts():
            self.show_message(f"the model cannot read {', '.join(skipped[:5])}; type words of the letters a to z")
        elif not len(tokens):
            self.show_message("the text has no words; type one below and press enter")
        else:
            if self.BUSY_MESSAGE:
                self.show_message(self.BUSY_MESSAGE)
            self.analysis.start(lambda cancelled: iter(self.compute(tokens, cancelled)))

    @on(widgets.Input.Submitted)
    def _submit_text(self) -> None:
        self.text = self.query_one(TextInputBar).text
        self.analyse()
        self.focus_pane(self.panes[0])

    # Keys

    def action_export(self) -> None:
        export_picture(self, "inspected")

    def action_edit(self) -> None:
        self.query_one(TextInputBar).input.focus()

    def action_step_mark(self, direction: int) -> None:
        self.query_one("#text", TextView).step_mark(direction)

    def action_step_pane(self, direction: int) -> None:
        focused = [] if self.focused is None else [node.id for node in self.focused.ancestors_with_self]
        current = next((index for index, pane in enumerate(self.panes) if pane in focused), -direction)
        self.focus_pane(self.panes[(current + direction) % len(self.panes)])

    def focus_pane(self, pane: str) -> None:
        """Focus a part of the screen, and show it."""
        if pane in self.TAKING_TURNS:
            for each in self.TAKING_TURNS:
                self.set_class(each == pane, f"-{each}")
        target = self.query_one(TextInputBar).input if pane == "line" else self.query_one(f"#{pane}")
        self.call_after_refresh(target.focus)
