"""Session screen that shows the words or tokens that can come next."""

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from engine.data.speakers import display_name
from engine.errors import LotrError
from engine.generation.settings import SamplerSettings
from lotr_tui.screens.session.slash_commands.screen import CommandSessionScreen
from lotr_tui.session.settings import PreviewUnit, ReplyMode

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.generation.sampling import NextTokenProbs
    from lotr_tui.session.cast import Roles
    from lotr_tui.session.next_tokens import NextTokenContext
    from lotr_tui.session.read_text import UnreadText
    from lotr_tui.session.reply import Reply
    from lotr_tui.session.session_model import SessionModel


class PreviewSessionScreen(CommandSessionScreen):
    """Session screen whose bars show what can come next after the draft or the latest reply."""

    reply_mode: ReplyMode = "continue"
    _preview_updated_at = 0.0
    _slow_preview_unit: PreviewUnit = "token"
    """Unit for a slow model, whose words would take seconds to find."""

    def _previous_reply(self) -> "Reply | None":
        """Return the reply that the next prompt answers, or None at the start of a text."""
        raise NotImplementedError

    def _after_open(self) -> None:
        """Prepare the preview."""
        from lotr_tui.screens.session.next_token_bars import MIN_ROWS
        from lotr_tui.screens.session.next_words import NextWords
        from lotr_tui.screens.session.slow_preview import SlowPreview
        from lotr_tui.session.next_tokens import MAX_CANDIDATES, WordCompleter
        from lotr_tui.session.read_text import TextReader

        self._reader = TextReader()
        self._word_completer = WordCompleter()
        self._slow_preview = SlowPreview(self, self._word_completer, self._show_context, self._show_completion)
        self._next_words = NextWords(self, MAX_CANDIDATES, MIN_ROWS, self._show_candidates)
        self._panes.conversation.set_preview_unit(self.preview_unit)
        super()._after_open()

    def on_unmount(self) -> None:
        """Stop the search of the next words."""
        if self.is_ready:
            self._next_words.cancel()
            self._slow_preview.cancel()

    def set_session_model(self, session_model: "SessionModel", message: str = "") -> None:
        """Replace the model, and read nothing more with the old one."""
        if self.is_ready:
            self._slow_preview.cancel()
            self._slow_preview_unit = "token"
        super().set_session_model(session_model, message)
        if self.is_ready:
            self._panes.conversation.set_preview_unit(self.preview_unit)

    def complete_word(self, text: str) -> str:
        """Return the rest of the last word, if it is known already or the model is fast."""
        if self.session_model.is_slow:
            return self._slow_preview.completion(text)
        return self._word_completer.complete(self.session_model.model, text)

    def _show_preview(self) -> None:
        """Show the probabilities after the typed prompt, or after the latest reply if nothing is typed.

        A slow model reads the text in a thread first. While it writes, its text is shown after each token.
        """
        if not self.is_ready:
            return
        from lotr_tui.session.next_tokens import read_next_token

        self._preview_updated_at = time.monotonic()
        text = self._find_text()
        if text is None:
            self._slow_preview.cancel()
            self._next_words.cancel()
            self._panes.next_token_bars.clear()
        elif self.session_model.is_slow:
            is_writing = self._panes.conversation.conversation.active_reply is not None
            self._slow_preview.request(text, self._draft, may_read=not is_writing)
        elif (context := read_next_token(self._reader, text)) is not None:
            self._show_context(context)

    def _show_next(self, context: "NextTokenContext", settings: SamplerSettings) -> None:
        """Show what can come next after a text: tokens at once, words once they are found."""
        if self._has_subwords and self.preview_unit == "word":
            self._next_words.search(context, settings)
        else:
            self._next_words.cancel()
            self._show_candidates(context, settings, context.token_probs(settings))

    def _find_text(self) -> "UnreadText | None":
        """Return the text whose next token is shown; None if there is none."""
        from lotr_tui.session.next_tokens import find_unread_text

        conversation, previous = self._panes.conversation.conversation, self._previous_reply()
        with suppress(LotrError):  # a prompt that cannot be read is reported when it is sent
            return find_unread_text(
                self.session_model, conversation, self._draft, self.reply_mode, previous, self.roles
            )
        return None

    def _show_context(self, context: "NextTokenContext") -> None:
        """Show what can come next after a text that the model has read."""
        with suppress(LotrError):  # an incomplete number is reported when the prompt is sent
            self._show_next(context, self._panes.sampler.settings())

    def _show_completion(self) -> None:
        self._prompt.update_suggestion()

    @property
    def roles(self) -> "Roles":
        """Roles in which the text is read."""
        raise NotImplementedError

    def _show_candidates(
        self, context: "NextTokenContext", settings: SamplerSettings, candidates: "NextTokenProbs"
    ) -> None:
        """Show the words or tokens that can come next after a text."""
        from lotr_tui.session.session_model import reads_line_ends

        last_text = context.last_text(candidates.candidate_unit)
        is_answer = context.is_chat and context.is_first_token
        speaker = self.session_model.label if is_answer else display_name(context.speaker)
        self._panes.next_token_bars.show(
            candidates, last_text, settings.describe_filters(), speaker, ends_text=reads_line_ends(context.model)
        )

    def _show_pane(self, pane: str) -> None:
        super()._show_pane(pane)
        self.call_after_refresh(self._show_preview)

    # Words or tokens

    @property
    def preview_unit(self) -> PreviewUnit:
        """Unit of what can come next: the saved one, or for a slow model tokens until the user asks for words."""
        return self._slow_preview_unit if self.session_model.is_slow else self.app.settings_store.current.preview_unit

    @property
    def _has_subwords(self) -> bool:
        """True if the model's tokens are parts of words."""
        return self.session_model.model.tokenizer.is_open

    def action_toggle_tokens(self) -> None:
        """Show the tokens that can come next, or whole words again."""
        unit: PreviewUnit = "word" if self.preview_unit == "token" else "token"
        if self.session_model.is_slow:
            self._slow_preview_unit = unit
        else:
            self.app.update_settings(preview_unit=unit)
        self._panes.conversation.set_preview_unit(unit)
        self._show_preview()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return False for the switch to tokens where these are words; see also the base class."""
        if action == "toggle_tokens" and self.is_ready and not self._has_subwords:
            return False
        return super().check_action(action, parameters)
