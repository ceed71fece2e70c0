"""Replies of a conversation, and the session file that keeps them."""

from collections.abc import Sequence

from engine.errors import printable
from lotr_tui.session.conversation.autosave import Autosave
from lotr_tui.session.conversation.entries import Exchange
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.session_file import SessionWriter

MAX_TOKENS = 50_000
"""Tokens after which a conversation is full; a new one then bounds memory and file size.

These are about 400 turns, each with the eight answers that were drawn for it.
"""


class SavedReplies:
    """Tree of replies, of which a part is visible, saved in a session file."""

    def __init__(self, writer: SessionWriter | None = None) -> None:
        """Start without replies, saved by `writer` (None: in a new file, created with the first finished reply)."""
        self.active_reply: Reply | None = None
        """Reply that is being generated."""
        self.current_reply: Reply | None = None
        """Last reply of the visible path, which the next prompt answers in a dialogue."""
        self.replies_by_exchange: dict[Exchange, Reply] = {}
        self.notice = ""
        """Message about saving that the user has not seen; the reader resets it."""
        self._autosave = Autosave(writer)

    @property
    def name(self) -> str:
        """Name of the session, which is the stem of its file; empty before there is a file."""
        return self._autosave.session_name

    @property
    def is_full(self) -> bool:
        """True if the conversation has more than `MAX_TOKENS` tokens."""
        return sum(reply.num_own_tokens for reply in self.replies_by_exchange.values()) > MAX_TOKENS

    def save_again(self) -> str:
        """Try to save what could not be saved. Return the reason why it still is not, or an empty text."""
        return self._autosave.save_again()

    def rename(self, name: str) -> None:
        """Rename the session; an invalid or taken name raises a SessionError."""
        self._autosave.rename(name)

    def select_reply(self, reply: Reply) -> None:
        """Select a reply in its turn."""
        reply.turn.selected_index = reply.turn.replies.index(reply)
        self.current_reply = reply.selected_path()[-1]
        self._autosave.save_selection(self.current_reply)  # which implies the branches of the turns before

    def rename_branch(self, reply: Reply, name: str) -> None:
        """Name the branch of a reply."""
        reply.name = printable(name)
        reply.turn.label_branches()
        self._save([reply])

    def _next_id(self) -> int:
        return max((reply.id for reply in self.replies_by_exchange.values()), default=-1) + 1

    def _save(self, changed: Sequence[Reply]) -> None:
        """Save finished replies of a turn, of which the first is shown; an active one is saved when it ends."""
        active = self.active_reply
        if active not in changed:
            finished = [each for each in self.replies_by_exchange.values() if each is not active]
            current = None if self.current_reply is active else self.current_reply
            self.notice = self._autosave.save(changed, finished, current) or self.notice
