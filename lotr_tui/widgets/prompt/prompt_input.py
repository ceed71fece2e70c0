"""Text area in which the user types a prompt."""

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events
from textual.binding import BindingType
from textual.document._document import EditResult, Location
from textual.document._edit import Edit
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.timer import Timer
from textual.widgets import TextArea

from engine.errors import LotrError
from lotr_tui.session.history import HistoryNavigator, PromptHistory
from lotr_tui.textual_fixes.widgets import paint
from lotr_tui.widgets.prompt.bindings import PROMPT_BINDINGS
from lotr_tui.widgets.prompt.completion import CompletingTextArea
from lotr_tui.widgets.prompt.text import sanitize_prompt

if TYPE_CHECKING:  # this module imports numpy, which the first paint does not need
    from engine.data.tokenizers.base import Tokenizer

MAX_PROMPT_CHARACTERS = 4000
"""Maximum length of a prompt, about 800 words."""
MAX_VISIBLE_LINES = 5
"""Maximum height of the widget in lines; a low terminal shows fewer."""
TYPING_PAUSE_SECONDS = 0.8
"""Time without a key after which the word at the cursor counts as complete."""
TYPING_HINT = "Enter sends the text; tab inserts the grey completion"
UNKNOWN_HINT = "Underlined words are unknown to this model; tab completes"
PLACEHOLDER = "Type here; / lists commands"


class _PromptMessage(Message):
    """Message of a `PromptInput`."""

    def __init__(self, prompt_input: "PromptInput") -> None:
        super().__init__()
        self.prompt_input = prompt_input

    @property
    def control(self) -> "PromptInput":
        """Widget that posted the message."""
        return self.prompt_input


class PromptInput(CompletingTextArea, inherit_bindings=False):
    """Text area for a prompt: enter sends it, up and down recall earlier prompts, unknown words are underlined.

    The rest of a word that `completer` knows is shown after the cursor; tab inserts it.

    The bindings of `TextArea` are not inherited, because the session uses ctrl+c, ctrl+e, f6 and other keys.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"prompt-input--unknown"}
    DEFAULT_CSS = """
    PromptInput {
        width: 1fr;
        height: auto;
        padding: 0;
        background: $background;
        overflow-x: hidden;
        scrollbar-size-vertical: 0;  /* it would flash at each new line */
        .text-area--suggestion { color: $foreground 50%; }
        &:ansi .text-area--suggestion, &:ansi .text-area--placeholder { text-style: dim; }
        .prompt-input--unknown { color: $text-warning; text-style: underline; }
        &:ansi .prompt-input--unknown { color: ansi_yellow; }
        &:dark .text-area--cursor, &:light .text-area--cursor, &:ansi .text-area--cursor {
            color: $foreground;
            background: $background;
            text-style: reverse;
        }
    }
    """
    BINDING_GROUP_TITLE = "Prompt"
    BINDINGS: ClassVar[list[BindingType]] = PROMPT_BINDINGS

    class Submitted(_PromptMessage):
        """Request to send the prompt. The text stays in the widget until `clear` is called."""

        def __init__(self, prompt_input: "PromptInput", value: str) -> None:
            super().__init__(prompt_input)
            self.value = value

    class HintChanged(_PromptMessage):
        """Posted when `hint` has changed."""

    class Notice(_PromptMessage):
        """Line for the user: pasted text was changed, or the history cannot be saved."""

        def __init__(self, prompt_input: "PromptInput", text: str) -> None:
            super().__init__(prompt_input)
            self.text = text

    hint: reactive[str] = reactive("", repaint=False)
    """Line for the user about the typed text: what completes it, or what its underlined words are; or empty."""

    def __init__(
        self, tokenizer: "Tokenizer | None" = None, history: PromptHistory | None = None, *, id: str | None = None
    ) -> None:
        """Create an empty prompt; sent prompts are added to `history`, and None disables recall."""
        super().__init__(
            id=id,
            compact=True,
            highlight_cursor_line=False,
            placeholder=PLACEHOLDER,
            soft_wrap=True,
        )
        self.set_reactive(TextArea.cursor_blink, False)
        self.set_reactive(TextArea.match_cursor_bracket, False)
        self._tokenizer = tokenizer
        self._history = history
        self._recall: HistoryNavigator | None = None
        self._last_recalled: tuple[str, Location] = ("", (0, 0))
        """Text recalled last, and the cursor location after the recall."""
        self._typing_location: Location | None = None
        """Cursor location after the last edit, until the user pauses."""
        self._is_full = False
        self._typing_pause_timer: Timer | None = None

    def on_mount(self) -> None:
        """Create the timer for typing pauses, which runs only after an edit with unknown words."""
        self._typing_pause_timer = self.set_interval(TYPING_PAUSE_SECONDS, self._end_typing, pause=True)

    # Text

    def set_placeholder(self, text: str | None) -> None:
        """Show a text while the prompt is empty; None is the default text."""
        self.placeholder = PLACEHOLDER if text is None else text

    @property
    def value(self) -> str:
        """Text of the prompt. A new value is sanitized, and the cursor is placed at its end."""
        return self.text

    @value.setter
    def value(self, text: str) -> None:
        self.load_text(sanitize_prompt(text)[0][:MAX_PROMPT_CHARACTERS])
        self._typing_location = None
        self.move_cursor(self.document.end)

    @property
    def tokenizer(self) -> "Tokenizer | None":
        """Known words; None means that no word is unknown."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: "Tokenizer | None") -> None:
        self._tokenizer = tokenizer
        self._refresh_unknown_marks()

    @property
    def unknown_words(self) -> tuple[str, ...]:
        """Words outside the vocabulary and characters outside the tokenizer, without duplicates."""
        if self._tokenizer is None:
            return ()
        return tuple(dict.fromkeys(text for _, _, text in self._tokenizer.unknown_spans(self.value)))

    def replace(
        self, insert: str, start: Location, end: Location, *, maintain_selection_offset: bool = True
    ) -> EditResult:
        """Replace a range with sanitized text, cut to the maximum length. All typed and pasted text passes here."""
        room = MAX_PROMPT_CHARACTERS - len(self.text) + len(self.get_text_range(start, end))
        text, removed = sanitize_prompt(insert[: 8 * MAX_PROMPT_CHARACTERS])
        is_cut = len(text) > room or len(insert) > 8 * MAX_PROMPT_CHARACTERS
        text = text[: max(0, room)]
        notices = []
        if is_cut and len(insert) > 1:
            notices.append(
                f"pasted {len(text):,} of {len(insert):,} characters: a prompt has at most {MAX_PROMPT_CHARACTERS:,}"
            )
        elif is_cut and not self._is_full:
            notices.append(f"the prompt is full: {MAX_PROMPT_CHARACTERS:,} characters")
        if removed:
            notices.append(f"control characters removed: {removed:,}")
        if notices:
            self.post_message(self.Notice(self, "; ".join(notices)))
        self._is_full = is_cut
        return super().replace(text, start, end, maintain_selection_offset=maintain_selection_offset)

    def edit(self, edit: Edit) -> EditResult:
        """Apply an edit, and do not mark the word at the cursor until it is complete."""
        result = super().edit(edit)
        self._typing_location = self.cursor_location
        if self._typing_pause_timer is not None and self.unknown_words:
            self._typing_pause_timer.reset()
        if self.virtual_size.height > self.size.height:  # TextArea scrolls before the height of a new line is known
            if self.size.height == self._max_visible_lines:
                self.scroll_cursor_visible()
            else:
                self.call_after_refresh(self.scroll_cursor_visible)
        paint(self)
        return result

    async def _on_key(self, event: events.Key) -> None:
        """Run the prompt's own bindings at once.

        Textual would run a binding after the key has travelled up to the app. Over a slow line, letters that arrive
        together with the key would then be inserted first.
        """
        if event.is_printable:
            return  # TextArea inserts the character
        active = self.screen.active_bindings.get(event.key)
        if active is not None and active.node is self:
            event.stop()
            event.prevent_default()
            await self.run_action(active.binding.action)
        elif event.key == "enter":
            event.prevent_default()  # TextArea would insert a newline

    def action_send(self) -> None:
        """Add the prompt to the history and post `Submitted`."""
        value = self.value
        if self._history is not None:
            try:
                self._history.add(value)
            except LotrError as error:
                self.post_message(self.Notice(self, str(error)))
        self._recall = None
        self.post_message(self.Submitted(self, value))

    def action_new_line(self) -> None:
        """Insert a newline at the cursor."""
        self.replace("\n", *self.selection, maintain_selection_offset=False)

    # Recall

    def action_older(self) -> None:
        """Move the cursor a line up; on the first line, or right after a recall, show the next older prompt."""
        if not self._is_at_recalled and not self.navigator.is_first_wrapped_line(self.cursor_location):
            self.action_cursor_up()
            return
        if not self._is_recalling and self._history is not None:
            self._recall = HistoryNavigator(self._history.entries, self.value)
        self._show_recalled(self._recall.older() if self._recall else None)

    def action_newer(self) -> None:
        """Move the cursor a line down; on the last line, or right after a recall, show the next newer prompt."""
        if not self._is_at_recalled and not self.navigator.is_last_wrapped_line(self.cursor_location):
            self.action_cursor_down()
        elif self._recall is not None and self._is_recalling:
            self._show_recalled(self._recall.newer())

    @property
    def _is_recalling(self) -> bool:
        """True if the text is a recalled prompt that has not been edited."""
        return self._recall is not None and self.value == self._last_recalled[0]

    @property
    def _is_at_recalled(self) -> bool:
        """True if the cursor has not moved since the recall, either."""
        return self._is_recalling and self.cursor_location == self._last_recalled[1]

    def _show_recalled(self, text: str | None) -> None:
        if text is not None:
            self.value = text
            self._last_recalled = (self.value, self.cursor_location)

    # Display

    def get_line(self, line_index: int) -> Text:
        """Return a line in which words outside the vocabulary are underlined."""
        line = super().get_line(line_index)
        style = self.get_component_rich_style("prompt-input--unknown", partial=True)
        for start, end in self._marked_spans(line_index, line.plain):
            line.stylize(style, start, end)
        return line

    def _marked_spans(self, line_index: int, line: str) -> list[tuple[int, int]]:
        """Return the unknown parts of a line, without the one that is being typed."""
        is_command = line_index == 0 and line.startswith("/") and not line.startswith("//")
        if self._tokenizer is None or is_command:
            return []
        row, column = self.cursor_location
        is_typing = row == line_index and self._typing_location == (row, column)
        spans = self._tokenizer.unknown_spans(line)
        return [(start, end) for start, end, _ in spans if not (is_typing and start <= column <= end)]

    def get_help_line(self) -> str:
        """Return the hint for the help line of the screen."""
        return self.hint

    def watch_hint(self) -> None:
        """Post `HintChanged`."""
        self.post_message(self.HintChanged(self))

    def on_text_area_changed(self) -> None:
        """Update the hint."""
        self._update_hint()

    def _update_hint(self) -> None:
        if self.completion_hint:
            self.hint = self.completion_hint
        elif any(self._marked_spans(row, line) for row, line in enumerate(self.document.lines)):
            self.hint = UNKNOWN_HINT
        else:
            self.hint = TYPING_HINT if self.text else ""

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the number of lines, at most 5 and at most a quarter of the terminal's height."""
        height = super().get_content_height(container, viewport, width)
        return max(1, min(height, self._max_visible_lines))

    @property
    def _max_visible_lines(self) -> int:
        return max(1, min(MAX_VISIBLE_LINES, self.app.size.height // 4))

    def watch_has_focus(self, has_focus: bool) -> None:
        """Repaint the lines: the line cache of `TextArea` does not depend on the focus, but the cursor does."""
        super().watch_has_focus(has_focus)
        self._refresh_unknown_marks()

    def _end_typing(self) -> None:
        if self._typing_pause_timer is not None:
            self._typing_pause_timer.pause()
        self._typing_location = None
        self._refresh_unknown_marks()

    def _refresh_unknown_marks(self) -> None:
        self._update_hint()
        self.notify_style_update()  # clears the line cache of TextArea
        self.refresh()
