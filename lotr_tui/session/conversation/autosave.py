"""Saving of a conversation while it continues."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.session_file import SessionError, SessionWriter


class Autosave:
    """Session file of a conversation; a new file is created with the first finished reply."""

    def __init__(self, writer: SessionWriter | None) -> None:
        self._writer = writer

    @property
    def session_name(self) -> str:
        """Name of the session, which is the stem of its file; empty before there is a file."""
        return "" if self._writer is None else self._writer.session.name

    def save(self, changed: Sequence[Reply], finished: Iterable[Reply], current: Reply | None) -> str:
        """Save changed replies and the selection. Return the error, or an empty text.

        Args:
            changed: A reply, and the branches that were drawn with it.
            finished: Replies that a new file gets.
            current: The selected reply; None for the first of `changed`.
        """
        replies: Iterable[Reply] = changed
        if self._writer is None:
            self._writer = SessionWriter(changed[0].session_model.name)
            replies = finished
        try:
            for unsaved in replies:
                self._writer.save(unsaved.to_saved())
            self._writer.set_current((current or changed[0]).id)
        except SessionError as error:
            return str(error)
        return ""

    def save_selection(self, current: Reply) -> None:
        """Save which reply is selected; a failure is reported when the next reply is saved."""
        if self._writer is not None:
            with suppress(SessionError):
                self._writer.set_current(current.id)

    def save_again(self) -> str:
        """Try to save what could not be saved. Return the reason why it still is not, or an empty text."""
        if self._writer is None:
            return ""
        self._writer.save_again()
        return self._writer.problem

    def rename(self, name: str) -> None:
        """Rename the session and its file; a failure raises a SessionError."""
        if self._writer is not None:
            self._writer.rename(name)

    def delete(self) -> None:
        """Delete the file and save nothing more; a failure raises a SessionError."""
        if self._writer is not None:
            self._writer.delete()

    def close(self) -> None:
        """Release the file to other windows."""
        if self._writer is not None:
            self._writer.close()
