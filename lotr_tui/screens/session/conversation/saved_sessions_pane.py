"""Conversation pane that shows saved sessions."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import LotrError
from lotr_tui.screens.session.conversation.pane import ConversationPane
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.session.conversation import Conversation
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.transcript import Note

if TYPE_CHECKING:  # this module imports the exporters
    from lotr_tui.screens.dialogs.sessions import SessionChoice


class SavedSessionsPane(ConversationPane):
    """Conversation pane in which another session can be opened or begun; the one before stays saved."""

    def set_welcome(self, welcome: str) -> None:
        """Show another text at the top of a new session, and now if nothing has been said yet."""
        if welcome == self._welcome:
            return
        self._welcome = welcome
        if self.conversation.current_reply is None:
            for transcript in self.query(Transcript):  # none if the app is exiting
                transcript.replace_entries(0, [Note(welcome), *transcript.entries[1:]])

    def choose_session(self, session_model: SessionModel, on_opened: Callable[[], None]) -> None:
        """List the saved sessions, open the chosen one in place of the current conversation, and call `on_opened`."""
        from lotr_tui.screens.dialogs.sessions import SessionsScreen  # with the exporters, only if opened

        def chosen(choice: "SessionChoice | None") -> None:
            if choice == "new":
                self.begin_session()
                on_opened()
            elif choice is not None and self.open_session(choice, session_model):
                on_opened()

        self.app.push_screen(SessionsScreen(self.conversation), chosen)

    def begin_session(self) -> None:
        """Show an empty conversation in place of the current one, which stays saved."""
        if self._can_leave():
            self._show_conversation(Conversation(self.conversation.pace))

    def open_session(self, path: Path, session_model: SessionModel) -> bool:
        """Open a saved session in place of the current conversation, and return True if that was possible."""
        if not self._can_leave():
            return False
        try:
            conversation = Conversation.resume(path, session_model, self.conversation.pace)
        except LotrError as error:
            self.notify(str(error), severity="error", markup=False)
            return False
        self._show_conversation(conversation)
        return True

    def _can_leave(self) -> bool:
        """Return True if the current conversation is saved; otherwise say that it would be lost."""
        if problem := self.conversation.save_again():
            text = f"this conversation is not saved and would be lost: {problem}; free some space first"
            self.notify(text, severity="warning", markup=False)
        return not problem

    def _show_conversation(self, conversation: Conversation) -> None:
        """Close the current conversation, and show another one in its place."""
        self.exit_cursor_mode()
        self.close_search()
        self.conversation.close()
        self.conversation = conversation
        self.transcript.replace_entries(0, [Note(self._welcome), *conversation.selected_replies()])
        self.transcript.scroll_end(animate=False)
        self._show_notice()
        self.post_message(self.Changed(ended=True))
