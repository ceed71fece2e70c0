"""Screen with a prompt that receives what the user types, wherever the focus is."""

from textual import events
from textual.screen import Screen
from textual.widgets import Input, TextArea

from lotr_tui.widgets.prompt.prompt_input import PromptInput

TYPING_KEYS = frozenset({"enter", "ctrl+j", "backspace", "ctrl+w", "ctrl+u", "ctrl+v"})
"""Keys besides the printable ones that edit or send a prompt."""


class PromptScreen(Screen[None]):
    """Mixin of screens with a `PromptInput` named `prompt`.

    The app calls `redirect_to_prompt` before it forwards a key. A key handler of the screen would run too late: later
    keys would reach the prompt first, while this key still bubbles up from the focused widget.
    """

    @property
    def _prompt(self) -> PromptInput:
        return self.query_one("#prompt", PromptInput)

    def redirect_to_prompt(self, event: events.Key | events.Paste) -> bool:
        """Focus the prompt if the focused widget has no use for a key or for pasted text.

        Returns:
            True if the event has been dealt with: enter sends nothing while the prompt is empty.
        """
        if isinstance(self.focused, PromptInput) or not self.query("#prompt"):
            return False
        is_taken = self._takes_paste(event) if isinstance(event, events.Paste) else self._takes_key(event)
        if is_taken:
            return False
        self.set_focus(self._prompt)
        return isinstance(event, events.Key) and event.key == "enter" and not self._prompt.value

    def _takes_key(self, event: events.Key) -> bool:
        """Return True if the focused widget or a binding uses a key, or if the prompt does not."""
        if not (event.is_printable or event.key in TYPING_KEYS):
            return True
        focused = self.focused
        if focused is not None and focused.check_consume_key(event.key, event.character):
            return True
        return event.key in self.active_bindings

    def _takes_paste(self, event: events.Paste) -> bool:
        """Return True if the focused widget is an input that accepts all characters of the pasted text."""
        focused = self.focused
        return isinstance(focused, (Input, TextArea)) and all(
            focused.check_consume_key(character, character) for character in event.text.strip()
        )
