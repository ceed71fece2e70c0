"""The session screen: prompt, conversation, next-token probabilities and sampling controls."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.binding import BindingType
from textual.widgets import Label, TextArea

from engine.errors import LotrError
from engine.generation.settings import SamplerSettings, random_seed
from lotr_tui.screens.session.bindings import SESSION_BINDINGS
from lotr_tui.screens.session.inspectors import InspectionContext, Inspector, create_inspector_screen
from lotr_tui.screens.session.roles_screen import RolesSessionScreen
from lotr_tui.screens.session.slash_commands.parsing import is_command, unescape_prompt
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.prompt.prompt_input import PromptInput

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from lotr_tui.learn.material import Material
    from lotr_tui.monitor.training_view import TrainingView
    from lotr_tui.screens.session.conversation.pane import ConversationPane
    from lotr_tui.screens.session.conversation.token_inspector import TokenInspector
    from lotr_tui.screens.session.conversation.view import ConversationView
    from lotr_tui.screens.session.panes import SessionPanes
    from lotr_tui.session.reply import Reply
    from lotr_tui.session.session_model import SessionModel

PREVIEW_INTERVAL = 0.2
"""Minimum seconds between two updates of the bars while words are written."""
PACES = (5.0, 10.0, 25.0, 100.0, 0.0)
"""Paces to choose from, in words per second; 0 is no limit."""


class SessionScreen(RolesSessionScreen):
    """Screen to prompt a model and to see why it picked each word."""

    BINDINGS: ClassVar[list[BindingType]] = SESSION_BINDINGS

    def __init__(
        self,
        session_model: "SessionModel | None",
        runs_dir: Path | None,
        pace: float,
        *,
        load_session_model: "Callable[[], SessionModel] | None" = None,
        follow_training: bool = False,
    ) -> None:
        """Show a session; a prompt that is sent before the model is loaded waits for it.

        Args:
            session_model: The model, or None to load one.
            runs_dir: Runs directory; None is the default one.
            pace: Words per second; 0 is no limit.
            load_session_model: Loads the model in a thread, after the first paint.
            follow_training: True if each model of the running training replaces the model of the session.
        """
        super().__init__(session_model, load_session_model, runs_dir, follow_training=follow_training)
        self._pace = pace
        self._edited_reply: Reply | None = None
        self._told_how_to_quit = False
        self._pending_submit: PromptInput.Submitted | None = None
        self._is_hint_due = False
        """True from the moment a prompt is sent until its reply has ended."""

    @classmethod
    def from_training(cls, view: "TrainingView", runs_dir: Path | None, pace: float) -> "SessionScreen":
        """Return a session with the latest model of a training, which later models replace."""
        from lotr_tui.session.session_model import SessionModel

        events = [view.finished] if view.finished else view.evaluations[-1:]
        session_model = SessionModel.from_training(view, events, runs_dir)
        assert session_model is not None, "the dashboard opens a session only when there is a model"
        return cls(session_model, runs_dir, pace, follow_training=True)

    def _create_panes(self) -> "SessionPanes":
        from lotr_tui.screens.session.panes import create_panes

        return create_panes(
            welcome=self.session_model.welcome_text(),
            pace=self._pace,
            get_settings=self._get_settings_and_seed,
            sampler_settings=self.model_settings.sampler,
        )

    def _after_open(self) -> None:
        """Send a prompt that waits for the model."""
        super()._after_open()
        self.call_after_refresh(self._show_preview)
        self._update_keys()
        if self._pending_submit is not None:
            self.submit_prompt(self._pending_submit)

    # Prompt

    def submit_prompt(self, event: PromptInput.Submitted) -> None:
        """Send a prompt, or keep it until the model is loaded."""
        self._pending_submit = None if self.is_ready else event
        if not self.is_ready:
            return
        text = unescape_prompt(event.value)
        view = self._panes.conversation
        try:
            if self.reply_mode != "conversation" or not self.knows_speakers:
                reader = self._slow_preview.reader if self.session_model.is_slow else None
                view.send(self.session_model, text, self.reply_mode, self._previous_reply(), self.roles, reader)
            elif text.strip() or self._edited_reply is not None:
                view.say(self.session_model, text, self.roles, self._previous_reply())
            else:
                view.go_on(self.session_model, self._next_cast(), 1, self._previous_reply())
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        self._is_hint_due = True
        self._preview_updated_at = time.monotonic()  # the first word is painted before the bars are computed
        self._set_edited_reply(None)
        self._clear_submitted(event)

    def _previous_reply(self) -> "Reply | None":
        """Return the reply that the next prompt answers, or None at the start of a text."""
        conversation = self._panes.conversation.conversation
        edited = self._edited_reply
        previous = conversation.current_reply if edited is None else edited.turn.previous_reply
        if previous is None or previous not in conversation:
            return None  # the reply may belong to a session that was full
        return previous if self.reply_mode != "continue" and previous.reply_mode == self.reply_mode else None

    def _get_settings_and_seed(self) -> tuple[SamplerSettings, int]:
        """Return the settings for the next reply; raise InvalidInputError if a control is out of range."""
        sampler = self._panes.sampler
        settings, seed = sampler.settings(), sampler.seed()
        if seed is None:
            seed = random_seed()
            sampler.show_random_seed(seed)
        return settings, seed

    @on(PromptInput.Notice)
    def _show_prompt_notice(self, event: PromptInput.Notice) -> None:
        self.notify(event.text, severity="warning", markup=False)

    def on_conversation_view_edit_requested(self, event: "ConversationView.EditRequested") -> None:
        """Put the prompt of a reply into the prompt input."""
        self._set_edited_reply(event.reply)
        self._prompt.value = event.reply.prompt or ""
        self.set_focus(self._prompt)

    def _set_edited_reply(self, reply: "Reply | None") -> None:
        self._edited_reply = reply
        self._update_prompt_mark()

    def _update_prompt_mark(self) -> None:
        words = ["edit" if self._edited_reply else "", "reply" if self.reply_mode == "reply" else "", "❯"]
        self.query_one("#prompt-mark", Label).update(" ".join(filter(None, words)))

    # Conversation

    def on_conversation_pane_reply_started(self) -> None:
        """Leave a slow model to the reply."""
        if self.session_model.is_slow:
            self._slow_preview.cancel()
            self._next_words.cancel()

    def on_conversation_pane_changed(self, event: "ConversationPane.Changed") -> None:
        """Update the keys, and the bars less often than the words arrive."""
        if event.ended and self._is_hint_due:
            self._is_hint_due = False
            self._first_steps.show_next()
        self._update_keys()
        conversation = self._panes.conversation.conversation
        if self._edited_reply is not None and self._edited_reply not in conversation:
            self._set_edited_reply(None)  # another session was opened
        if event.ended or time.monotonic() - self._preview_updated_at >= PREVIEW_INTERVAL:
            self._show_preview()

    def action_stop(self) -> None:
        """Clear a command, stop the reply, or leave the search, the cursor or an edit, and focus the prompt."""
        if is_command(self._prompt.value):
            self._prompt.clear()
            return
        if not self.is_ready:
            return
        view = self._panes.conversation
        if view.conversation.active_reply is not None:
            view.conversation.stop()
            return
        if not view.close_search() and not view.exit_cursor_mode() and self._edited_reply is not None:
            self._set_edited_reply(None)
            self._prompt.clear()
        self.set_focus(self._prompt)

    def action_interrupt(self) -> None:
        """Stop as escape does. The first time that no reply is written, say how to quit, which ctrl+c never does."""
        is_writing = self.is_ready and self._panes.conversation.conversation.active_reply is not None
        if not is_writing and not self._told_how_to_quit:
            self._told_how_to_quit = True
            self.notify("ctrl+q quits", timeout=3)
        self.action_stop()

    async def action_conversation(self, action: str) -> None:
        """Run an action of the conversation, wherever the focus is."""
        await self._panes.conversation.run_action(action)

    def action_scroll_page(self, pages: int) -> None:
        """Scroll the transcript by one page up (-1) or down (1), wherever the focus is."""
        transcript = self._panes.conversation.transcript
        (transcript.scroll_page_up if pages < 0 else transcript.scroll_page_down)(animate=False)

    def action_choose_session(self) -> None:
        """List the saved sessions, and open the chosen one in place of this one."""
        self.set_focus(self._prompt)
        self._panes.conversation.choose_session(self.session_model, lambda: self._set_edited_reply(None))

    def save_again(self) -> str:
        """Try to save what could not be saved of the conversation."""
        return self._panes.conversation.conversation.save_again() if self.is_ready else ""

    def action_next_pace(self) -> None:
        """Set the next faster pace, and after full speed the slowest one."""
        conversation = self._panes.conversation.conversation
        faster = [pace for pace in PACES if pace > conversation.pace > 0]
        self._pace = conversation.pace = faster[0] if faster else 0.0 if conversation.pace >= PACES[-2] else PACES[0]
        self.app.update_settings(pace=self._pace)
        self.app.clear_notifications()  # the previous pace
        pace = f"{self._pace:g} {self._token_noun()}s per second" if self._pace else "full speed"
        self.notify(f"pace: {pace}", timeout=2)

    # Token under the cursor

    def on_conversation_pane_inspection_changed(self, event: "ConversationPane.InspectionChanged") -> None:
        """Show the token under the cursor instead of the bars."""
        self.set_class(event.inspected is not None, "-inspecting")
        if event.inspected is not None:
            self._first_steps.finish("words")
            self._panes.token_inspector.show(event.inspected)
        self._update_keys()

    def on_token_inspector_alternative_selected(self, event: "TokenInspector.AlternativeSelected") -> None:
        """Branch to the clicked alternative."""
        self._panes.conversation.action_branch(event.number)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Remove the cursor when the prompt gets the focus."""
        if event.widget.id == "prompt" and self.is_ready:
            self._panes.conversation.exit_cursor_mode()

    # Sampling controls and next-token bars

    async def action_sampler(self, action: str) -> None:
        """Run an action of the sampling controls, wherever the focus is."""
        await self._panes.sampler.run_action(action)

    def on_sampler_panel_changed(self) -> None:
        """Remember the settings and update the bars."""
        with suppress(LotrError):  # an incomplete number is reported when the prompt is sent
            settings = self._panes.sampler.settings()
            if settings.temperature != self.model_settings.sampler.temperature:
                self._first_steps.finish("temperature")
                self._update_keys()
            self.change_model_settings(sampler=settings)
        self._update_preview()

    @on(TextArea.Changed)
    def _update_preview(self) -> None:
        # While a reply is being written the bars follow its words instead.
        if self.is_ready and self._panes.conversation.conversation.active_reply is None:
            self._show_preview()

    # The class

    def action_learn(self, chapter: int | None = None) -> None:
        """Open a chapter of the class on the model of this session, or the first one whose task is not done."""
        from lotr_tui.screens.learn.screen import ChapterScreen

        session_model = self.session_model if self.is_ready else None

        def make_material() -> "Material":
            from lotr_tui.learn.material import Material

            return Material.from_session(session_model)

        def close(_: None) -> None:
            self.query_one(HelpLine).update_text()

        self._knows_class = True
        self.app.push_screen(ChapterScreen(make_material, chapter), close)

    # Inspectors

    def action_inspect(self, inspector: Inspector) -> None:
        """Open an inspector on the typed prompt or the latest reply."""
        from lotr_tui.session.cast import Roles
        from lotr_tui.session.columns import PromptContext
        from lotr_tui.session.read_text import to_prompt_line

        reply = self._panes.conversation.target_reply
        try:
            settings, seed = self._panes.sampler.settings(), self._panes.sampler.seed()
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        prompt, prompt_context = self._draft, PromptContext(self.reply_mode, self._previous_reply(), self.next_roles())
        if reply is not None and not prompt:
            roles = Roles(reply.speaking_as, reply.speaker, reply.system_prompt)
            prompt, prompt_context = (
                reply.prompt or "",
                PromptContext(reply.reply_mode, reply.turn.previous_reply, roles),
            )
            if seed is None and reply.starts_turn:
                seed = reply.seed
        text_model = self.session_model if reply is None else reply.session_model
        if text_model.knows_speakers and self.session_model.knows_speakers:
            text_model = self.session_model  # a conversation is the same text for all models that know speakers
        context = InspectionContext(
            session_model=self.session_model,
            prompt=prompt,
            prompt_context=prompt_context,
            sampler_settings=settings,
            seed=seed,
            text=to_prompt_line(prompt) if reply is None else reply.full_text(),
            text_model=text_model,
            runs_dir=self._runs_dir,
            pace=self._pace,
        )
        self.app.push_screen(create_inspector_screen(inspector, context))
