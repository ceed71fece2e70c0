"""Where a prompt is typed."""

import re
import unicodedata
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.document._document import EditResult, Location
from textual.document._edit import Edit
from textual.geometry import Size
from textual.message import Message
from textual.timer import Timer
from textual.widgets import TextArea

from engine.errors import LotrError
from lotr_tui.session.history import History, Recall

if TYPE_CHECKING:  # with numpy, which the first paint does without
    from engine.data.vocabulary import Vocabulary

MAX_CHARACTERS = 4000
"""Some 800 words."""
MAX_LINES = 5
"""Seen at once, where the terminal is high enough."""
PAUSE_SECONDS = 0.8
"""A word that is being typed counts as complete after so long."""


class Prompt(TextArea, inherit_bindings=False):
    """Lines to type; enter sends them, up and down recall earlier ones. Words outside `vocabulary` are underlined.

    The bindings of the base class are not inherited: the session needs ctrl+c, ctrl+e, f6 and others for itself.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"prompt--unknown"}
    DEFAULT_CSS = """
    Prompt {
        width: 1fr;
        height: auto;
        padding: 0;
        background: $background;
        overflow-x: hidden;
        scrollbar-size-vertical: 0;  /* it would flash each time a line is added */
        .prompt--unknown { color: $text-warning; text-style: underline; }
        &:ansi .prompt--unknown { color: ansi_yellow; }
        &:dark .text-area--cursor, &:light .text-area--cursor, &:ansi .text-area--cursor {
            color: $foreground;
            background: $background;
            text-style: reverse;
        }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "send", id="prompt.send", tooltip="Send the prompt"),
        Binding("ctrl+j", "new_line", "new line", show=False, id="prompt.new_line", tooltip="Begin another line"),
        Binding("up", "older", "older", show=False, id="prompt.older", tooltip="A line up, or an older prompt"),
        Binding("down", "newer", "newer", show=False, id="prompt.newer", tooltip="A line down, or a newer prompt"),
        Binding("left", "cursor_left", "left", show=False, id="prompt.left", tooltip="A character to the left"),
        Binding("right", "cursor_right", "right", show=False, id="prompt.right", tooltip="A character to the right"),
        Binding("ctrl+left", "cursor_word_left", "word left", show=False, id="prompt.word_left", tooltip="A word left"),
        Binding(
            "ctrl+right", "cursor_word_right", "word right", show=False, id="prompt.word_right", tooltip="A word right"
        ),
        Binding(
            "home,ctrl+a", "cursor_line_start", "line start", show=False, id="prompt.home", tooltip="Start of the line"
        ),
        Binding("end", "cursor_line_end", "line end", show=False, id="prompt.end", tooltip="End of the line"),
        Binding(
            "shift+left", "cursor_left(True)", "select left", show=False, id="prompt.select_left", tooltip="Select left"
        ),
        Binding(
            "shift+right",
            "cursor_right(True)",
            "select right",
            show=False,
            id="prompt.select_right",
            tooltip="Select right",
        ),
        Binding(
            "shift+home",
            "cursor_line_start(True)",
            "select to start",
            show=False,
            id="prompt.select_home",
            tooltip="Select to the start of the line",
        ),
        Binding(
            "shift+end",
            "cursor_line_end(True)",
            "select to end",
            show=False,
            id="prompt.select_end",
            tooltip="Select to the end of the line",
        ),
        Binding(
            "backspace", "delete_left", "delete left", show=False, id="prompt.backspace", tooltip="Delete to the left"
        ),
        Binding(
            "delete,ctrl+d", "delete_right", "delete", show=False, id="prompt.delete", tooltip="Delete to the right"
        ),
        Binding(
            "ctrl+w,alt+backspace",
            "delete_word_left",
            "delete word",
            show=False,
            id="prompt.delete_word",
            tooltip="Delete the word to the left",
        ),
        Binding(
            "ctrl+u",
            "delete_to_start_of_line",
            "delete to start",
            show=False,
            id="prompt.delete_to_start",
            tooltip="Delete to the start of the line",
        ),
        Binding(
            "ctrl+k",
            "delete_to_end_of_line",
            "delete to end",
            show=False,
            id="prompt.delete_to_end",
            tooltip="Delete to the end of the line",
        ),
        Binding("ctrl+z", "undo", "undo", show=False, id="prompt.undo", tooltip="Take back the last change"),
        Binding("alt+z,ctrl+shift+z", "redo", "redo", show=False, id="prompt.redo", tooltip="Make the change again"),
        Binding("ctrl+v", "paste", "paste", show=False, id="prompt.paste", tooltip="Paste what was copied here"),
    ]

    class Submitted(Message):
        """The prompt is to be sent; it stays until `clear` is called."""

        def __init__(self, prompt: "Prompt", value: str) -> None:
            super().__init__()
            self.prompt = prompt
            self.value = value

        @property
        def control(self) -> "Prompt":
            """The prompt it was typed in."""
            return self.prompt

    class Notice(Message):
        """A line for whoever types: what was pasted is not taken as it is, or prompts cannot be kept."""

        def __init__(self, prompt: "Prompt", text: str) -> None:
            super().__init__()
            self.prompt = prompt
            self.text = text

        @property
        def control(self) -> "Prompt":
            """The prompt it is about."""
            return self.prompt

    def __init__(
        self, vocabulary: "Vocabulary | None" = None, prompts: History | None = None, *, id: str | None = None
    ) -> None:
        """Mark words outside `vocabulary`, if one is given; recall and keep `prompts`, if given."""
        super().__init__(
            id=id, compact=True, highlight_cursor_line=False, placeholder=Content("type a prompt"), soft_wrap=True
        )
        self.set_reactive(TextArea.cursor_blink, False)
        self.set_reactive(TextArea.match_cursor_bracket, False)
        self._vocabulary = vocabulary
        self._prompts = prompts
        self._recall: Recall | None = None
        self._recalled: tuple[str, Location] = ("", (0, 0))  # the text shown last, and where it left the cursor
        self._typed_at: Location | None = None  # where the last edit left the cursor, until there is a pause
        self._full = False
        self._pause: Timer | None = None

    def on_mount(self) -> None:
        """The pause is waited for only behind a word that may be marked."""
        self._pause = self.set_interval(PAUSE_SECONDS, self._paused, pause=True)

    # What stands in it

    @property
    def value(self) -> str:
        """What was typed; setting it puts the cursor at the end."""
        return self.text

    @value.setter
    def value(self, text: str) -> None:
        self.load_text(clean(text)[0][:MAX_CHARACTERS])
        self._typed_at = None
        self.move_cursor(self.document.end)

    @property
    def vocabulary(self) -> "Vocabulary | None":
        """The words that are known; all, if None."""
        return self._vocabulary

    @vocabulary.setter
    def vocabulary(self, vocabulary: "Vocabulary | None") -> None:
        self._vocabulary = vocabulary
        self._mark_anew()

    @property
    def unknown(self) -> tuple[str, ...]:
        """The words outside the vocabulary, each once."""
        if self._vocabulary is None:
            return ()
        words = (word for _, _, word in self._vocabulary.spans(self.value))
        return tuple(dict.fromkeys(word for word in words if word not in self._vocabulary))

    def replace(
        self, insert: str, start: Location, end: Location, *, maintain_selection_offset: bool = True
    ) -> EditResult:
        """What is typed and pasted passes here: cleaned, and cut where the prompt is full."""
        room = MAX_CHARACTERS - len(self.text) + len(self.get_text_range(start, end))
        taken, removed = clean(insert[: 8 * MAX_CHARACTERS])
        cut = len(taken) > room or len(insert) > 8 * MAX_CHARACTERS
        taken = taken[: max(0, room)]
        said = []
        if cut and (len(insert) > 1 or not self._full):
            said.append(
                f"a prompt has at most {MAX_CHARACTERS:,} characters: "
                f"{len(taken):,} of the {len(insert):,} pasted were taken"
                if len(insert) > 1
                else f"the prompt is full: {MAX_CHARACTERS:,} characters"
            )
        if removed:
            said.append(f"control characters were left out: {removed:,}")
        if said:
            self.post_message(self.Notice(self, "; ".join(said)))
        self._full = cut
        return super().replace(taken, start, end, maintain_selection_offset=maintain_selection_offset)

    def edit(self, edit: Edit) -> EditResult:
        """Change the text; the word at the cursor is not marked before it is complete."""
        result = super().edit(edit)
        self._typed_at = self.cursor_location
        if self._pause is not None and self.unknown:
            self._pause.reset()
        if self.virtual_size.height > self.size.height:  # the base class scrolls before it knows of a new line
            if self.size.height == self._most_lines:
                self.scroll_cursor_visible()
            else:
                self.call_after_refresh(self.scroll_cursor_visible)
        return result

    async def _on_key(self, event: events.Key) -> None:
        """Act on our own keys here and now.

        A binding acts when the key has travelled up to the app; letters that came in one piece with it, as
        they do over a slow line, would have been typed before.
        """
        if event.is_printable:
            return  # the base class puts it in
        active = self.screen.active_bindings.get(event.key)
        if active is not None and active.node is self:
            event.stop()
            event.prevent_default()
            await self.run_action(active.binding.action)
        elif event.key == "enter":
            event.prevent_default()  # else the base class would break the line

    def action_send(self) -> None:
        """Tell the screen, and keep the prompt for recall."""
        value = self.value
        if self._prompts is not None:
            try:
                self._prompts.add(value)
            except LotrError as error:
                self.post_message(self.Notice(self, str(error)))
        self._recall = None
        self.post_message(self.Submitted(self, value))

    def action_new_line(self) -> None:
        """Break the line here."""
        self.replace("\n", *self.selection, maintain_selection_offset=False)

    # Recall

    def action_older(self) -> None:
        """A line up; on the first line, or right after a recall, the next older prompt."""
        text, cursor = self._recalled
        recalling = self._recall is not None and self.value == text
        if not (recalling and self.cursor_location == cursor) and not self._is_first_line:
            self.action_cursor_up()
            return
        if not recalling and self._prompts is not None:
            self._recall = Recall(self._prompts.entries, self.value)
        self._show(self._recall.older() if self._recall else None)

    def action_newer(self) -> None:
        """A line down; on the last line, or right after a recall, the next newer prompt."""
        text, cursor = self._recalled
        recalling = self._recall is not None and self.value == text
        if not (recalling and self.cursor_location == cursor) and not self._is_last_line:
            self.action_cursor_down()
        elif self._recall is not None and recalling:
            self._show(self._recall.newer())

    def _show(self, text: str | None) -> None:
        if text is not None:
            self.value = text
            self._recalled = (self.value, self.cursor_location)

    @property
    def _is_first_line(self) -> bool:
        return self.navigator.is_first_wrapped_line(self.cursor_location)

    @property
    def _is_last_line(self) -> bool:
        return self.navigator.is_last_wrapped_line(self.cursor_location)

    # What is seen

    def get_line(self, line_index: int) -> Text:
        """A line, with the words outside the vocabulary marked."""
        line = super().get_line(line_index)
        if self._vocabulary is None:
            return line
        style = self.get_component_rich_style("prompt--unknown", partial=True)
        row, column = self.cursor_location
        typing = row == line_index and self._typed_at == (row, column)
        for start, end, word in self._vocabulary.spans(line.plain):
            if word not in self._vocabulary and not (typing and start <= column <= end):
                line.stylize(style, start, end)
        return line

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as there are, but at most 5 and a quarter of the terminal."""
        height = super().get_content_height(container, viewport, width)
        return max(1, min(height, self._most_lines))

    @property
    def _most_lines(self) -> int:
        return max(1, min(MAX_LINES, self.app.size.height // 4))

    def watch_has_focus(self, has_focus: bool) -> None:
        """Lines are kept as they were drawn, and the base class does not ask whether they had the cursor."""
        super().watch_has_focus(has_focus)
        self._mark_anew()

    def _paused(self) -> None:
        if self._pause is not None:
            self._pause.pause()
        self._typed_at = None
        self._mark_anew()

    def _mark_anew(self) -> None:
        self.notify_style_update()  # forgets the lines kept
        self.refresh()


_ESCAPE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]")
_BREAK = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_JOINERS = "\u200c\u200d"
"""Not seen, but Persian, Hindi and some emoji are not spelled right without."""


def clean(text: str) -> tuple[str, int]:
    """Text that can be shown and edited, and how many escape sequences and control characters it lost for that.

    Line ends become newlines, tabs spaces; of more than one character, the line ends behind the last line go.
    """
    text, removed = _ESCAPE.subn("", text)
    text = _BREAK.sub("\n", text).replace("\t", " ")
    if len(text) > 1:
        text = text.rstrip("\n")
    kept = text if text.isprintable() else "".join(c for c in text if c == "\n" or _is_shown(c))
    return kept, removed + len(text) - len(kept)


def _is_shown(character: str) -> bool:
    # Controls, formatting marks (they can reverse the text around them), lone surrogates, unassigned.
    return character in _JOINERS or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Cn", "Co"}
