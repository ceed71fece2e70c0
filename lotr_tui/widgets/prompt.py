"""The prompt: a text area that works as a shell does, with completion, a menu and the recall of earlier prompts."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from textual import events, message
from textual.binding import BindingType
from textual.content import Content
from textual.document._document import EditResult, Location
from textual.document._edit import Edit
from textual.geometry import Size
from textual.widgets import Static, TextArea

from lotr_tui.formatting import JOINERS
from lotr_tui.session.settings import PromptHistory
from lotr_tui.textual_fixes.app import paint
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.screen_lines import HelpLine

MAX_PROMPT_CHARACTERS = 4000  # about 800 words
MAX_VISIBLE_LINES = 5  # a low terminal shows fewer
TYPING_HINT = "Enter sends the text"
COMPLETION_HINT = "; tab inserts the grey completion"
PLACEHOLDER = "Type here; / lists commands"
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]"
)
_LINE_BREAK = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Cn", "Co"}  # controls, marks, lone surrogates, unassigned, private
_BINDINGS = """
send            | enter                | send                     | send            | Send the prompt
new-line        | ctrl+j               | new_line                 | new line        | Start another line
older           | up                   | step_line(-1)            | older           | A line up, or an older prompt
newer           | down                 | step_line(1)             | newer           | A line down, or a newer prompt
left            | left                 | cursor_left              | left            | A character to the left
right           | right                | cursor_right             | right           | A character to the right
word-left       | ctrl+left            | cursor_word_left         | word left       | A word to the left
word-right      | ctrl+right           | cursor_word_right        | word right      | A word to the right
home            | home,ctrl+a          | cursor_line_start        | line start      | Start of the line
end             | end,ctrl+e           | cursor_line_end          | line end        | End of the line
select-left     | shift+left           | cursor_left(True)        | select left     | Select a character to the left
select-right    | shift+right          | cursor_right(True)       | select right    | Select a character to the right
select-home     | shift+home           | cursor_line_start(True)  | select to start | Select to the line start
select-end      | shift+end            | cursor_line_end(True)    | select to end   | Select to the line end
backspace       | backspace            | delete_left              | delete left     | Delete the character to the left
delete          | delete,ctrl+d        | delete_right             | delete          | Delete the character to the right
delete-word     | ctrl+w,alt+backspace | kill('word_left')        | cut word        | Cut the word to the left
delete-to-start | ctrl+u               | kill('to_start_of_line') | cut to start    | Cut to the line start
delete-to-end   | ctrl+k               | kill('to_end_of_line')   | cut to end      | Cut to the line end
yank            | ctrl+y               | yank                     | put back        | Put back what was cut
undo            | ctrl+z               | undo                     | undo            | Undo the last change
redo            | alt+z,ctrl+shift+z   | redo                     | redo            | Redo the change
paste           | ctrl+v               | paste                    | paste           | Paste the text copied in this app
complete        | tab                  | complete                 | complete        | Insert the grey completion
menu-up         | pageup               | step_page(-1)            | page up         | A page up in the menu
menu-down       | pagedown             | step_page(1)             | page down       | A page down in the menu
"""


class Choice(NamedTuple):
    """Row of the menu."""

    text: str  # of the whole prompt once it is chosen; a space at its end waits for more
    label: str
    help: str = ""


class Completion(NamedTuple):
    """Continuations of a typed text."""

    rest: str = ""  # shown in grey
    hint: str = ""  # about what can be typed
    choices: Sequence[Choice] = ()  # for the menu
    chosen: int = 0  # index in `choices`; -1 for none


class PromptMenu(Static):
    """Choices for the typed text. The menu covers the lines above the prompt, so that nothing moves."""

    DEFAULT_CSS = """
    PromptMenu {
        display: none; overlay: screen; width: 100%; height: auto; padding: 0 3; background: $panel;
        text-wrap: nowrap; text-overflow: ellipsis;
    }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)
        self.choices: Sequence[Choice] = ()
        self.chosen = -1
        self._first, self.num_shown = 0, 1  # row at the top, and number of rows

    @property
    def choice(self) -> Choice | None:
        return self.choices[self.chosen] if 0 <= self.chosen < len(self.choices) else None

    def show(self, choices: Sequence[Choice], chosen: int) -> None:
        self.choices, self.chosen, self.display = choices, chosen, bool(choices)
        if not choices:
            return
        height = min(len(choices), max(2, self.screen.size.height // 2))
        number = self.num_shown = height - (height < len(choices))  # the last line says how many more there are
        self._first = max(0, min(chosen - number // 2, len(choices) - number))
        others = self._first, len(choices) - self._first - number
        width = max(len(choice.label) for choice in choices)
        rows = []
        for row, choice in enumerate(choices[self._first : self._first + number], self._first):
            label = choice.label.ljust(width), "bold reverse" if row == chosen else "bold"
            rows.append(Content.assemble(label, "  ", (choice.help, MUTED)))
        if number < height:
            texts = [f"{n} more {where}" for n, where in zip(others, ("above", "below"), strict=True) if n]
            rows.append(Content.styled(", ".join(texts), MUTED))
        self.update(Content("\n").join(rows))
        self.styles.offset = (0, -height)

    def on_click(self, event: events.Click) -> None:
        if event.y < self.num_shown:
            prompt = self.screen.query_one(PromptInput)
            prompt.value = self.choices[self._first + event.y].text
            prompt.focus()


class PromptInput(TextArea, inherit_bindings=False):
    """Text area for a prompt, without the bindings of `TextArea`: the session uses ctrl+c, ctrl+f and other keys."""

    DEFAULT_CSS = """
    PromptInput {
        width: 1fr; height: auto; padding: 0; background: $background;
        overflow-x: hidden; scrollbar-size-vertical: 0;  /* it would flash at each new line */
        .text-area--suggestion { color: $foreground 50%; }
        &:ansi .text-area--suggestion, &:ansi .text-area--placeholder { text-style: dim; }
        &:dark .text-area--cursor, &:light .text-area--cursor, &:ansi .text-area--cursor {
            color: $foreground; background: $background; text-style: reverse;
        }
    }
    """
    BINDING_GROUP_TITLE = "Prompt"
    BINDINGS: ClassVar[list[BindingType]] = binding_table("prompt", _BINDINGS)

    @dataclass
    class Submitted(message.Message):
        """Request to send a text, which is no longer in the prompt."""

        value: str

    def __init__(
        self, history: PromptHistory | None = None, menu: PromptMenu | None = None, *, id: str | None = None
    ) -> None:
        super().__init__(id=id, compact=True, highlight_cursor_line=False, placeholder=PLACEHOLDER, soft_wrap=True)
        self.set_reactive(TextArea.cursor_blink, False)
        self.set_reactive(TextArea.match_cursor_bracket, False)
        self.completer: Callable[[str], Completion] | None = None
        self.typing_hint = TYPING_HINT
        self._history, self._menu = history, menu or PromptMenu()
        self._cut_text = self._deleted_text = ""  # the latter by the last edit
        self._completion_hint = self._shown_hint = ""  # the latter in the help line
        self._recall, self._recall_index = list[str](), 0  # a draft and the older prompts that start with it
        self._last_recalled: tuple[str, Location] = ("", (0, 0))  # text, and the cursor location after the recall
        self._is_full = False

    # Text

    @property
    def value(self) -> str:
        """Text of the prompt. A new value is sanitized, and the cursor is placed at its end."""
        return self.text

    @value.setter
    def value(self, text: str) -> None:
        self.load_text(sanitize_prompt(text)[0][:MAX_PROMPT_CHARACTERS])
        self.move_cursor(self.document.end)
        self.update_suggestion()

    def replace(
        self, insert: str, start: Location, end: Location, *, maintain_selection_offset: bool = True
    ) -> EditResult:
        """Replace a range with sanitized text, cut to the maximum length. All typed and pasted text passes here."""
        room = max(0, MAX_PROMPT_CHARACTERS - len(self.text) + len(self.get_text_range(start, end)))
        sanitized, removed = sanitize_prompt(insert[: 8 * MAX_PROMPT_CHARACTERS])
        text, was_full = sanitized[:room], self._is_full
        self._is_full = len(sanitized) > room or len(insert) > 8 * MAX_PROMPT_CHARACTERS
        notices = [f"control characters removed: {removed:,}"] if removed else []
        if self._is_full and len(insert) > 1:
            limit = f"a prompt has at most {MAX_PROMPT_CHARACTERS:,}"
            notices.insert(0, f"pasted {len(text):,} of {len(insert):,} characters: {limit}")
        elif self._is_full and not was_full:
            notices.insert(0, f"the prompt is full: {MAX_PROMPT_CHARACTERS:,} characters")
        if notices:
            self.notify("; ".join(notices), severity="warning", markup=False)
        return super().replace(text, start, end, maintain_selection_offset=maintain_selection_offset)

    def edit(self, edit: Edit) -> EditResult:
        result = super().edit(edit)
        self._deleted_text = result.replaced_text
        if self.virtual_size.height > self.size.height:  # TextArea scrolls before the height of a new line is known
            if self.size.height == self._max_visible_lines:
                self.scroll_cursor_visible()
            else:
                self.call_after_refresh(self.scroll_cursor_visible)
        paint(self)
        return result

    async def _on_key(self, event: events.Key) -> None:
        """Run the prompt's bindings at once: Textual would first insert letters that arrive together with the key."""
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
        choice = self._menu.choice
        if choice is not None and choice.text != self.value:
            self.value = choice.text
            if choice.text.endswith(" "):
                return
        value = self.value
        if self._history is not None and (problem := self._history.add(value)):
            self.notify(problem, severity="warning", markup=False)
        self._recall = []
        self.post_message(self.Submitted(value))
        self.clear()  # at once: the keys of the next text may already wait

    def action_new_line(self) -> None:
        self.replace("\n", *self.selection, maintain_selection_offset=False)

    def action_kill(self, part: str) -> None:
        self._deleted_text = ""
        getattr(self, f"action_delete_{part}")()
        self._cut_text = self._deleted_text or self._cut_text

    def action_yank(self) -> None:
        self.replace(self._cut_text, *self.selection, maintain_selection_offset=False)

    # Completion and recall

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        has_text = action == "complete" and bool(self.suggestion)
        return action not in ("complete", "step_page") or bool(self._menu.choices) or has_text

    def action_complete(self) -> None:
        if self._menu.choices:
            self.value = (self._menu.choice or self._menu.choices[0]).text
        else:
            self.insert(self.suggestion)

    def update_suggestion(self) -> None:
        """Show what completes the text, if the cursor is at its end; `TextArea` calls this after each change."""
        completion = Completion()
        if self.completer is not None and self.text and self._is_cursor_at_end:
            completion = self.completer(self.text)
        self.suggestion, self._completion_hint = completion.rest, completion.hint
        if self._menu.is_attached:
            self._menu.show(completion.choices, completion.chosen)
        self._show_hint()

    def watch_selection(self) -> None:
        if self.suggestion and not self._is_cursor_at_end:
            self.suggestion = ""
            self._show_hint()

    @property
    def _is_cursor_at_end(self) -> bool:
        return self.selection.is_empty and self.cursor_location == self.document.end

    def action_step_line(self, offset: int) -> None:
        """Move in the menu, or by a line; on the first or last line, or right after a recall, recall another prompt."""
        if self._menu.choices:
            self._choose((self._menu.chosen + offset) % len(self._menu.choices))
            return
        at, wrapped, is_up = self.cursor_location, self.navigator, offset < 0
        is_recalling = bool(self._recall) and self.value == self._last_recalled[0]
        is_edge = wrapped.is_first_wrapped_line(at) if is_up else wrapped.is_last_wrapped_line(at)
        if not is_edge and not (is_recalling and at == self._last_recalled[1]):
            (self.action_cursor_up if is_up else self.action_cursor_down)()
            return
        if is_up and not is_recalling and self._history is not None:
            older = (each for each in reversed(self._history.entries) if each.startswith(self.value))
            self._recall, self._recall_index = list(dict.fromkeys([self.value, *older])), 0
        index = self._recall_index + (1 if is_up else -1)
        if (is_recalling or is_up) and 0 <= index < len(self._recall):
            self._recall_index, self.value = index, self._recall[index]
            self._last_recalled = (self.value, self.cursor_location)

    def action_step_page(self, pages: int) -> None:
        rows = self._menu.chosen + pages * self._menu.num_shown
        self._choose(max(0, min(rows, len(self._menu.choices) - 1)))

    def _choose(self, index: int) -> None:
        self._menu.show(self._menu.choices, index)
        chosen = self._menu.choices[index].text
        self.suggestion = chosen[len(self.text) :] if chosen.startswith(self.text) else ""

    # Display

    def get_help_line(self) -> str:
        completion = COMPLETION_HINT if self.suggestion else ""
        return self._completion_hint or (f"{self.typing_hint}{completion}" if self.text else "")

    def on_text_area_changed(self) -> None:
        self._show_hint()

    def _show_hint(self) -> None:
        before, self._shown_hint = self._shown_hint, self.get_help_line()
        if self._shown_hint != before:
            for help_line in self.screen.query(HelpLine):
                help_line.update_text()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        height = super().get_content_height(container, viewport, width)
        return max(1, min(height, self._max_visible_lines))

    @property
    def _max_visible_lines(self) -> int:
        return max(1, min(MAX_VISIBLE_LINES, self.app.size.height // 4))

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self.notify_style_update()
        self.refresh()


def sanitize_prompt(text: str) -> tuple[str, int]:
    """Return the text without escape sequences and control characters, and the number of both that were removed."""
    text, removed = _ESCAPE_SEQUENCE.subn("", text)
    text = _LINE_BREAK.sub("\n", text).replace("\t", " ")
    text = text.rstrip("\n") if len(text) > 1 else text
    kept = "".join(c for c in text if c in "\n" + JOINERS or unicodedata.category(c) not in _HIDDEN_CATEGORIES)
    return kept, removed + len(text) - len(kept)
