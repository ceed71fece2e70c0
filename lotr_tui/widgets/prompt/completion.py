"""Text area that completes the word at its end."""

from collections.abc import Callable
from typing import NamedTuple

from textual.widgets import TextArea


class Completion(NamedTuple):
    """Continuation of a typed text."""

    rest: str = ""
    """Text that completes the last word; empty if there is nothing to complete."""
    hint: str = ""
    """Line for the user about what can be typed."""


Completer = Callable[[str], Completion]
"""Function that completes a text, at whose end the cursor is."""


class CompletingTextArea(TextArea):
    """Text area that shows the rest of the last word after the cursor, in grey; `action_complete` inserts it."""

    completer: Completer | None = None
    """Function that completes the text before the cursor; None completes nothing."""
    completion_hint = ""
    """Hint of the completion that is shown; empty if the completer gave none."""

    def update_suggestion(self) -> None:
        """Show the completion of the text, if the cursor is at its end; `TextArea` calls this after each change."""
        completion = Completion()
        if self.completer is not None and self.text and self._is_cursor_at_end:
            completion = self.completer(self.text)
        self.suggestion, self.completion_hint = completion

    def watch_selection(self) -> None:
        """Remove the completion when the cursor leaves the end of the text."""
        if self.suggestion and not self._is_cursor_at_end:
            self.suggestion = ""

    def action_complete(self) -> None:
        """Insert the completion; without one, focus the next widget."""
        if self.suggestion:
            self.insert(self.suggestion)
        else:
            self.screen.focus_next()

    @property
    def _is_cursor_at_end(self) -> bool:
        return self.selection.is_empty and self.cursor_location == self.document.end
